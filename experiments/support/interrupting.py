"""Ctrl-C, SIGTERM and SIGHUP end a command in the same way: the first one unwinds it, a second one ends it at once."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Signals that follow the first one within this time, in seconds, are part of it: `timeout` signals a process, and then
# the group that the process is in.
SAME = 0.2


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end; `status` is the exit status that shells give it, 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block at the first signal, and end the process at the next one with one line.

    Results are written atomically, so that ending at once loses no more than a killed process does. After a signal the
    handlers stay, because the interpreter's own teardown is interruptible too; while it puts the system's handlers
    back, signals are ignored, or the second of a pair would change the exit status. Signals that are ignored, as under
    `nohup`, stay ignored. An exception after a signal is `Interrupted` too: the import of a C extension that is
    interrupted raises `ImportError`. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = Received()

    def handle(number: int, frame: FrameType | None) -> None:
        if received.is_first(number):
            atexit.register(_ignore)
            raise Interrupted(number)

    before = {number: signal.signal(number, handle) for number in _handled()}
    try:
        yield
    except Exception as error:
        if received.number is not None:
            raise Interrupted(received.number) from error
        raise
    finally:
        if received.number is None:
            for number, handler in before.items():
                signal.signal(number, handler)


class Received:
    """The first signal that has arrived, if any."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.at = 0.0

    def is_first(self, number: int) -> bool:
        """Keep the first signal and return True; return False for a part of it; end the process for another one."""
        now = time.monotonic()
        if self.number is None:
            self.number, self.at = number, now
            return True
        if now > self.at + SAME:
            with suppress(OSError):
                os.write(2, b"ended at once by a second signal; the same command resumes from what is finished\n")
            os._exit(128 + self.number)
        return False


class Held(Received):
    """A signal that may have arrived while a block must not be left."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[int, Any] = {}

    def obey(self) -> None:
        """Let the signal act, as it would have without the block; do nothing if none has arrived."""
        if self.number is not None:
            self.restore()
            signal.raise_signal(self.number)

    def restore(self) -> None:
        """Put the handlers back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextmanager
def held_signals() -> Iterator[Held]:
    """Hold the first signal until the block calls `obey`, as between two steps that must not be cut in the middle.

    A second signal ends the process at once, as in `interruptible`. A signal that nobody obeyed acts when the block
    ends. Signals that are ignored stay ignored. Does nothing outside the main thread.
    """
    held = Held()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return

    def handle(number: int, frame: FrameType | None) -> None:
        held.is_first(number)

    held.before = {number: signal.signal(number, handle) for number in _handled()}
    try:
        yield held
    except BaseException:
        held.restore()
        raise
    held.restore()
    held.obey()


def _ignore() -> None:
    for number in _handled():
        signal.signal(number, signal.SIG_IGN)


def _handled() -> list[signal.Signals]:
    """Return the signals that are not ignored, and whose handler is Python's."""
    return [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
