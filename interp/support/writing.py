"""How do results come to be on disk whole or not at all, whatever becomes of the process that writes them?

Everything is written beside its place under a hidden name, forced to the disk, and renamed. The writer holds a lock on
the hidden file, which dies with it: so the next who writes to that place knows what a killed process left, and
removes it.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# A killed command's workers notice within a second that they are orphans, and end.
PATIENCE_SECONDS = 3.0
LOCK = "lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class AtWork(ValueError):
    """Another process is doing this; it may be waited for, or left to it."""


def write_whole(path: Path, data: str | bytes) -> None:
    """Writes a file so that it is either the old one or the whole new one, never a part."""
    write_together([(path, data)])


def write_together(files: Sequence[tuple[Path, str | bytes]]) -> None:
    """Writes files that belong together. The last one says what the others are: it is never there beside older ones.

    All are on the disk before the first takes its place, so that a full disk changes nothing.
    """
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
    """Writes a safetensors file, whole or not at all."""
    from safetensors.torch import save

    write_whole(path, save({name: x.contiguous() for name, x in tensors.items()}, metadata))


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a new folder to write into; it takes its place when the block ends well, and else vanishes.

    A folder that is already there is replaced only once the new one is complete.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    handle, fresh = _begin(folder, is_folder=True)
    try:
        with naming(folder):
            yield fresh
            paths = sorted(fresh.rglob("*"), reverse=True)  # what is in a folder before the folder
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
    """Makes a working folder and keeps other processes out of it until the block ends, or this process does.

    A folder with nothing in it but the lock is removed at the end. Raises `AtWork` where another is at work, and still
    is after so many seconds; default those that orphans of a killed command may take to end.
    """
    handle = _lock(folder, PATIENCE_SECONDS if patience is None else patience)
    try:
        yield folder
    finally:
        with suppress(FileNotFoundError):
            ours = (folder / LOCK).stat().st_ino == os.fstat(handle).st_ino
            if ours and [p.name for p in folder.iterdir()] == [LOCK]:
                shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Lets a full disk be an `OSError` that names what was being written, whichever library met it."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def is_full(error: BaseException) -> bool:
    """Whether a disk, or a user's share of it, had no room; safetensors and tokenizers say so only in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(f"(os error {number})" in str(error) for number in _FULL)


def _hidden(path: Path, end: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{end}")


def _begin(path: Path, is_folder: bool = False) -> tuple[int, Path]:
    """A new hidden file or folder beside `path`, and the handle that holds its lock."""
    while True:
        part = _hidden(path, "part")
        if is_folder:
            part.mkdir(mode=0o700)
            handle = os.open(part, os.O_RDONLY)
        else:
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if _locked(handle) is not False and os.fstat(handle).st_nlink:
            return handle, part
        os.close(handle)  # somebody who sweeps was faster than the lock


def _locked(handle: int) -> bool | None:
    """Takes the lock of an open file: whether this process has it now. None where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sweep(path: Path) -> None:
    """Removes what killed processes left half-written beside `path`; a folder they were replacing comes back."""
    name = glob.escape(path.name)
    for old in path.parent.glob(f".{name}.????????.old"):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)
    for part in path.parent.glob(f".{name}.????????.part"):
        with suppress(OSError):  # another one sweeps too
            handle = os.open(part, os.O_RDONLY if part.is_dir() else os.O_RDWR)
            try:
                if _locked(handle):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
            finally:
                os.close(handle)


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to the disk."""
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
        except FileNotFoundError:  # the folder has just been removed by one who is done with it
            continue
        if (mine := _locked(handle)) is None or (mine and os.fstat(handle).st_nlink):
            return handle
        os.close(handle)
        if mine is False and time.monotonic() > until:
            raise AtWork(f"another process is at work in {folder}; wait for it, or end it")
        if mine is False:
            time.sleep(0.1)
