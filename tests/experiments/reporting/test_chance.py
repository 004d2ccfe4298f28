"""A report shows chance as this version has it, also of an evaluation that an older version stored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments import load
from experiments.reporting import stored
from interp.models.names import SHIPPED

RUN = "parity-aligned-alibi"


@pytest.fixture(scope="module")
def evaluation() -> dict:
    return json.loads((SHIPPED / RUN / "evaluation.json").read_text(encoding="utf-8"))


def test_a_fresh_evaluation_has_the_chance_of_now(evaluation: dict) -> None:
    run = load(RUN, device="cpu")
    assert {row["mode"] for row in evaluation["accuracy"]} == {"forced", "written"}
    for row in evaluation["accuracy"]:
        assert stored.chances_now(run, row["length"], row["mode"])[row["metric"]] == pytest.approx(
            row["chance"], rel=1e-9
        )
    steps = {row["mode"]: row["chance"] for row in evaluation["accuracy"] if row["metric"] == "step"}
    assert steps == {"forced": 0.5, "written": 0.5 / 128}  # of the 128 labels that prompts draw from


def test_the_chance_of_an_older_evaluation_is_replaced(
    evaluation: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {**evaluation, "accuracy": [{**row, "chance": 0.5} for row in evaluation["accuracy"]]}
    monkeypatch.setattr(stored, "beside", lambda *_: (old, (), ()))
    options: Any = SimpleNamespace(quick=True)
    part = stored.accuracy_part(load(RUN, device="cpu"), options, tmp_path, lambda _: None)
    assert [row["chance"] for row in part.data["accuracy"]] == pytest.approx(
        [row["chance"] for row in evaluation["accuracy"]], rel=1e-9
    )
