"""Jobs over processes: each is done once, in order of need, and again when its process dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.support.jobs import MOST_LOSSES, Job, Processes, finished


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


def hold_a_lock(mark: str, dies: bool) -> None:
    """Make a lock between processes, as tqdm does, and wait; or die with it, the first time."""
    lock = multiprocessing.RLock()
    first = not Path(mark).exists()
    Path(mark).write_text("x")
    if dies and first:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0 if dies else 60)
    del lock


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


def test_running_jobs_are_said_while_none_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.support.jobs.SECONDS_PER_WAIT", 0.05)
    names = [str(k) for k in range(3)]
    said: list[list[str]] = []
    late: list[str] = []
    ended: list[str] = []

    def hear(running: list[Job]) -> None:
        said.append([job.name for job in running])
        late.extend(name for name in said[-1] if name in ended)

    jobs = [Job(name, sleep, (0.3, str(tmp_path / name))) for name in names]
    for job, _ in finished(jobs, 2, waiting_for=hear):
        ended.append(job.name)
    assert sorted(ended) == names
    assert ["0", "1"] in said
    assert len(said) > len(names)  # not once a job, when it ends
    assert all(len(running) <= 2 for running in said)
    assert not late


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


SCRIPT = """
import sys
from experiments.support.interrupting import interruptible
from experiments.support.jobs import Job, finished
from tests.experiments.support.test_jobs import hold_a_lock
try:
    with interruptible():
        list(finished([Job("job", hold_a_lock, (sys.argv[1], sys.argv[2] == "dies"))], 1))
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"), [("waits", "interrupted\n"), ("dies", "job: its process died; the job starts again\n")]
)
def test_a_worker_that_is_ended_leaves_no_warning_of_semaphores(what, said, tmp_path):
    mark = tmp_path / "begun"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(mark), what],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        start_new_session=True,
        # A process that a shell starts in the background ignores SIGINT, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while what == "waits" and not mark.exists():
        assert process.poll() is None
        time.sleep(0.05)
    if what == "waits":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends Ctrl-C: to all processes
    _, err = process.communicate(timeout=120)
    assert err == said


@pytest.mark.parametrize("before", [None, "ignore::FutureWarning"])
def test_the_environment_is_as_before_when_processes_have_begun(before, monkeypatch):
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONWARNINGS", before)
    environment = dict(os.environ)
    Processes(1).stop(at_once=True)
    assert dict(os.environ) == environment


@pytest.mark.slow
def test_an_exception_ends_everything_at_once(tmp_path):
    mark = tmp_path / "slow"
    began = time.monotonic()
    with pytest.raises(ValueError, match="bad length"):
        list(finished([Job("slow", sleep, (60, str(mark))), Job("bad", fail)], workers=2))
    assert time.monotonic() - began < 45
    assert not mark.exists()
