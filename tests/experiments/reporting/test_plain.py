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
    assert f"by {data['roles']['sink']['margins']['share']:.0%} of it" in sink
    assert rest.startswith("**Remainder: 0.01.**")
    assert rest.endswith("Here, nearly all of it goes through labels.")


def test_a_sink_that_goes_by_number_says_what_was_lost_by_doubling_and_by_halving():
    data = verdict_of(CONSTANT)
    assert BY_NUMBER in data["roles"]["sink"]["reason"], "the stored reason is that of the rules"
    _, _, sink, rest = plainly(data)
    for key in (keys.LARGEST_PRESENCE, keys.PRESENCE_TWICE, keys.PRESENCE_NUMBER):
        assert f"{find_rows(data['evidence'], key)[0]['value']['value']:.0%}" in sink
    assert "None of the three roles explains that." in sink
    assert rest.endswith("Here, nearly none of it goes through labels.")
    other = data["roles"]["sink"] | {"reason": "presence matters"}
    _, _, sink, _ = plainly(data | {"roles": data["roles"] | {"sink": other}})
    assert "twice" not in sink
    assert sink.startswith("**Sink, open:**")


def test_statuses_that_are_not_known_and_reasons_that_are_missing_are_said_too():
    roles = {name: {"status": "NOT APPLICABLE", "reason": None} for name in TESTED}
    assert plainly({"roles": roles}) == [f"**{name.capitalize()}, not tested:** no reason is given." for name in TESTED]
    roles["anchor"] = {"status": "OTHER", "reason": ""}
    assert plainly({"roles": roles})[0].startswith("**Anchor, OTHER:**")


@pytest.mark.parametrize(("value", "word"), [(0.05, "nearly all"), (0.5, "a part"), (0.95, "nearly none")])
def test_the_remainder_is_put_in_words(value, word):
    assert word in remainder({"remainder": value})
    assert remainder({}) == remainder({"remainder": None}) == ""
