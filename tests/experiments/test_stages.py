"""Stages of a sweep that are not in the sweep's own tests."""

import json
import shutil
from pathlib import Path

import pytest

import experiments
from experiments import stages
from experiments.stages import STAGES, StageOptions, applies


def test_longer_lengths_are_measured_or_listed_as_impossible(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "LONGER_LENGTHS", (3, 1000))
    monkeypatch.setattr(stages, "LONGER_PROMPTS", 8)
    run = tmp_path / "parity-aligned-alibi"
    shutil.copytree(Path(experiments.__file__).parent / "runs" / run.name, run)
    stages._longer(run, StageOptions(device="cpu"))
    result = json.loads((run / STAGES["longer"]).read_text())
    assert {row["length"] for row in result["accuracy"]} == {3}
    assert {row["mode"] for row in result["accuracy"]} == {"forced", "written"}
    assert "1000" in result["impossible"]["1000"]


@pytest.mark.parametrize(
    ("stage", "name", "expected"),
    [
        ("longer", "parity-aligned-alibi-seed2", True),
        ("longer", "addition-aligned-alibi-seed2", False),
        ("operands", "parity-aligned-alibi-seed2", False),
        ("operands", "addition-aligned-alibi-seed2", True),
        ("evaluate", "addition-aligned-alibi-seed2", True),
    ],
)
def test_addition_has_operands_and_no_longer_lengths(stage, name, expected):
    assert applies(stage, name) is expected
