"""Ctrl-C, SIGTERM and SIGHUP end a command in the same way: the first one unwinds it, a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end; `status` is the exit status that shells give it, 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block at the first signal, and end the process at the next one.

    Results are written atomically, so that ending at once loses no more than a killed process does. After a signal the
    handlers stay, because the interpreter's own teardown is interruptible too. Signals that are ignored, as under
    `nohup`, stay ignored. An exception after a signal is `Interrupted` too: the import of a C extension that is
    interrupted raises `ImportError`. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + received[0])
        received.append(number)
        raise Interrupted(number)

    before = {number: signal.signal(number, handle) for number in _handled()}
    try:
        yield
    except Exception as error:
        if received:
            raise Interrupted(received[0]) from error
        raise
    finally:
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


class Held:
    """A signal that may have arrived while a block must not be left."""

    def __init__(self) -> None:
        self.number: int | None = None
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
        if held.number is not None:
            os._exit(128 + held.number)
        held.number = number

    held.before = {number: signal.signal(number, handle) for number in _handled()}
    try:
        yield held
    except BaseException:
        held.restore()
        raise
    held.restore()
    held.obey()


def _handled() -> list[signal.Signals]:
    """Return the signals that are not ignored, and whose handler is Python's."""
    return [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
