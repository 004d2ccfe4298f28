"""The same jobs on a real Ray cluster of two nodes; one is killed while it works."""

import os
import signal
import time
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.support.jobs import Job, finished

ray = pytest.importorskip("ray", reason="Ray is the extra `distributed`")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def cluster(monkeypatch):
    Cluster = pytest.importorskip("ray.cluster_utils").Cluster
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def slowly(seconds: float, mark: str) -> str:
    """Says where it began and when it has ended."""
    with Path(mark).open("a") as file:
        file.write(f"begun {os.getpid()}\n")
    time.sleep(seconds)
    return mark


def fail() -> None:
    raise ValueError("bad length")


def test_jobs_are_done_and_exceptions_are_their_own(cluster, tmp_path):
    from experiments.support.on_ray import OnRay

    jobs = [Job(str(k), slowly, (0.1, str(tmp_path / str(k)))) for k in range(4)]
    assert sorted(job.name for job, _ in finished(jobs, OnRay())) == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match="bad length"):
        list(finished([Job("bad", fail)], OnRay()))


def begun(marks: list[Path], count: int) -> list[int]:
    """The processes of the jobs that have begun, once there are so many."""
    while sum(m.exists() and m.stat().st_size > 0 for m in marks) < count:
        time.sleep(0.1)
    return [int(m.read_text().split()[1]) for m in marks if m.exists()]


def test_a_killed_process_costs_no_job(cluster, tmp_path, capsys):
    from experiments.support.on_ray import OnRay

    marks = [tmp_path / str(k) for k in range(3)]

    def kill_one(job, result):
        if job.name == "first":
            os.kill(begun(marks, 1)[0], signal.SIGKILL)
        return ()

    jobs = [Job("first", slowly, (0.1, str(tmp_path / "first"))), *(Job(m.name, slowly, (4.0, str(m))) for m in marks)]
    found = sorted(job.name for job, _ in finished(jobs, OnRay(2), kill_one))
    assert found == ["0", "1", "2", "first"]
    assert "its process died; the job starts again" in capsys.readouterr().err
    assert sorted(len(m.read_text().splitlines()) for m in marks) == [1, 1, 2]


def test_a_lost_node_costs_no_job(cluster, tmp_path):
    from experiments.support.on_ray import OnRay

    marks = [tmp_path / str(k) for k in range(3)]

    def lose_node(job, result):
        if job.name == "first":
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        return ()

    jobs = [Job("first", slowly, (0.1, str(tmp_path / "first"))), *(Job(m.name, slowly, (4.0, str(m))) for m in marks)]
    found = sorted(job.name for job, _ in finished(jobs, OnRay(2), lose_node))
    assert found == ["0", "1", "2", "first"]


ARGV = ["sweep", "--groups", "gaps", "--seeds", "2", "--stages", "train", "--steps", "2"]


def test_a_sweep_on_ray_with_a_killed_worker_gives_the_same_weights_as_the_local_one(cluster, tmp_path, monkeypatch):
    import threading

    from safetensors.torch import load_file

    def kill_when_training() -> None:
        folder = tmp_path / "ray"
        while not list(folder.glob("*.training")):
            time.sleep(0.02)
        # Ray names its processes after what they do.
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if b"ray::do_remotely" in path.read_bytes():
                    killed.append(int(path.parent.name))
                    os.kill(killed[0], signal.SIGKILL)
                    return
            except (OSError, ValueError):
                continue

    monkeypatch.chdir(tmp_path)
    killed: list[int] = []
    killer = threading.Thread(target=kill_when_training)
    killer.start()
    assert main([*ARGV, "--engine", "ray", "--out", "ray"]) == 0
    killer.join()
    assert killed
    assert main([*ARGV, "--out", "here"]) == 0
    names = sorted(p.parent.name for p in Path("ray").glob("*/run.json"))
    assert names == sorted(p.parent.name for p in Path("here").glob("*/run.json"))
    assert len(names) == 4
    for name in names:
        ours, theirs = (load_file(Path(place) / name / "model.safetensors") for place in ("here", "ray"))
        assert all((ours[k] == theirs[k]).all() for k in ours)
    assert not list(Path("ray").glob("*.training"))
