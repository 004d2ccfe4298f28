"""A verdict on a list prints as lines, comes back from its JSON as it was, and says where intervals are too wide."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from probes.binding import Binding, binding_verdict
from probes.binding.edits import ARMS
from probes.binding.measuring import Share
from probes.binding.stored import binding_verdict_from_json
from probes.evidence import Interval

NONE, ALL, WIDE = Interval(0.0, -0.01, 0.01), Interval(1.0, 0.98, 1.02), Interval(0.08, 0.02, 0.14)
NOTHING = Share(NONE, NONE, NONE)


def measured(label: Interval) -> Binding:
    shares = dict.fromkeys(ARMS, NOTHING) | {"label at list": Share(label, NONE, label)}
    accuracy = Interval(1.0, 0.97, 1.0)
    sinks = {"first token": NOTHING}
    return Binding(
        task="template",
        items=6,
        posed=128,
        prompts=24,
        seed=3,
        accuracy=accuracy,
        level=0.998,
        shares=shares,
        sinks=sinks,
        carried={"first token": NONE},
        remainder=NONE,
        left_out={"line breaks": "the prompts have none"},
    )


REFUSED = replace(measured(ALL), accuracy=Interval(0.5, 0.4, 0.6), shares={}, sinks={}, carried={}, refusal="too few")


def test_print_gives_lines_and_not_one_of_the_dataclass():
    lines = str(binding_verdict("gpt2", measured(ALL))).splitlines()
    assert lines[0] == "gpt2, template with 6 items: OWN LABEL"
    assert lines[1] == "  accuracy 1.000 [0.970, 1.000] over 128 prompts: competent"
    assert lines[2].split()[:3] == ["own", "label", "PRESENT"]
    assert max(map(len, lines)) <= 120
    assert str(binding_verdict("gpt2", REFUSED)).splitlines()[-1] == "why: too few"


@pytest.mark.parametrize(("label", "next_"), [(WIDE, True), (ALL, False), (NONE, False)])
def test_wide_intervals_are_named_only_where_they_leave_the_verdict_open(label, next_):
    found = binding_verdict("gpt2", measured(label))
    assert found.is_open_by_width == next_
    assert ("next: more prompts narrow the intervals (24 here)" in str(found).splitlines()) == next_


@pytest.mark.parametrize("binding", [measured(ALL), measured(WIDE), REFUSED], ids=["present", "open", "refused"])
def test_it_comes_back_from_json(binding):
    found = binding_verdict("gpt2", binding)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    again = binding_verdict_from_json("gpt2", 3, data)
    assert str(again) == str(found)
    assert again == found
    for change in ({"verdict": "order"}, {"accuracy": None}, {"shares": 3}, {"gate": 0.5}):
        with pytest.raises(ValueError, match="damaged"):
            binding_verdict_from_json("gpt2", 3, data | change)
