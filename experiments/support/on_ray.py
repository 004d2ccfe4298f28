"""Run jobs on an existing Ray cluster, with the same files and the same resuming as on one machine."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Any

from experiments.support.jobs import Job, LostWorker


class OnRay:
    """An `Executor` on a Ray cluster: each worker has one CPU and `gpus` of a GPU.

    `address` is the cluster's; "auto" is the one that this machine belongs to. Every node must have the package
    installed and see the same result folder. Raises `ValueError` where Ray or the cluster is missing.
    """

    def __init__(self, workers: int | None = None, gpus: float = 0.0, address: str = "auto") -> None:
        try:  # an optional dependency, unknown to type checkers
            ray: Any = import_module("ray")
            exceptions: Any = import_module("ray.exceptions")
        except ImportError as error:
            raise ValueError("--engine ray needs Ray: pip install 'mnemoscope[distributed]'") from error
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1; got {workers}")
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise ValueError(f"no Ray cluster answers at {address!r}; start one with: ray start --head") from error
        self.ray, self.exceptions = ray, exceptions
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        # `experiments.support.jobs.finished` repeats lost jobs and counts the losses; Ray itself does not retry.
        self.remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(do_remotely)
        self.running: set[Any] = set()

    def submit(self, job: Job) -> Any:
        handle = self.remote.remote(job, sys.argv)
        self.running.add(handle)
        return handle

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        return self.ray.wait(handles, num_returns=1, timeout=seconds)[0]

    def result(self, handle: Any) -> Any:
        self.running.discard(handle)
        try:
            return self.ray.get(handle)
        except self.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.exceptions.RayError as error:  # the process or its node died, or ran out of memory
            raise LostWorker from error

    def stop(self, at_once: bool) -> None:
        if at_once:
            for handle in self.running:
                self.ray.cancel(handle, force=True)
        self.ray.shutdown()


def do_remotely(job: Job, argv: list[str]) -> Any:
    """Run a job in a worker, with one thread and no progress bars; `argv` is the command that results record."""
    os.environ["TQDM_DISABLE"] = "1"
    sys.argv = argv
    import torch

    torch.set_num_threads(1)
    return job.work(*job.args)
