"""Atomic writes of files and folders, and locks on working folders.

Everything is written beside its place under a hidden name, flushed to the disk, and renamed. The writer holds a lock on
the hidden file, which the system releases when the process ends. The next writer to that place removes hidden files
without a lock. Where the system has no file locks, hidden files of killed processes stay.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import lock_descriptor

if TYPE_CHECKING:
    from torch import Tensor

# The worker processes of a killed command end within a second.
PATIENCE_SECONDS = 3.0
LOCK = "lock"
DIGEST_BYTES = hashlib.sha256().digest_size
_FULL = (errno.ENOSPC, errno.EDQUOT)


class AtWork(ValueError):
    """Another process holds the lock of a working folder."""


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file atomically: it holds either the old content or all of the new."""
    write_together([(path, data)])


def write_together(files: Sequence[tuple[Path, str | bytes]]) -> None:
    """Write files that belong together. The last describes the others, and never exists beside older ones.

    All are on the disk before the first is renamed, so a full disk changes nothing. Raises `ValueError`, and writes
    nothing, where a folder has the name of one of them.
    """
    if folders := [path for path, _ in files if path.is_dir()]:
        raise ValueError(f"{folders[0]} is a folder, and a file of that name is to be written; move it")
    fresh: list[tuple[int, Path]] = []
    try:
        for path, data in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            handle, part = _begin(path)
            fresh.append((handle, part))
            with naming(path):
                _write(handle, data.encode("utf-8") if isinstance(data, str) else data)
                os.fsync(handle)
        if len(files) > 1:
            files[-1][0].unlink(missing_ok=True)
        for (path, _), (_, part) in zip(files, fresh, strict=True):
            part.replace(path)
    finally:
        for handle, part in fresh:
            part.unlink(missing_ok=True)
            os.close(handle)
    for folder in dict.fromkeys(path.parent for path, _ in files):
        _sync(folder)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically."""
    from safetensors.torch import save

    write_whole(path, save({name: x.contiguous() for name, x in tensors.items()}, metadata))


def write_digested(path: Path, data: str | bytes) -> None:
    """Write a file of unfinished work that ends with the digest of its data, for `read_digested`."""
    data = data.encode("utf-8") if isinstance(data, str) else data
    write_whole(path, data + hashlib.sha256(data).digest())


def read_digested(path: Path) -> bytes | None:
    """Return the data that `write_digested` wrote; None where there is no file, or a damaged one."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    data, digest = whole[:-DIGEST_BYTES], whole[-DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == digest else None


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write into. It is renamed to `folder` when the block succeeds, and removed otherwise.

    An existing folder is replaced only when the new one is complete. Raises `ValueError` where a file has its name.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and a folder of that name is to be written; move it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    handle, fresh = _begin(folder, is_folder=True)
    try:
        with naming(folder):
            yield fresh
            paths = sorted(fresh.rglob("*"), reverse=True)  # files before the folders that hold them
            for path in (*paths, fresh):
                path.chmod(0o755 if path.is_dir() else 0o644)  # temporary folders are private
                _sync(path)
        if folder.exists():
            old = _hidden(folder, "old")
            folder.rename(old)
            fresh.rename(folder)
            shutil.rmtree(old)
        else:
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        os.close(handle)
    _sync(folder.parent)


@contextmanager
def alone_in(folder: Path, patience: float | None = None) -> Iterator[Path]:
    """Create a working folder and lock it until the block or this process ends.

    The folder is removed at the end if it holds only the lock. Raises `AtWork` when another process still holds the
    lock after `patience` seconds; default `PATIENCE_SECONDS`.
    """
    handle = _lock(folder, PATIENCE_SECONDS if patience is None else patience)
    try:
        yield folder
    finally:
        with suppress(FileNotFoundError):
            is_own = (folder / LOCK).stat().st_ino == os.fstat(handle).st_ino
            if is_own and [p.name for p in folder.iterdir()] == [LOCK]:
                shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def empty_work(work: Path, keep: str | None = None) -> None:
    """Remove everything in a folder of `alone_in` but its lock, which goes last, with the folder, and the entry `keep`.

    Who waits for the lock makes the folder again at any moment, so the folder cannot be removed while it is locked.
    """
    for path in work.iterdir():
        if path.name in (LOCK, keep):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside the block, turn any library's error about a full disk into an `OSError` that names `path`."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def is_full(error: BaseException) -> bool:
    """Return whether an error is about a full disk or quota. safetensors and tokenizers give only its text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(f"(os error {number})" in str(error) for number in _FULL)


def _hidden(path: Path, end: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{end}")


def _begin(path: Path, is_folder: bool = False) -> tuple[int, Path]:
    """Create a hidden file or folder beside `path`; return it with the open handle that holds its lock."""
    while True:
        part = _hidden(path, "part")
        try:
            if is_folder:
                part.mkdir(mode=0o700)
                handle = os.open(part, os.O_RDONLY)
            else:
                handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            error.filename = str(path)  # the hidden file is no business of whoever reads the message
            raise
        if _locked(handle) is not False and os.fstat(handle).st_nlink:
            return handle, part
        os.close(handle)  # another process swept it before it was locked


def _locked(handle: int) -> bool | None:
    """Try to lock an open file; return whether it worked. None where the system or the file system has no locks."""
    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:
        return None


def _sweep(path: Path) -> None:
    """Remove unfinished files that killed processes left beside `path`, and restore a folder they were replacing."""
    name = glob.escape(path.name)
    for old in path.parent.glob(f".{name}.????????.old"):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)
    for part in path.parent.glob(f".{name}.????????.part"):
        with suppress(OSError):  # another process sweeps too
            handle = os.open(part, os.O_RDONLY if part.is_dir() else os.O_RDWR)
            try:
                if _locked(handle):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
            finally:
                os.close(handle)


def _write(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(folder: Path, patience: float) -> int:
    until = time.monotonic() + patience
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process removed the folder just now
            continue
        if (locked := _locked(handle)) is None or (locked and os.fstat(handle).st_nlink):
            return handle
        os.close(handle)
        if locked is False and time.monotonic() > until:
            raise AtWork(f"another process is at work in {folder}; wait for it, or end it")
        if locked is False:
            time.sleep(0.1)
