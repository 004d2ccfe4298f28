"""A verdict comes back from its JSON as it was, and damage is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from probes.decision import verdict
from probes.evidence import Interval
from probes.stored import interval_from_json, verdict_from_json
from tests.probes.test_closure import CELLS, MOVED, largest
from tests.probes.test_decision import ANCHOR, CASES, evidence, models, one


def through_a_file(found: Any) -> dict:
    return json.loads(json.dumps(found.to_json(), allow_nan=False))


@pytest.mark.parametrize("case", CASES)
def test_every_status_and_number_comes_back(case):
    found = verdict(one(evidence(**CASES[case][0])))
    again = verdict_from_json(through_a_file(found))
    assert through_a_file(again) == through_a_file(found)
    assert (again.label, again.names, again.remainder) == (found.label, found.names, found.remainder)
    assert [str(r.rho) for r in again.roles.values()] == [str(r.rho) for r in found.roles.values()]
    assert [(e.key, str(e.value)) for e in again.lengths[0].evidence] == [
        (e.key, str(e.value)) for e in found.lengths[0].evidence
    ]


def test_margins_unexplained_shares_and_arms_left_out_come_back():
    several = {**ANCHOR, "remainder": 0.25, "address": 0.75}
    found = verdict(one((*evidence(**several), *largest(**CELLS, **MOVED)), left_out={"M9": "it does not apply"}))
    assert found.lengths[0].unexplained
    again = verdict_from_json(through_a_file(found))
    assert again.roles["sink"].margins is not None
    assert again.lengths[0].left_out == {"M9": "it does not apply"}
    assert through_a_file(again) == through_a_file(found)


def test_tests_over_models_come_back():
    found = verdict(models(8, **ANCHOR))
    again = verdict_from_json(through_a_file(found))
    assert again.lengths[0].roles["anchor"].tests is not None
    assert again.lengths[0].roles["anchor"].tests == found.lengths[0].roles["anchor"].tests
    assert (again.replication, again.may_claim) == ("models", found.may_claim)


def test_digits_of_two_operands_stay_a_pair():
    pair: Any = (10, 14)
    battery = one(evidence(pair, **ANCHOR))
    found = verdict(replace(battery, measured=(replace(battery.measured[0], length=pair),)))
    again = verdict_from_json(through_a_file(found))
    assert again.lengths[0].length == again.lengths[0].evidence[0].length == pair


def test_numbers_that_json_lacks_come_back():
    for odd in (Interval(0.5, -math.inf, math.inf), Interval(math.nan, -math.inf, math.inf)):
        assert str(interval_from_json(odd.to_json())) == str(odd)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"verdict": 3, "by_length": None},
        {"margins": {"version": "older"}},
        {"roles": {}},
        {"remainder": 0.5},
        {"may_claim": "everything"},
        {"by_length": []},
        {"evidence": [{"arm": "M99", "name": "x", "length": 20}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_else_is_refused(change):
    data = through_a_file(verdict(one(evidence(**ANCHOR))))
    assert verdict_from_json(data).label == "anchor"
    with pytest.raises(ValueError, match=r"verdict|unknown arm"):
        verdict_from_json(data | change)
