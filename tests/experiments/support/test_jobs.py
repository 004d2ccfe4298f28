"""Jobs over processes: each is done once, in order of need, and again when its process dies."""

import os
import signal
import time
from pathlib import Path

import pytest

from experiments.support.jobs import MOST_LOSSES, Job, finished


def square(x: int) -> int:
    return x * x


def threads() -> tuple[int, str, str]:
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["TQDM_DISABLE"]


def die_unless(mark: str) -> int:
    """Kills its own process the first time, as the kernel does when memory is short."""
    path = Path(mark)
    if not path.exists():
        path.write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def always_die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise ValueError("bad length")


def sleep(seconds: float, mark: str) -> None:
    time.sleep(seconds)
    Path(mark).write_text("done")


def test_every_job_is_done_once_by_workers_of_one_thread_without_progress_bars():
    jobs = [Job(str(k), square, (k,)) for k in range(7)]
    results = {job.name: result for job, result in finished([*jobs, Job("threads", threads)], workers=2)}
    assert results == {**{str(k): k * k for k in range(7)}, "threads": (1, "1", "1")}
    assert list(finished([], workers=2)) == []
    with pytest.raises(ValueError, match="workers must be at least 1; got 0"):
        list(finished(jobs, workers=0))


def test_what_follows_comes_before_what_waits():
    def follow(job, result):
        return [Job(f"{job.name}+", square, (result,))] if job.name in ("a", "b") else ()

    jobs = [Job(name, square, (2,)) for name in ("a", "b", "c")]
    assert [job.name for job, _ in finished(jobs, 1, follow)] == ["a", "a+", "b", "b+", "c"]


@pytest.mark.slow
def test_a_job_whose_process_dies_is_done_again(tmp_path, capsys):
    mark = tmp_path / "died"
    jobs = [Job("dies", die_unless, (str(mark),)), *(Job(str(k), square, (k,)) for k in range(3))]
    found = {job.name: result for job, result in finished(jobs, workers=2)}
    assert found == {"dies": 7, "0": 0, "1": 1, "2": 4}
    assert "dies: its process died; the job starts again" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_that_kills_its_processes_is_named():
    with pytest.raises(ChildProcessError, match=f"greedy: its process died {MOST_LOSSES + 1} times"):
        list(finished([Job("greedy", always_die)], workers=1))


@pytest.mark.slow
def test_an_exception_ends_everything_at_once(tmp_path):
    mark = tmp_path / "slow"
    began = time.monotonic()
    with pytest.raises(ValueError, match="bad length"):
        list(finished([Job("slow", sleep, (60, str(mark))), Job("bad", fail)], workers=2))
    assert time.monotonic() - began < 45
    assert not mark.exists()
