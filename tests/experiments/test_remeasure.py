"""Arms of stored batteries are measured again with the same numbers, and nothing else changes."""

import json
import shutil
from dataclasses import replace

import pytest

from experiments import remeasure
from experiments.remeasure import main, remeasured
from experiments.support.results import write_result
from interp.models import run_in_memory
from probes import keys
from probes.batteries import battery
from probes.planted import Plan, plant
from probes.serialization import battery_to_json


@pytest.fixture(scope="module")
def run_and_battery():
    planted = plant(Plan("A1", "gpt2", 8))
    run = run_in_memory("model", planted.model, "parity-aligned", planted.vocabulary)
    return run, battery(run, (8,), seed=1, prompts=24, arms=("M6", "M7"), forced=True)


def test_an_arm_alone_gives_the_numbers_that_it_gave_in_its_battery(run_and_battery):
    run, stored = run_and_battery
    (at,) = stored.measured
    other = tuple(replace(e, n=1) if e.arm == "M6" else e for e in at.evidence)
    assert other != at.evidence
    assert remeasured(run, replace(stored, measured=(replace(at, evidence=other),)), ["M6"]) == stored


def test_an_arm_that_the_battery_lacks_is_added(run_and_battery):
    run, stored = run_and_battery
    (at,) = remeasured(run, stored, ["presence"]).measured
    assert at.evidence[: len(stored.measured[0].evidence)] == stored.measured[0].evidence
    assert keys.LARGEST_PRESENCE in {e.key for e in at.evidence}


def test_the_file_names_what_was_measured_later(run_and_battery, tmp_path, monkeypatch, capsys):
    run, stored = run_and_battery
    write_result(tmp_path / "battery.json", run, 0, {"battery": battery_to_json(stored)}, indent=None)
    monkeypatch.setattr(remeasure, "load", lambda *_: run)
    monkeypatch.setattr(remeasure, "source_of", lambda _: tmp_path)
    before = json.loads((tmp_path / "battery.json").read_text())
    assert main(["M6", "a-run"]) == 0
    after = json.loads((tmp_path / "battery.json").read_text())
    made = after.pop("measured_later")["M6"]
    assert made["command"] == "python -m experiments.remeasure M6 a-run"
    assert after == before
    monkeypatch.setattr(remeasure, "weights_of", lambda _: "others")
    assert main(["M6", "a-run"]) == 2
    assert "is of other weights than a-run has now" in capsys.readouterr().err
    shutil.rmtree(tmp_path)
    assert main(["M6", "a-run"]) == 2
    assert "a-run has no battery.json" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["M6"], ["M99", "a-run"]])
def test_bad_arguments(arguments, capsys):
    assert main(arguments) == 2
    assert "python -m experiments.remeasure ARM[,ARM] RUN [RUN ...]" in capsys.readouterr().out
