"""The verdict on a terminal: the answer first, within 80 columns, with names instead of codes."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.support.verdict_defaults import FEW_PROMPTS, PROMPTS
from experiments.support.verdict_text import is_open_by_width, more_prompts, print_verdict, summary
from probes import keys
from probes.arms.naming import with_arm_names
from probes.decision import verdict
from probes.evidence import Evidence
from probes.stored import verdict_from_json
from tests.probes.test_closure import BEFORE, CELLS, largest
from tests.probes.test_decision import ANCHOR, CASES, CONTENT, WIDE, about, accuracy, evidence, models, one

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
    lines = list(summary(FOUND[name], REHEARSED, 80, 128))
    assert lines[0].endswith(FOUND[name].label.upper())
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert text == with_arm_names(text)
    for part in ("why: ", "may be claimed: ", "may not be claimed: ", "rehearsed to 60 pairs"):
        assert part in text
    assert "rehearsed" not in " ".join(summary(FOUND[name], BARE, 80, 128))


def test_each_role_stands_with_its_status_and_effect():
    lines = [line.split() for line in summary(FOUND["anchor"], BARE, 80, 128)]
    anchor = FOUND["anchor"].roles["anchor"]
    assert ["anchor", "PRESENT", "effect", *str(anchor.rho).split()] in lines
    margins = FOUND["anchor"].roles["sink"].margins
    assert margins is not None
    assert ["on", "margins", "PRESENT", "share", *str(margins.share).split()] in lines


def test_competence_is_said_where_it_is_missing():
    lines = list(summary(FOUND["nothing"], BARE, 80, 128))
    assert "NOT competent at length 20 (step accuracy 0.500, labels given)" in lines[1]


def test_a_model_without_labels_is_not_called_incompetent():
    found = verdict(one((), step=0.99, refusal="parity-scratchpad has no labels"))
    assert found.label == "not-applicable"
    lines = list(summary(found, BARE, 80, 128))
    assert lines[1].strip() == "competent at length 20 (step accuracy 0.990, labels given)"


def test_a_format_without_labels_is_the_reason_also_where_the_model_fails():
    able, unable = one((), step=0.99, refusal="it has no labels"), one((), step=0.7, refusal="it has no labels")
    two = replace(able, measured=(*able.measured, replace(unable.measured[0], length=40)))
    lines = list(summary(verdict(two), BARE, 80, 128))
    assert "why: it has no labels" in lines
    assert "NOT competent at length 40 (step accuracy 0.700, labels given)" in lines[2]


def test_the_evidence_comes_on_request_and_is_stacked_on_a_narrow_terminal(capsys):
    print_verdict(FOUND["anchor"], BARE, 80, False, 128)
    short = capsys.readouterr().out
    print_verdict(FOUND["anchor"], BARE, 80, True, 128)
    long = capsys.readouterr().out
    assert long.startswith(short)
    assert max(map(len, long.splitlines())) <= 80
    assert "M5 history" in long.removeprefix(short)


LONG = "largest effect where the step's own label and the label before lead to one place with the same answer"
OPEN: dict[str, Any] = {"m5": about(0.05, 0.09), "m5_control": about(-0.051, 0.09)}


def with_a_long_name(**values: Any) -> Any:
    """Return a verdict with the longest name of an intervention and the widest cells."""
    rest = keys.ADDRESSES[-1, 0].rest
    name = Evidence(rest, "?", 20, "mean |change| over the full effect", about(-0.5), about(-0.5), 128)
    assert name.name == LONG
    battery = one((*evidence(**values), name))
    return verdict(battery)


@pytest.mark.parametrize("columns", [80, 100, 120, 145, 160, 200])
def test_no_cell_of_the_evidence_is_cut_at_any_width(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    found = with_a_long_name(**OPEN)
    print_verdict(found, BARE, columns, True, 24)
    text = capsys.readouterr().out
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= columns
    evidence_alone = " ".join(text.partition("\n\n")[2].split())
    for name, role in found.lengths[0].roles.items():
        for cell in (name, role.status.value, role.rho, role.control):
            assert str(cell) in evidence_alone
    for e in found.lengths[0].evidence:
        assert str(e.value) in evidence_alone
        assert str(e.control or "") in evidence_alone
    every_word = [word for role in found.lengths[0].roles.values() for word in with_arm_names(role.reason).split()]
    assert not [word for word in (*every_word, *LONG.split()) if word not in evidence_alone]


def test_a_long_address_stands_below_its_role_on_a_narrow_terminal():
    found = verdict(one((*evidence(**ANCHOR), *largest(**BEFORE))))
    assert found.roles["anchor"].by
    assert max(map(len, summary(found, BARE, 80, 128))) <= 80
    assert f"by {found.roles['anchor'].by}" in " ".join(" ".join(summary(found, BARE, 80, 128)).split())


def test_given_labels_are_said_not_to_be_used_where_written_ones_decide(capsys):
    def states(*modes: tuple[float, str]) -> list[str]:
        battery = one(evidence(**ANCHOR))
        rows = tuple(row for step, mode in modes for row in accuracy(step, mode))
        print_verdict(
            verdict(replace(battery, measured=(replace(battery.measured[0], accuracy=rows),))), BARE, 80, True, 128
        )
        lines = capsys.readouterr().out.partition("\n\n")[2].splitlines()
        return [line.partition(": ")[2] for line in lines if line.startswith(("  labels given", "  labels written"))]

    assert states((1.0, "forced"), (1.0, "written")) == [
        "not used for the verdict (written labels decide)",
        "competent",
    ]
    assert states((1.0, "forced"), (0.5, "written")) == ["competent", "not competent"]
    assert states((0.5, "forced"), (0.5, "written")) == ["not competent", "not competent"]


BY_WIDTH = {
    "weak anchor": True,
    "wide anchor": True,
    "wide placeholder": True,
    "wide sink": True,
    "an anchor, and a placeholder perhaps": True,
    "two, and a third perhaps": True,
    "negative effect": False,
    "control as large": False,
    "control of a side as large": False,
    "anchor": False,
    "none": False,
    "M1 alone": False,
}


@pytest.mark.parametrize("case", BY_WIDTH)
def test_more_prompts_are_advised_only_where_intervals_leave_a_role_open(case):
    found = verdict(one(evidence(**CASES[case][0])))
    assert is_open_by_width(found) == BY_WIDTH[case]
    said = "next: more --prompts narrow the intervals (24 here; default 128)"
    assert (said in " ".join(" ".join(summary(found, BARE, 80, 24)).split())) == BY_WIDTH[case]


def test_more_prompts_are_not_advised_for_an_arm_that_was_not_measured_or_for_several_models():
    assert not is_open_by_width(verdict(one(evidence(m5=WIDE, sink=None, masked=None))))
    assert not is_open_by_width(verdict(models(2, m5=WIDE)))


def test_an_interval_that_reaches_a_bound_only_at_the_level_of_the_decision_counts():
    near = about(0.08, 0.019)
    assert near.high < 0.1
    assert is_open_by_width(verdict(one(evidence(m1=near, m2=near, either=0.0, m4=0.0))))


def test_the_advice_has_the_default_of_the_command_line():
    usual, few = PROMPTS, FEW_PROMPTS
    assert more_prompts(usual) == f"more --prompts narrow the intervals ({usual} here, the default)"
    assert more_prompts(7) == f"more --prompts narrow the intervals (7 here; default {usual})"
    assert more_prompts(usual, few) == f"more --prompts narrow the intervals ({usual} here; default {few})"
    assert more_prompts(few, few) == f"more --prompts narrow the intervals ({few} here, the default)"


@pytest.mark.parametrize("case", CASES)
def test_a_rebuilt_verdict_prints_as_the_measured_one(case, capsys):
    found = verdict(one((*evidence(**CASES[case][0]), *largest(**CELLS))))
    printed = []
    for one_of in (found, verdict_from_json(json.loads(json.dumps(found.to_json())))):
        print_verdict(one_of, REHEARSED, 120, True, 24)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_how_often_such_verdicts_are_wrong_stands_before_the_evidence(capsys):
    print_verdict(FOUND["anchor"], BARE, 80, True, 128, "**How sure?** On 90 models wrong **0** times.")
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("how sure: On 90 models wrong 0 times.")
    assert lines[at + 1] == ""
    assert len(lines) > at + 5
