"""Outsiders' truths on lists are joined with the verdicts on their models, and nothing is accepted silently."""

import json
import shutil

import pytest

from experiments.list_outsiders import main, read_found
from experiments.support.provenance import OtherVersions
from experiments.support.reading import LIST_CALIBRATION
from experiments.tables import list_calibration
from interp.models import read_json

VERDICT = LIST_CALIBRATION.parent / "lists" / "smollm2-135m" / "verdict-list-letters-6.json"
TRUTH = {"addresses": ["own label"], "sinks": [], "unjudged": ["order"]}
ENTRY = {"model": "by label", "finds": "the own label", "truth": TRUTH}
RULES = read_json(VERDICT)["rules"]
ABOUT = ("--about", "built blind")


@pytest.fixture
def call(tmp_path, capsys):
    """Return a function that joins a round of one judged model, and returns the status and what was said."""
    folder = tmp_path / "verdicts" / "by label"
    folder.mkdir(parents=True)
    shutil.copy(VERDICT, folder)

    def run(*options, number="1", entries=(ENTRY,)):
        (tmp_path / "truths.json").write_text(json.dumps(list(entries)))
        argv = [number, str(tmp_path / "truths.json"), str(folder.parent), "--out", str(tmp_path / "out.json")]
        code = main([*argv, *options])
        return code, "".join(capsys.readouterr())

    return run


def test_a_round_has_truths_and_blind_statuses(tmp_path, call, monkeypatch):
    code, said = call(*ABOUT, entries=(ENTRY, {**ENTRY, "model": "another"}))
    assert code == 0
    assert "without a verdict: another" in said
    (one,) = read_json(tmp_path / "out.json")["rounds"]
    assert (one["rules"], one["about"], len(one["models"])) == (RULES, "built blind", 1)
    blind = one["models"][0]["blind"]
    assert blind["label"] == "own label"
    assert blind["addresses"]["position"] == "INDETERMINATE"
    # What later arms say stands beside the blind statuses; blind ones can be replaced without losing it.
    assert call("--again")[0] == 0
    assert call()[0] == 0
    (one,) = read_json(tmp_path / "out.json")["rounds"]
    assert (one["again"], one["models"][0]["again"]) == (RULES, blind)
    monkeypatch.setattr(list_calibration, "OUTSIDERS", tmp_path / "out.json")
    assert list_calibration.blind_lists() == [(1, 0)]


@pytest.mark.parametrize(
    ("options", "number", "entries", "says"),
    [
        ((), "1", (ENTRY,), "a new round needs --about"),
        (ABOUT, "3", (ENTRY,), "the next one is 1, got 3"),
        (("--again",), "1", (ENTRY,), "there is no round 1"),
        (ABOUT, "1", (), "write a list with one entry per model"),
        (ABOUT, "1", ({**ENTRY, "model": "../x"},), "is not the name of a folder"),
        (ABOUT, "1", (ENTRY, ENTRY), "has by label twice"),
        (ABOUT, "1", ({**ENTRY, "model": "another"},), "another/verdict-list-letters-6.json, for one"),
        (("--about", ""), "1", (ENTRY,), "a new round needs --about"),
        (ABOUT, "1", ({**ENTRY, "truth": {**TRUTH, "unjudged": ["own label"]}},), "both as used and as unjudged"),
        (ABOUT, "1", ({**ENTRY, "truth": {**TRUTH, "sinks": ["label"]}},), "it may list first token"),
        (ABOUT, "1", ({**ENTRY, "truth": {"sinks": []}},), "needs addresses, sinks, unjudged"),
        (ABOUT, "1", ({"model": "by label"},), "an entry needs finds, model, truth"),
    ],
)
def test_what_cannot_be_joined_is_one_line(tmp_path, call, options, number, entries, says):
    code, said = call(*options, number=number, entries=entries)
    assert code == 2
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_another_file_is_not_overwritten(tmp_path, call):
    (tmp_path / "out.json").write_text('"x"')
    code, said = call(*ABOUT)
    assert (code, said.count("\n")) == (2, 1)
    assert "is no file of rounds of schema 3" in said
    assert (tmp_path / "out.json").read_text() == '"x"'


def test_a_later_verdict_needs_the_truth_of_then(call):
    assert call(*ABOUT)[0] == 0
    code, said = call("--again", entries=({**ENTRY, "truth": {**TRUTH, "unjudged": []}},))
    assert code == 2
    assert "needs a verdict and the truth of then" in said


def test_a_verdict_on_labels_of_parity_is_refused(tmp_path):
    (tmp_path / "verdict.json").write_text(json.dumps({"version": 1, "verdict": "anchor", "rules": "x"}))
    with pytest.warns(OtherVersions), pytest.raises(ValueError, match="no verdict on a list"):
        read_found(tmp_path)
    assert read_found(tmp_path / "nowhere") is None
