"""Share jobs out between this process and others."""

from __future__ import annotations

import warnings
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

    From then on this process has one thread of torch, as the others. `there` waits for another process. A job that
    raises `ValueError` or `Inexact` is left undone: the caller does it again, where it can say what the error means. A
    job that fails otherwise in another process is left undone too; a warning has the number of these.
    """
    import torch

    from interp.support.exactness import Inexact

    torch.set_num_threads(1)
    waiting, lock, failures = deque(jobs), Lock(), list[Exception]()

    def take() -> J | None:
        with lock:
            if not waiting:
                return None
            begin(waiting[0])
            return waiting.popleft()

    def hand_over() -> None:
        while (job := take()) is not None:
            try:
                with suppress(ValueError, Inexact):
                    there(job)
            except Exception as error:
                failures.append(error)

    others = [Thread(target=hand_over, daemon=True) for _ in range(executor.workers)]
    for other in others:
        other.start()
    try:
        while (job := take()) is not None:
            with suppress(ValueError, Inexact):
                here(job)
    finally:
        with lock:
            waiting.clear()  # after an error nothing is handed over
    for other in others:
        other.join()
    if failures:
        last = f"{type(failures[-1]).__name__}: {failures[-1]}".removesuffix(": ")
        failed = f"{len(failures)} of {len(jobs)} jobs failed in another process"
        warnings.warn(f"{failed} and are done in this one; the last by {last}", stacklevel=2)
