"""Statuses and claims where evidence is missing, of one kind only, or of models that cannot all do the task."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from probes import keys
from probes.batteries import Battery, battery
from probes.decision import verdict
from probes.evidence import Evidence, EvidenceKey
from probes.findings import MARGINS
from probes.intervals import ratio
from probes.stored import verdict_from_json
from tests.probes.oracle_models import random_run
from tests.probes.test_decision import ABSENT, ANCHOR, NONE, PRESENT, TORN, UNSURE, about, evidence, models, one


def more(key: EvidenceKey, value: Any, control: Any = 0.0) -> Evidence:
    interval, beside = (about(x) if isinstance(x, float) else x for x in (value, control))
    return Evidence(key, "?", 20, "rho", interval, beside, 96)


def beside(batteries: list[Battery], *pieces: Evidence) -> list[Battery]:
    """Return the batteries with more evidence in each."""
    return [
        replace(b, measured=tuple(replace(m, evidence=(*m.evidence, *pieces)) for m in b.measured)) for b in batteries
    ]


@pytest.mark.parametrize("key", [keys.HISTORY_K, keys.STEP_BIT_V, keys.STEP_BIT_K])
def test_what_no_test_over_models_covers_stays_unresolved_there(key):
    piece = more(key, 0.9)
    several = beside(models(8, k5=None), piece)
    alone = verdict(several[0])
    assert (alone.roles["placeholder"].status, alone.label) == (PRESENT, "placeholder")
    found = verdict(several)
    assert found.roles["placeholder"].status is TORN
    assert "which no test over models covers" in found.roles["placeholder"].reason
    assert found.label == "unresolved"
    assert verdict(models(8)).label == "unused"


@pytest.mark.parametrize(
    ("lost", "half", "label"),
    [(0.08, 0.024, "undecided"), (0.02, 0.01, "unused"), (0.0, 0.05, "unused"), (0.2, 0.02, "unresolved")],
)
def test_unused_is_not_read_off_a_loss_that_is_shown(lost, half, label):
    removal = about(lost, half)
    found = verdict(one(evidence(lost=removal, masked=removal, null=removal)))
    assert found.label == label
    if label == "undecided":
        assert found.roles["sink"].status is UNSURE
        assert "removing labels may lose 0.080" in found.roles["sink"].reason


def test_a_role_that_was_not_tested_is_not_claimed_to_be_absent():
    found = verdict(one(evidence(), no_address="labels repeat"))
    assert (found.roles["anchor"].status, found.label) == (NONE, "unused")
    assert "labels are none of placeholder and sink" in found.may_claim
    assert "that labels are no anchor, which was not tested: labels repeat" in found.may_not_claim
    tested = verdict(one(evidence()))
    assert "none of anchor, placeholder and sink" in tested.may_claim
    assert "not tested" not in tested.may_not_claim


def test_labels_that_are_checked_are_no_address_of_their_own_step():
    own = keys.OWN
    trades = [more(key, 0.8) for key in (own.inputs, own.outputs, own.attention)]
    values = {**ANCHOR, "m1": 0.8, "m2": 0.8, "m4": 0.8}
    checked = verdict(one((*evidence(**values, same=0.3), *trades)))
    assert checked.roles["anchor"].status is TORN
    assert "labels are checked rather than followed" in checked.roles["anchor"].reason
    assert verdict(one((*evidence(**values), *trades))).roles["anchor"].status is PRESENT


@pytest.mark.parametrize(
    ("sink", "by_answer", "status"),
    [
        (0.5, about(0.0), TORN),
        (0.0, about(0.0), ABSENT),
        (0.0, about(0.0, 0.3), UNSURE),
        (0.5, None, PRESENT),  # presence was not measured
    ],
)
def test_a_sink_in_heads_that_all_carry_something_is_not_shown_by_removal(sink, by_answer, status):
    pieces = () if by_answer is None else (more(keys.UNINFORMED, by_answer),)
    found = verdict(one((*evidence(sink=sink, masked=sink / 2), *pieces)))
    assert found.roles["sink"].status is status


def test_accuracy_over_models_is_their_mean_and_claims_count_those_that_count():
    several = models(3, competent=2, **ANCHOR)
    found = verdict([several[0], replace(several[1], measured=one(evidence(), 0.98).measured), several[2]])
    (row,) = found.to_json()["competence"]["lengths"]
    assert row["forced step"] == pytest.approx(0.99)  # of the two that count
    assert "in models trained like these 3, of which 2 can do the task and count" in found.may_claim
    assert "these 3, at length" in verdict(models(3, **ANCHOR)).may_claim


def test_absence_without_the_largest_intervention_is_said():
    bare = verdict(one(evidence()))
    assert "of another kind (largest effects of identity, content and presence not measured)" in bare.may_not_claim
    placed = verdict(one((*evidence(), *(more(key, 0.0) for key in (keys.LARGEST_IDENTITY, keys.UNINFORMED)))))
    assert "no placeholder of another kind (largest effect of content not measured)" in placed.may_not_claim
    closed = [more(key, 0.0) for key in (keys.LARGEST_IDENTITY, keys.LARGEST_CONTENT, keys.UNINFORMED)]
    assert "not measured" not in verdict(one((*evidence(), *closed))).may_not_claim


def test_a_stored_verdict_on_addition_can_be_read_back():
    measured = battery(random_run("addition-aligned"), (6, 7), prompts=24, arms=("M7", "M12"), competence=None)
    for at in measured.measured:
        assert at.evidence
        assert {e.length for e in at.evidence} == {at.length}
    written = json.loads(json.dumps(verdict(measured).to_json()))
    again = verdict_from_json(written)
    assert json.loads(json.dumps(again.to_json())) == written


@pytest.mark.parametrize("arm", ["M6", "presence", "shares"])
def test_a_share_of_nothing_is_left_out_where_competence_is_not_asked(arm):
    (found,) = battery(random_run(), (8,), prompts=24, arms=(arm,), competence=None).measured
    assert found.evidence or "too little to normalise by" in found.left_out[arm] or found.refusal


@pytest.mark.parametrize(("lengths", "fewest"), [(1, 63), (2, 68)])
def test_the_fewest_prompts_with_which_no_loss_is_within_the_margin(lengths, fewest):
    """The numbers of probes/README.md, Still open."""

    def is_within(n: int) -> bool:
        above_chance = torch.full((n,), 0.5)  # of a model that makes no mistake
        none = ratio(torch.zeros(n), above_chance, floor=1 / n).at(MARGINS.level(lengths))
        return none.high < MARGINS.rho

    assert [is_within(n) for n in (fewest - 1, fewest)] == [False, True]
