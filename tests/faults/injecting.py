"""How does a process meet a fault at a chosen one of its calls that change the disk?"""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("write", "fsync", "open", "mkdir", "replace", "rename", "unlink", "rmdir")
# These take room, and fail on a full disk; so do Python's own files and safetensors'.
GROWING = ("write", "fsync", "open", "mkdir")


class Injector:
    """Counts the calls of this process that change the disk, and acts at one of them.

    `kind`: "kill" (SIGKILL), "interrupt" (SIGINT), "full" (no space from then on), "lost" (SIGKILL of a worker, once,
    which the file `mark` remembers), or "" to count only. `at` counts from 0; a half-done write is on the disk by half.
    """

    def __init__(self, kind: str, at: int, mark: Path, worker: bool = False) -> None:
        self.kind, self.at, self.mark, self.in_worker = kind, at, mark, worker or kind == "lost"
        self.main = self.here = os.getpid()
        self.seen = 0
        self.full = False
        self.folder = Path.cwd()
        self.real: dict[str, Callable] = {name: getattr(os, name) for name in CALLS}
        self.real_open = io.open

    def install(self) -> None:
        """Puts itself in the way of the calls; nothing is put back, this is for a process of its own."""
        import builtins

        import safetensors.torch

        library: Any = safetensors.torch
        for name in CALLS:
            setattr(os, name, self._around(name))

        def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if isinstance(file, str | os.PathLike) and set(mode) & set("wax+") and self._ours(Path(file)):
                self._meet("open", growing=True)
            return self.real_open(file, mode, *args, **more)

        io.open = builtins.open = opened  # type: ignore[assignment]
        serialize = library.serialize_file

        def serialized(*args: Any, **more: Any) -> Any:
            self._meet("safetensors", growing=True)
            return serialize(*args, **more)

        library.serialize_file = serialized

    def _around(self, name: str) -> Callable:
        real = self.real[name]

        def write(handle: int, data: Any) -> int:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                self._meet(name, growing=True, half=lambda: real(handle, data[: len(data) // 2]))
            return real(handle, data)

        def opened(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) and self._ours(Path(path)):
                self._meet(name, growing=True)
            return real(path, flags, *args, **more)

        def other(*args: Any, **more: Any) -> Any:
            self._meet(name, growing=name in GROWING)
            return real(*args, **more)

        return {"write": write, "open": opened}.get(name, other)

    def _ours(self, path: Path) -> bool:
        return (self.folder / path).is_relative_to(self.folder)

    def _meet(self, name: str, growing: bool, half: Callable[[], Any] = lambda: None) -> None:
        if os.getpid() != self.here:  # a worker counts for itself
            self.here, self.seen = os.getpid(), 0
        if self.full and growing:
            self._fail(name)
        if (self.here != self.main) != self.in_worker or (self.kind == "full" and not growing):
            return
        self.seen += 1
        if self.seen - 1 != self.at:
            return
        match self.kind:
            case "kill":
                self._mark()
                half()
                os.kill(self.here, signal.SIGKILL)
            case "interrupt":
                self._mark()
                os.killpg(os.getpgid(0), signal.SIGINT)  # a terminal sends it to all
            case "lost":
                if self._mark():
                    half()
                    os.kill(self.here, signal.SIGKILL)
            case "full":
                self._mark()
                self.full = True
                half()
                self._fail(name)

    def _mark(self) -> bool:
        """Notes that the fault came; whether it is the first."""
        try:
            os.close(self.real["open"](self.mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def _fail(self, name: str) -> None:
        if name == "safetensors":
            from safetensors import SafetensorError

            words = f"{os.strerror(errno.ENOSPC)} (os error {errno.ENOSPC})"
            raise SafetensorError(f"Error while serializing: I/O error: {words}")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
