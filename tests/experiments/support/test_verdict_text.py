"""The verdict on a terminal: the answer first, within 80 columns, with names instead of codes."""

from types import SimpleNamespace
from typing import Any

import pytest

from experiments.support.verdict_text import print_verdict, summary
from probes.arms.naming import with_arm_names
from probes.decision import verdict
from tests.probes.test_closure import CELLS, largest
from tests.probes.test_decision import ANCHOR, CONTENT, evidence, one

RECIPE = {"rehearsal": 0.5, "rehearsal_longest": 60, "longest": 20}
BARE: Any = SimpleNamespace(record={})
REHEARSED: Any = SimpleNamespace(record={"recipe": RECIPE})
FOUND = {
    "anchor": verdict(one((*evidence(**ANCHOR), *largest(**{**CELLS, "on_margins": 0.3})))),
    "placeholder": verdict(one(evidence(**CONTENT))),
    "nothing": verdict(one(evidence(), step=0.5)),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_answer_is_a_screen_of_80_columns(name):
    lines = list(summary(FOUND[name], REHEARSED, 80))
    assert lines[0].endswith(FOUND[name].label.upper())
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert text == with_arm_names(text)
    for part in ("why: ", "may be claimed: ", "may not be claimed: ", "rehearsed to 60 pairs"):
        assert part in text
    assert "rehearsed" not in " ".join(summary(FOUND[name], BARE, 80))


def test_each_role_stands_with_its_status_and_effect():
    lines = [line.split() for line in summary(FOUND["anchor"], BARE, 80)]
    anchor = FOUND["anchor"].roles["anchor"]
    assert ["anchor", "PRESENT", "effect", *str(anchor.rho).split()] in lines
    margins = FOUND["anchor"].roles["sink"].margins
    assert margins is not None
    assert ["on", "margins", "PRESENT", "share", *str(margins.share).split()] in lines


def test_competence_is_said_where_it_is_missing():
    lines = list(summary(FOUND["nothing"], BARE, 80))
    assert "NOT competent at length 20 (step accuracy 0.500, labels given)" in lines[1]


def test_a_model_without_labels_is_not_called_incompetent():
    found = verdict(one((), step=0.99, refusal="parity-scratchpad has no labels"))
    assert found.label == "not-applicable"
    lines = list(summary(found, BARE, 80))
    assert lines[1].strip() == "competent at length 20 (step accuracy 0.990, labels given)"


def test_the_evidence_comes_on_request_and_is_stacked_on_a_narrow_terminal(capsys):
    print_verdict(FOUND["anchor"], BARE, 80, evidence=False)
    short = capsys.readouterr().out
    print_verdict(FOUND["anchor"], BARE, 80, evidence=True)
    long = capsys.readouterr().out
    assert long.startswith(short)
    assert max(map(len, long.splitlines())) <= 80
    assert "M5 history" in long.removeprefix(short)
