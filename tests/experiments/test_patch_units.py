"""Units of a sweep in several processes: the same values, and no unit computed twice."""

import json
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pandas
import pytest

from experiments import patch_units
from experiments.cli import main
from experiments.commands.patch import PatchCommand
from experiments.patch_units import unit_file, units_of
from experiments.support import on_ray
from experiments.support.jobs import Job, Processes
from interp.patching import Sweep

RUN = "parity-aligned-alibi"
COMMAND = PatchCommand(RUN, length=12, step=5, prompts=33, site="resid_mid")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patch_units._sweep.cache_clear()


def test_units_of_another_process_are_read_here(tmp_path, monkeypatch: pytest.MonkeyPatch):
    _, sweep = COMMAND.planned()
    expected = COMMAND.compute(sweep, tmp_path / "one").values
    (tmp_path / "two").mkdir()
    units_of(COMMAND, False, tmp_path / "two", [(unit.number, unit.name) for unit in sweep.units])
    monkeypatch.setattr(Sweep, "compute", lambda *_: pytest.fail("a unit was computed again"))
    found = COMMAND.compute(sweep, tmp_path / "two").values
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_unit_that_is_split_otherwise_there_is_left_out(tmp_path):
    _, sweep = COMMAND.planned()
    first = sweep.units[0]
    units_of(COMMAND, False, tmp_path, [(first.number, "another"), (10**6, "beyond")])
    assert not unit_file(tmp_path, first).exists()


def test_a_cluster_computes_the_units_into_the_work_folder(tmp_path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Cluster(Processes):
        def __init__(self, workers: int, gpus: float) -> None:
            asked.append((workers, gpus))
            self.workers = workers

        def submit(self, job: Job) -> Future:
            done: Future = Future()
            job.work(*job.args)
            done.set_result(None)
            return done

        def stop(self, at_once: bool) -> None: ...

    monkeypatch.setattr(on_ray, "OnRay", Cluster)
    command = replace(COMMAND, engine="ray", gpus=0.5)
    _, sweep = command.planned()
    (tmp_path / "work").mkdir()
    assert sum(patch_units.compute_elsewhere(command, sweep, Path("work"))) == len(sweep.units)
    assert asked == [(1, 0.5)]
    monkeypatch.setattr(Sweep, "compute", lambda *_: pytest.fail("a unit was computed again"))
    assert command.compute(sweep, tmp_path / "work").values.isfinite().all()


def test_a_missing_cluster_is_one_line(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    _, sweep = COMMAND.planned()
    with pytest.raises(ValueError, match="--engine ray needs Ray"):
        replace(COMMAND, engine="ray").compute(sweep, tmp_path)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path):
    tables = []
    for workers in ("1", "2"):
        argv = ["patch", RUN, "--length", "12", "--step", "5", "--prompts", "33", "--site", "resid_mid"]
        assert main([*argv, "--workers", workers, "--out", workers]) == 0
        tables.append(pandas.read_parquet(tmp_path / workers / "patch-resid_mid.parquet"))
        options = json.loads((tmp_path / workers / "patch-resid_mid.json").read_text())["options"]
        assert "workers" not in options
    pandas.testing.assert_frame_equal(*tables, atol=1e-4)
