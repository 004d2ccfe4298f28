"""A stored battery gives the same verdict as before it was stored, over prompts and over models."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from probes.decision import verdict
from probes.evidence import Interval
from probes.serialization import VERSION, battery_from_json, battery_to_json, evidence_from_json, evidence_to_json
from tests.probes.oracle_models import measured
from tests.probes.test_decision import ANCHOR, CONTENT, SINK, evidence, one


def again(battery):
    """Through the text of a file."""
    return battery_from_json(json.loads(json.dumps(battery_to_json(battery), allow_nan=False)))


@pytest.mark.parametrize("values", [ANCHOR, CONTENT, SINK, {}])
def test_a_battery_comes_back_as_it_was(values):
    battery = one(evidence(**values))
    assert again(battery) == battery
    assert verdict(again(battery)) == verdict(battery)


@pytest.mark.slow
def test_a_measured_battery_gives_the_same_verdict_over_prompts_and_over_models():
    battery = measured("A1")
    assert verdict(again(battery)).to_json() == json.loads(json.dumps(verdict(battery).to_json()))
    several = [replace(battery, name=f"seed{k}") for k in range(3)]
    assert verdict([again(b) for b in several]).to_json() == verdict(several).to_json()


def test_numbers_that_json_lacks_come_back():
    odd = Interval(math.nan, -math.inf, math.inf, None, None)
    battery = one(evidence(m1=odd))
    value = next(e.value for e in again(battery).measured[0].evidence if e.name == "swap input labels")
    assert math.isnan(value.value)
    assert (value.low, value.high, value.error, value.df) == (-math.inf, math.inf, None, None)


def test_digits_of_two_operands_stay_a_pair():
    battery = one(evidence())
    pair = replace(battery, measured=(replace(battery.measured[0], length=(10, 14)),))
    assert again(pair).measured[0].length == (10, 14)


def renamed(arm: str, name: str):
    """A change of a stored battery: its first piece of evidence gets another arm and name."""

    def change(data: dict) -> dict:
        (length,) = data["measured"]
        first, *rest = length["evidence"]
        return data | {"measured": [length | {"evidence": [first | {"arm": arm, "name": name}, *rest]}]}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d | {"version": 99}, f"has version 99; this mnemoscope reads version {VERSION}"),
        (lambda d: {k: v for k, v in d.items() if k != "version"}, "not a battery"),
        (lambda d: {k: v for k, v in d.items() if k != "measured"}, "damaged: KeyError('measured')"),
        (lambda d: d | {"measured": [{"length": 3}]}, "damaged"),
        (lambda d: d | {"measured": 7}, "damaged"),
        (renamed("M6", "remove labels"), "unknown evidence 'remove labels': M6 gives"),
        (renamed("M99", "sink"), "unknown arm 'M99'"),
        (lambda d: [d], "not a battery"),
    ],
)
def test_anything_else_is_refused(change, words):
    with pytest.raises(ValueError, match=r"battery|unknown") as raised:
        battery_from_json(change(battery_to_json(one(evidence()))))
    assert words in str(raised.value)


def test_the_evidence_of_an_arm_comes_back_and_anything_else_is_refused():
    found = one(evidence(**ANCHOR)).measured[0].evidence
    kept = json.loads(json.dumps(evidence_to_json(found), allow_nan=False))
    assert evidence_from_json(kept) == found
    damaged_files: list[Any] = [
        {},
        [kept],
        kept | {"version": 99},
        {"version": VERSION},
        kept | {"evidence": [{"arm": "M1"}]},
    ]
    for damaged in damaged_files:
        with pytest.raises(ValueError, match="evidence"):
            evidence_from_json(damaged)
