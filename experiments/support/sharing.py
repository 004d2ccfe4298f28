"""Share jobs out between this process and others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import TypeVar

from experiments.support.jobs import Processes

J = TypeVar("J")


def share_out(
    executor: Processes,
    jobs: Sequence[J],
    begin: Callable[[J], None],
    here: Callable[[J], None],
    there: Callable[[J], None],
) -> None:
    """Do jobs in this process and in the others, which each take the next one; `begin` is called as one is taken.

    `there` waits for another process; what fails there is left undone.
    """
    waiting, lock = deque(jobs), Lock()

    def take() -> J | None:
        with lock:
            if not waiting:
                return None
            begin(waiting[0])
            return waiting.popleft()

    def hand_over() -> None:
        while (job := take()) is not None:
            with suppress(Exception):  # this process measures what another could not
                there(job)

    others = [Thread(target=hand_over, daemon=True) for _ in range(executor.workers)]
    for other in others:
        other.start()
    try:
        while (job := take()) is not None:
            here(job)
    finally:
        with lock:
            waiting.clear()  # after an error nothing is handed over
    for other in others:
        other.join()
