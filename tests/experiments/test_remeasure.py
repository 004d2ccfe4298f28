"""Arms of stored batteries are measured again with the same numbers, and nothing else changes."""

import json
from dataclasses import replace

import pytest

from experiments import remeasure
from experiments.remeasure import main, measured_with, remeasured, with_new_evidence
from experiments.support.results import write_result
from interp.models import run_in_memory
from interp.models.names import ZOO
from probes import keys
from probes.arms.registry import ARMS
from probes.batteries import battery
from probes.planted import Plan, plant
from probes.serialization import battery_from_json, battery_to_json

STORED = ("parity-aligned-alibi-seed3", "parity-constant-alibi-seed2", "addition-aligned-alibi-seed2")


@pytest.fixture(scope="module")
def run():
    planted = plant(Plan("A1", "gpt2", 8))
    return run_in_memory("model", planted.model, "parity-aligned", planted.vocabulary)


@pytest.fixture(scope="module")
def stored(run):
    return battery(run, (8,), seed=1, prompts=24, arms=("M1", "M6", "M7"), forced=True)


def stored_batteries():
    """Return some batteries of the zoo: all arms, labels that cannot be addresses, and addition."""
    return [battery_from_json(json.loads((ZOO / name / "battery.json").read_text())["battery"]) for name in STORED]


def names(found):
    return [(e.arm, e.name, e.length) for at in found.measured for e in at.evidence]


def test_an_arm_alone_gives_the_numbers_that_it_gave_in_its_battery(run, stored):
    (at,) = stored.measured
    other = tuple(replace(e, n=1) if e.arm == "M6" else e for e in at.evidence)
    assert other != at.evidence
    assert remeasured(run, replace(stored, measured=(replace(at, evidence=other),)), ["M6"]) == stored


@pytest.mark.parametrize("codes", [["M1"], ["M2"], ["M3"], ["M7"], ["M7", "M2"]])
def test_no_evidence_is_there_twice(run, stored, codes):
    """Names of M7 have a head in them, and M1, M2 and M3 are measured together."""
    again = remeasured(run, stored, codes)
    assert names(again) == names(stored)
    assert again == stored


@pytest.mark.slow
def test_every_arm_measured_again_is_a_fresh_battery(run):
    fresh = battery(run, (6, 8), seed=1, prompts=24, arms=tuple(ARMS), forced=True)
    assert {e.arm for at in fresh.measured for e in at.evidence} >= set(ARMS) - {"M10"}  # it makes no mistake
    for codes in (*([code] for code in ARMS), tuple(ARMS)):
        again = remeasured(run, fresh, codes)
        assert names(again) == names(fresh), codes
        assert battery_to_json(again) == battery_to_json(fresh), codes


@pytest.mark.parametrize("code", ARMS)
def test_stored_evidence_is_replaced_where_it_stands(code):
    for found in stored_batteries():
        for at in found.measured:
            assert with_new_evidence(at.evidence, at.evidence, code) == at.evidence
            own = [e for e in at.evidence if e.arm in measured_with([code])]
            assert with_new_evidence((*at.evidence, *own), at.evidence, code) == at.evidence
            rest = [e for e in at.evidence if e not in own]
            assert with_new_evidence(at.evidence, (), code) == tuple(rest)


def test_an_arm_that_the_battery_lacks_is_added(run, stored):
    (at,) = remeasured(run, stored, ["presence"]).measured
    assert at.evidence[: len(stored.measured[0].evidence)] == stored.measured[0].evidence
    assert keys.LARGEST_PRESENCE in {e.key for e in at.evidence}


def test_what_cannot_be_measured_is_refused(run, stored, monkeypatch):
    (at,) = stored.measured
    for fresh, codes, message in (
        (
            replace(at, evidence=(), refusal="too small"),
            ["M7"],
            "length 8 of model is refused now: too",
        ),
        (
            replace(at, left_out={"M8": "left out"}),
            ["M7", "M8"],
            "M8 cannot be measured on model: left out",
        ),
        (replace(at, no_address="labels repeat"), ["M1"], "M1 cannot be measured on model: labels repeat"),
    ):
        monkeypatch.setattr(remeasure, "battery", lambda *_, x=fresh, **__: replace(stored, measured=(x,)))
        with pytest.raises(ValueError, match=message):
            remeasured(run, stored, codes)
    with pytest.raises(ValueError, match="the battery of model has no evidence"):
        remeasured(run, replace(stored, measured=(replace(at, evidence=()),)), ["M7"])


def test_reasons_for_which_arms_were_left_out_are_renewed(run, stored, monkeypatch):
    (at,) = stored.measured
    old = replace(at, left_out={"M7": "inexact", "M9": "inexact"})
    monkeypatch.setattr(remeasure, "battery", lambda *_, **__: stored)
    (found,) = remeasured(run, replace(stored, measured=(old,)), ["M7"]).measured
    assert found.left_out == {"M9": "inexact"}


@pytest.fixture
def folder(run, stored, tmp_path, monkeypatch):
    """Return the folder of `a-run`, which holds the battery."""
    folder = tmp_path / "a-run"
    write_result(folder / "battery.json", run, 0, {"battery": battery_to_json(stored)}, indent=None)
    monkeypatch.setattr(remeasure, "load", lambda *_: run)
    monkeypatch.setattr(remeasure, "source_of", lambda name: tmp_path / name)
    return folder


def test_the_file_names_what_was_measured_later(folder, monkeypatch, capsys):
    path = folder / "battery.json"
    before = json.loads(path.read_text())
    assert main(["M6", "a-run"]) == 0
    assert capsys.readouterr().out == f"{path}: replaced, with M6 measured again at lengths 8\n"
    after = json.loads(path.read_text())
    made = after.pop("measured_later")["M6"]
    assert made["command"] == "python -m experiments.remeasure M6 a-run"
    assert after == before
    monkeypatch.setattr(remeasure, "weights_of", lambda _: "others")
    assert main(["M6", "a-run"]) == 2
    assert "is of other weights than a-run has now" in capsys.readouterr().err
    path.unlink()
    assert main(["M6", "a-run"]) == 2
    assert "a-run has no battery.json" in capsys.readouterr().err


def test_files_are_checked_before_anything_is_measured(folder, monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(remeasure, "remeasured", lambda *_: measured.append(1))
    assert main(["M6", "a-run", "no-run"]) == 2
    assert capsys.readouterr().err == "unknown run 'no-run'; give a name of the zoo or a folder with battery.json\n"
    assert main(["M6", "a-run", "--out", str(folder / "battery.json")]) == 2
    assert "battery.json must be a folder" in capsys.readouterr().err
    assert not measured


def test_an_interruption_is_one_line(folder, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = (folder / "battery.json").read_bytes()
    monkeypatch.setattr(remeasure, "remeasured", interrupted)
    assert main(["M6", "a-run"]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("interrupted; ")
    assert captured.err.count("\n") == 1
    assert (folder / "battery.json").read_bytes() == before


def test_out_leaves_the_run_as_it_is(folder, tmp_path, capsys):
    before = (folder / "battery.json").read_bytes()
    for what in ("written", "replaced"):
        assert main(["M7", "--out", str(tmp_path / "other"), "a-run"]) == 0
        changed = tmp_path / "other" / "a-run" / "battery.json"
        assert capsys.readouterr().out.startswith(f"{changed}: {what}, with M7 measured again")
    assert (folder / "battery.json").read_bytes() == before
    assert json.loads(changed.read_text())["battery"] == json.loads(before)["battery"]
    assert main(["M7", "a-run", "--out", str(tmp_path / "other"), "x/a-run"]) == 2
    assert "two runs have the name a-run" in capsys.readouterr().err


def test_bad_files_are_one_line(folder, tmp_path, capsys):
    data = json.loads((folder / "battery.json").read_text())
    for damage, message in (({"battery": None}, "not a battery"), ({"version": 9}, "of version 9")):
        (folder / "battery.json").write_text(json.dumps(data | damage))
        assert main(["M7", "a-run"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["M6"], ["M99", "a-run"], ["M6,", "a-run"], ["M6", "a-run", "--later"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m experiments.remeasure" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("--out DIR", "replaced in place", *ARMS))
