"""Run independent jobs in several processes, and repeat those whose process dies.

A job writes its result atomically, so a worker may die at any moment and another one repeats its job.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from experiments.support.console import warn

# A job whose workers die more often is at fault itself; it may need more memory than there is.
MOST_LOSSES = 3
# How often `finished` says which jobs are running.
SECONDS_PER_WAIT = 10.0


@dataclass(frozen=True)
class Job:
    """A piece of work with a unique name: `work(*args)`, both picklable."""

    name: str
    work: Callable[..., Any]
    args: tuple = field(default=(), repr=False)


class LostWorker(Exception):
    """The process that ran a job has died; the job may or may not be done."""


class Executor(Protocol):
    """Runs `workers` jobs at a time. `submit` returns a handle for a running job."""

    workers: int

    def submit(self, job: Job) -> Any:
        """Start a job and return its handle."""
        ...

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        """Wait until a job has ended, or for so many seconds; return the handles of the jobs that have ended."""
        ...

    def result(self, handle: Any) -> Any:
        """Return a job's result. Raises the job's own exception, or `LostWorker`."""
        ...

    def stop(self, at_once: bool) -> None:
        """Stop the workers; `at_once` kills running jobs."""
        ...


def finished(
    jobs: Iterable[Job],
    workers: int | Executor,
    follow: Callable[[Job, Any], Iterable[Job]] = lambda job, result: (),
    waiting_for: Callable[[list[Job]], None] = lambda running: None,
) -> Iterator[tuple[Job, Any]]:
    """Yield each job and its result in the order in which jobs end.

    `workers` is a number of processes with one thread each, or an `Executor`. `follow` returns the jobs that a result
    makes possible; they run before the waiting ones. `waiting_for` gets the running jobs after every ten seconds in
    which none ends. A job whose worker dies is repeated at most three times. A job's own exception, or Ctrl-C, stops
    all workers at once. Raises `ValueError` for fewer than one worker and `ChildProcessError` for a job that kills its
    workers.
    """
    engine: Executor = Processes(workers) if isinstance(workers, int) else workers
    waiting, losses, running = deque(jobs), Counter[str](), dict[Any, Job]()
    try:
        while waiting or running:
            while waiting and len(running) < engine.workers:
                job = waiting.popleft()
                running[engine.submit(job)] = job
            ended = engine.wait(list(running), SECONDS_PER_WAIT)
            if not ended:
                waiting_for(list(running.values()))
            for handle in ended:
                job = running.pop(handle)
                try:
                    result = engine.result(handle)
                except LostWorker:
                    losses[job.name] += 1
                    if losses[job.name] > MOST_LOSSES:
                        raise ChildProcessError(f"{job.name}: its process died {losses[job.name]} times") from None
                    warn(f"{job.name}: its process died; the job starts again")
                    waiting.appendleft(job)
                    continue
                waiting.extendleft(reversed(list(follow(job, result))))
                yield job, result
    finally:
        engine.stop(at_once=bool(running))


class Processes:
    """An `Executor` of local processes. When one dies, all running jobs are lost and repeated."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1; got {workers}")
        self.workers = workers
        self.pool = self._begin()

    def _begin(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        with _silent_tracker():
            return ProcessPoolExecutor(self.workers, mp_context=spawn, initializer=start_worker)

    def submit(self, job: Job) -> Future:
        # Ctrl-C reaches every process; a new one must not handle it before `start_worker` has run.
        with _interrupts_held():
            try:
                return self.pool.submit(job.work, *job.args)
            except BrokenProcessPool:  # a process has died; start new ones
                self.pool.shutdown(wait=False)
                self.pool = self._begin()
                return self.pool.submit(job.work, *job.args)

    def wait(self, handles: list[Future], seconds: float) -> list[Future]:
        return list(wait(handles, seconds, return_when=FIRST_COMPLETED).done)

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
def _silent_tracker() -> Iterator[None]:
    """Keep Python's resource tracker from warning of what ended processes left; it starts inside, and cleans up still.

    A worker that is ended, as at Ctrl-C, leaves semaphores (the lock of tqdm is one), and the tracker says so on
    standard error after the command's own line.
    """
    name, silent = "PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"
    before = os.environ.get(name)
    os.environ[name] = f"{before},{silent}" if before else silent
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Delay Ctrl-C until the block ends; processes that start inside inherit the blocked signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker() -> None:
    """Set up a worker: one thread, no progress bars, no reaction to Ctrl-C, and an end when the parent ends."""
    import threading
    import time

    parent = os.getppid()

    def follow_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent handles it
    os.environ["OMP_NUM_THREADS"] = os.environ["TQDM_DISABLE"] = "1"
    import torch

    torch.set_num_threads(1)
