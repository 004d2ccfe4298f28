"""The verdict in plain words: each role's status, and numbers that are those of the evidence."""

import json

import pytest

from experiments.reporting.plain import TESTED, plainly, remainder
from interp.models.names import SHIPPED
from probes import keys
from probes.evidence import find_rows
from probes.judging_sink import BY_NUMBER

RUN, CONSTANT = "parity-aligned-alibi", "parity-constant-alibi"


def verdict_of(name: str) -> dict:
    return json.loads((SHIPPED / name / "verdict.json").read_text(encoding="utf-8"))


def test_a_role_that_is_present_and_roles_that_are_absent():
    data = verdict_of(RUN)
    anchor, placeholder, sink, rest = plainly(data)
    assert anchor == "**Anchor, yes:** when two labels trade places, the answer follows the label."
    assert placeholder.startswith("**Placeholder, no:** when what the model has stored")
    assert sink.startswith("**Sink, not for answers:**")
    assert f"by {data['roles']['sink']['margins']['share']:.0%} of its mean size" in sink
    without = data["roles"] | {"sink": {k: v for k, v in data["roles"]["sink"].items() if k != "margins"}}
    assert plainly(data | {"roles": without})[2].startswith("**Sink, no:**")
    assert rest.startswith("**Remainder: 0.01.**")
    assert rest.endswith("Here, nearly all of it needs labels.")


def test_an_anchor_by_other_labels_than_the_steps_own_names_them():
    data = verdict_of("smollm2-parity-aligned")
    role = data["roles"]["anchor"]
    both, one = "the step's own label and the label before", "the label before"
    said = plainly(data | {"roles": data["roles"] | {"anchor": role | {"by": both, "rho": 0.814}}})[0]
    assert said.startswith(f"**Anchor, yes:** when {both} trade places with those of another step, ")
    assert said.endswith(", the answer follows them (0.81 of its lead).")
    said = plainly(data | {"roles": data["roles"] | {"anchor": role | {"by": one, "rho": 0.814}}})[0]
    assert f"when {one} trades places with that of another step, the answer follows it" in said
    own = {name: value for name, value in role.items() if name != "by"}
    said = plainly(data | {"roles": data["roles"] | {"anchor": own}})[0]
    assert said == "**Anchor, yes:** when two labels trade places, the answer follows the label."


def test_a_sink_that_goes_by_number_says_what_was_lost_by_doubling_and_by_halving():
    data = verdict_of(CONSTANT)
    assert BY_NUMBER in data["roles"]["sink"]["reason"], "the stored reason is that of the rules"
    _, _, sink, rest = plainly(data)
    for key in (keys.LARGEST_PRESENCE, keys.PRESENCE_TWICE, keys.PRESENCE_NUMBER):
        assert f"{find_rows(data['evidence'], key)[0]['value']['value']:.0%}" in sink
    assert "Doubling matters" in sink
    assert "Halving does not matter (within the limit of 10%)" in sink
    assert "nearly none of the bit's information travels through labels; yet the model needs labels" in rest
    other = data["roles"]["sink"] | {"reason": "presence matters"}
    _, _, sink, _ = plainly(data | {"roles": data["roles"] | {"sink": other}})
    assert "twice" not in sink
    assert sink.startswith("**Sink, open:**")


def test_statuses_that_are_not_known_and_reasons_that_are_missing_are_said_too():
    roles = {name: {"status": "NOT APPLICABLE", "reason": None} for name in TESTED}
    assert plainly({"roles": roles}) == [f"**{name.capitalize()}, not tested:** no reason is given." for name in TESTED]
    roles["anchor"] = {"status": "OTHER", "reason": ""}
    assert plainly({"roles": roles})[0].startswith("**Anchor, OTHER:**")


def changed(data: dict, key: keys.EvidenceKey, **intervals) -> dict:
    """The verdict with other intervals of one piece of evidence."""
    rows = [row | intervals if row in find_rows(data["evidence"], key) else row for row in data["evidence"]]
    return data | {"evidence": rows}


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.2, 0.4, "Halving matters:"), (0.02, 0.2, "Halving may matter"), (None, None, "Halving may matter")],
)
def test_whether_the_number_of_labels_matters_is_read_from_the_interval(low, high, words):
    half = {"value": 0.1, "low": low, "high": high}
    assert words in plainly(changed(verdict_of(CONSTANT), keys.PRESENCE_NUMBER, value=half))[2]


def test_a_removal_that_loses_no_more_than_its_control_does_not_show_a_sink():
    data, said = verdict_of(CONSTANT), "this test does not show a sink"
    row = find_rows(data["evidence"], keys.SINK)[0]
    assert row["value"]["low"] <= row["control"]["high"]
    assert said in plainly(data)[2]
    small = {"value": 0.01, "low": 0.0, "high": 0.02}
    assert said not in plainly(changed(data, keys.SINK, control=small))[2]
    assert said not in plainly(changed(data, keys.SINK, value=small))[2]


def test_labels_are_needed_only_where_their_removal_loses_more_than_its_control():
    data, said = verdict_of(CONSTANT), "the model needs labels"
    assert said in remainder(data)
    lost = find_rows(data["evidence"], keys.LARGEST_PRESENCE)[0]["value"]
    assert said not in remainder(changed(data, keys.LARGEST_PRESENCE, control=lost))
    assert said not in remainder(changed(data, keys.LARGEST_PRESENCE, value={"value": 0.3, "low": 0.05, "high": 0.5}))


@pytest.mark.parametrize(("value", "word"), [(0.05, "nearly all"), (0.5, "a part"), (0.95, "nearly none")])
def test_the_remainder_is_put_in_words(value, word):
    assert word in remainder({"remainder": value})
    assert remainder({}) == remainder({"remainder": None}) == ""
