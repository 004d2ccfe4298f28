"""How is work that can be done in any order spread over processes, and finished when one of them dies?

A job leaves its result on disk, whole or not at all; so a worker may be lost at any moment, and what it was at is
done again by another.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

# A job whose workers die this often is at fault itself: it takes more memory than there is, say.
MOST_LOSSES = 3


@dataclass(frozen=True)
class Job:
    """One piece of work, by a name that tells it from all others: `work(*args)`, both picklable."""

    name: str
    work: Callable[..., Any]
    args: tuple = field(default=(), repr=False)


class LostWorker(Exception):
    """The process that did a job is gone; nothing is known of the job."""


class Executor(Protocol):
    """Where jobs are done: `workers` at once. What `submit` gives stands for the job until it has ended."""

    workers: int

    def submit(self, job: Job) -> Any:
        """Begins a job."""
        ...

    def wait(self, handles: list[Any]) -> list[Any]:
        """The jobs that have ended, at least one."""
        ...

    def result(self, handle: Any) -> Any:
        """What a job returned; its own exception, or `LostWorker`."""
        ...

    def stop(self, at_once: bool) -> None:
        """Ends the workers; `at_once` where jobs are running that nobody waits for any more."""
        ...


def finished(
    jobs: Iterable[Job],
    workers: int | Executor,
    follow: Callable[[Job, Any], Iterable[Job]] = lambda job, result: (),
) -> Iterator[tuple[Job, Any]]:
    """Yields each job and what it returned, as they end, from `workers` processes of one thread each, or an engine.

    `follow` gives the jobs that a result makes possible; they come before those that wait. A job whose worker dies
    is done again by another, at most three times. A job's own exception ends everything, as Ctrl-C does: workers are
    stopped at once. Raises `ValueError` for fewer than one worker, `ChildProcessError` for a job that kills them.
    """
    engine: Executor = Processes(workers) if isinstance(workers, int) else workers
    waiting, losses, running = deque(jobs), Counter[str](), dict[Any, Job]()
    try:
        while waiting or running:
            while waiting and len(running) < engine.workers:
                job = waiting.popleft()
                running[engine.submit(job)] = job
            for handle in engine.wait(list(running)):
                job = running.pop(handle)
                try:
                    result = engine.result(handle)
                except LostWorker:
                    losses[job.name] += 1
                    if losses[job.name] > MOST_LOSSES:
                        raise ChildProcessError(f"{job.name}: its process died {losses[job.name]} times") from None
                    print(f"{job.name}: its process died; it is begun again", file=sys.stderr)
                    waiting.appendleft(job)
                    continue
                waiting.extendleft(reversed(list(follow(job, result))))
                yield job, result
    finally:
        engine.stop(at_once=bool(running))


class Processes:
    """Processes of this machine. One that dies takes the others' jobs with it, which are then done again too."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1; got {workers}")
        self.workers = workers
        self.pool = self._begin()

    def _begin(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, mp_context=spawn, initializer=start_worker)

    def submit(self, job: Job) -> Future:
        # Ctrl-C reaches all; a process that begins just then must not answer it before it has learned not to.
        with _interrupts_held():
            try:  # with new processes where one of the old ones has died
                return self.pool.submit(job.work, *job.args)
            except BrokenProcessPool:
                self.pool.shutdown(wait=False)
                self.pool = self._begin()
                return self.pool.submit(job.work, *job.args)

    def wait(self, handles: list[Future]) -> list[Future]:
        return list(wait(handles, return_when=FIRST_COMPLETED).done)

    def result(self, handle: Future) -> Any:
        try:
            return handle.result()
        except BrokenProcessPool as error:
            raise LostWorker from error

    def stop(self, at_once: bool) -> None:
        if at_once:
            for process in multiprocessing.active_children():
                process.terminate()
        self.pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block has ended; processes that begin in it never see it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker() -> None:
    """One thread each (several processes share the cores better than each splits small products), and no orphans."""
    import threading
    import time

    parent = os.getppid()

    def follow_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says what becomes of it
    os.environ["OMP_NUM_THREADS"] = os.environ["TQDM_DISABLE"] = "1"
    import torch

    torch.set_num_threads(1)
