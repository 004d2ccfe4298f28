"""Units of a sweep in several processes: the same values, and no unit computed twice."""

import json

import pandas
import pytest

from experiments import patch_units
from experiments.cli import main
from experiments.commands.patch import PatchCommand
from experiments.patch_units import unit_file, units_of
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
