"""A verdict on a list prints as lines, comes back from its JSON as it was, and says where intervals are too wide."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from probes.binding import Binding, binding_verdict
from probes.binding.edits import ARMS
from probes.binding.found import Share
from probes.binding.stored import binding_verdict_from_json
from probes.binding.text import summary
from probes.evidence import Interval
from probes.statuses import Status

NONE, ALL, WIDE = Interval(0.0, -0.01, 0.01), Interval(1.0, 0.98, 1.02), Interval(0.08, 0.02, 0.14)
NOTHING = Share(NONE, NONE, NONE)


def measured(label: Interval) -> Binding:
    shares = dict.fromkeys(ARMS, NOTHING) | {
        "label at list": Share(label, NONE, label, follows=0.0 if label is NONE else 0.25),
        "label at query": Share(label, NONE, label),
    }
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
        queries=(2, 3),
    )


REFUSED = replace(measured(ALL), accuracy=Interval(0.5, 0.4, 0.6), shares={}, sinks={}, carried={}, refusal="too few")


def test_print_gives_lines_and_not_one_of_the_dataclass():
    lines = str(binding_verdict("gpt2", measured(ALL))).splitlines()
    assert lines[0] == "gpt2, template with 6 items: OWN LABEL"
    assert lines[1:3] == [
        "  accuracy 1.000 [0.970, 1.000] over 128 prompts, which ask for items 2, 3: competent; shares over 24, their "
        "intervals",
        "    jointly",
    ]
    assert lines[3].split()[:3] == ["own", "label", "PRESENT"]
    assert max(map(len, lines)) <= 120
    assert str(binding_verdict("gpt2", REFUSED)).splitlines()[-1] == "why: too few"


def test_the_checks_are_printed_beside_the_addresses():
    lines = list(summary(binding_verdict("gpt2", measured(ALL))))
    (renaming,) = [line for line in lines if line.strip().startswith("renaming")]
    (jointly,) = [line for line in lines if line.strip().startswith("all jointly")]
    assert f"{NONE}, control {NONE}" in renaming
    assert f"{NONE}, control {NONE}; remainder {NONE}" in jointly
    assert "  prompts in which the other item's value is then above the right one: label at list 0.25" in lines


@pytest.mark.parametrize(("label", "next_"), [(WIDE, True), (ALL, False), (NONE, False)])
def test_wide_intervals_are_named_only_where_they_leave_the_verdict_open(label, next_):
    found = binding_verdict("gpt2", measured(label))
    assert found.is_open_by_width == next_
    assert (f"excess {label}" in " ".join(str(found).split())) == next_  # the interval that left the address open
    assert ("next: more prompts narrow the intervals (24 here)" in str(found).splitlines()) == next_


def test_what_leaves_a_sink_open_is_printed_beside_it():
    open_ = Share(Interval(0.306, 0.107, 0.505), NONE, WIDE)
    found = binding_verdict("m", replace(measured(ALL), sinks={"first token": open_}))
    assert found.sinks["first token"][0] is Status.INDETERMINATE
    assert f"excess {WIDE}" in " ".join(str(found).split())
    assert "excess" not in str(binding_verdict("m", measured(ALL)))


def test_an_absent_sink_that_carries_something_says_so():
    carrier = binding_verdict("m", replace(measured(ALL), carried={"first token": ALL}))
    assert carrier.sinks["first token"][0] is Status.ABSENT
    assert f"it carries something: its mean value loses {ALL}" in " ".join(str(carrier).split())
    assert "carries something" not in str(binding_verdict("m", measured(ALL)))


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


def test_arms_that_were_not_measured_are_named_with_their_reason():
    reasons = {"order, label": "the query shows no label", "position": "the first item has none before it"}
    some = replace(measured(ALL), left_out={**reasons, "line breaks": "the prompts have none"})
    some = replace(some, shares={name: share for name, share in some.shares.items() if name not in reasons})
    lines = str(binding_verdict("gpt2", some)).splitlines()
    assert lines[-3:] == [
        "arms that were not measured:",
        "  order, label    not applicable: the query shows no label",
        "  position        not applicable: the first item has none before it",
    ]
    with_evidence = list(summary(binding_verdict("gpt2", some), evidence=True))
    for line in lines[-2:]:
        assert with_evidence.count(line) == 1
    assert "arms that were not measured" not in str(binding_verdict("gpt2", measured(ALL)))


@pytest.mark.parametrize(
    ("accuracy", "next_"),
    [
        (Interval(0.9, 0.7, 0.97), True),
        (Interval(0.8, 0.75, 0.85), True),
        (Interval(0.79, 0.75, 0.83), False),
        (Interval(0.9, 0.8, 0.97), False),
    ],
)
def test_too_few_prompts_for_the_gate_are_named_where_they_are_all_that_is_missing(accuracy, next_):
    binding = replace(REFUSED, accuracy=accuracy)
    assert binding.is_short_of_prompts == next_
    line = "next: more prompts (--prompts, or rows of a template) narrow its interval (128 here)"
    assert (line in str(binding_verdict("gpt2", binding)).splitlines()) == next_


def test_what_other_tokens_are_is_said():
    heading = next(line for line in str(binding_verdict("gpt2", measured(ALL))).splitlines() if "sinks" in line)
    assert "other tokens: all but labels and values" in heading
    assert len(heading) <= 120


def test_parts_of_a_verdict_print_in_one_short_line():
    found = binding_verdict("gpt2", measured(ALL))
    shown = repr(found.measured)
    assert shown.startswith(
        "Binding('template', 6 items, 128 prompts, accuracy 1.000 [0.970, 1.000]; over 24: label at "
    )
    assert "label at list 1.000 [0.980, 1.020]" in shown
    assert "first token 0.000 [-0.010, 0.010]" in shown
    assert repr(REFUSED).endswith("128 prompts, accuracy 0.500 [0.400, 0.600]; not competent)")
    assert repr(replace(REFUSED, accuracy=Interval(1.0, 0.9, 1.0))).endswith("[0.900, 1.000]; too few)")
    assert repr(NOTHING).count("Interval") == 0
    assert repr(found.sinks["line breaks"]) == "(NOT APPLICABLE, 'the prompts have none')"
