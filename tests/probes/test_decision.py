"""The verdict: every status and label on synthetic evidence, then on every planted mechanism."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from probes import keys
from probes.batteries import GATE, Battery, Measured, battery
from probes.decision import verdict
from probes.evidence import MODELS, PROMPTS, Accuracy, Evidence, Interval
from probes.findings import MARGINS, ROLES, SCHEMA, Status
from probes.intervals import wilson
from probes.judging import HEADLINE
from probes.planted import MECHANISMS
from probes.statistics import sign_flip
from tests.probes import oracle_models
from tests.probes.oracle_models import LENGTH, measured, planted, planted_run, random_run

PRESENT, ABSENT, UNSURE, NONE, TORN = (
    Status.PRESENT,
    Status.ABSENT,
    Status.INDETERMINATE,
    Status.NOT_APPLICABLE,
    Status.UNRESOLVED,
)


def about(value: float, half: float = 0.02) -> Interval:
    """Return a t interval with a half width of about `half` at 95 %."""
    return Interval(value, value, value, half / 2, 200).at(0.95)


def evidence(length: int = 20, **values: Any) -> tuple[Evidence, ...]:
    """Return evidence of all arms that decide: no effect by default, None for no evidence, `x_control` a control."""
    arms = {
        "m1": keys.SWAP_INPUTS,
        "m2": keys.SWAP_OUTPUTS,
        "m3": keys.RENAME,
        "m4": keys.ATTENTION,
        "m5": HEADLINE["placeholder"],
        "sink": HEADLINE["sink"],
        "either": HEADLINE["anchor"],
        "lost": keys.MEAN_ALL,
        "masked": keys.RENORMALISE_ALL,
        "held": keys.MARGIN_HELD,
        "null": keys.NULL_ALL,
        "k5": keys.HISTORY_K,
        "same": keys.SAME_UNDER_BOTH,
        "remainder": keys.SHARE_REMAINDER,
        "address": keys.SHARE_ADDRESS,
    }
    values = {"remainder": None, "address": None, **values}
    if "either" not in values and (values.get("m1", 0.0), values.get("m2", 0.0)) != (None, None):
        sides = [values.get(name, 0.0) for name in ("m1", "m2")]
        numbers = [x.value if isinstance(x, Interval) else x for x in sides if x is not None]
        values["either"] = sum(numbers) / len(numbers)
    found = []
    for short, key in arms.items():
        value = values.get(short, 0.0)
        if value is None:
            continue
        interval = value if isinstance(value, Interval) else about(value)
        controlled = short in ("m1", "m2", "m4", "m5", "k5", "sink", "either")
        control = values.get(f"{short}_control", 0.0 if controlled else None)
        control = about(control) if isinstance(control, float | int) else control
        found.append(Evidence(key, "?", length, "rho", interval, control, 96))
    return tuple(found)


def accuracy(step: float | Interval = 1.0, mode: str = "forced", length: int = 20) -> tuple[Accuracy, ...]:
    estimate = step if isinstance(step, Interval) else Interval(step, step - 0.01, min(1.0, step + 0.01))
    return tuple(Accuracy(m, mode, length, estimate, 0.5, 96) for m in ("step", "exact", "final"))


def one(found: tuple[Evidence, ...], step: float | Interval = 1.0, **more: Any) -> Battery:
    return Battery("x", "parity-aligned", 96, 0, (Measured(20, accuracy(step), found, **more),))


def statuses(found: Any) -> tuple[Status, ...]:
    return tuple(found.roles[role].status for role in ROLES)


ANCHOR: dict[str, Any] = {"m1": 1.0, "m2": 1.0, "m4": 1.0, "lost": 0.4, "masked": 0.4}
CONTENT: dict[str, Any] = {"m5": 1.0, "lost": 0.4, "masked": 0.4}
SINK: dict[str, Any] = {"sink": 1.0, "masked": 0.5}
WIDE = about(0.0, 0.3)

CASES: dict[str, tuple[dict[str, Any], tuple[Status, ...], str]] = {
    # One role, several, none.
    "anchor": (ANCHOR, (PRESENT, ABSENT, ABSENT), "anchor"),
    "placeholder": (CONTENT, (ABSENT, PRESENT, ABSENT), "placeholder"),
    "sink": (SINK, (ABSENT, ABSENT, PRESENT), "sink"),
    "two": ({**ANCHOR, **CONTENT}, (PRESENT, PRESENT, ABSENT), "mixed(anchor, placeholder)"),
    "three": ({**ANCHOR, **CONTENT, **SINK}, (PRESENT,) * 3, "mixed(anchor, placeholder, sink)"),
    "none": ({}, (ABSENT,) * 3, "unused"),
    "an anchor that hides from removal": ({**ANCHOR, "lost": 0.0, "masked": 0.0}, (PRESENT, ABSENT, ABSENT), "anchor"),
    # Neither shown.
    "weak anchor": ({"m1": 0.1, "m2": 0.1, "m4": 0.1}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "wide anchor": ({"m1": WIDE, "m2": WIDE, "either": WIDE, "m4": WIDE}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "wide placeholder": ({"m5": WIDE}, (ABSENT, UNSURE, ABSENT), "undecided"),
    "wide sink": ({"sink": WIDE, "masked": WIDE}, (ABSENT, ABSENT, UNSURE), "undecided"),
    "an anchor, and a placeholder perhaps": ({**ANCHOR, "m5": WIDE}, (PRESENT, UNSURE, ABSENT), "undecided"),
    "two, and a third perhaps": (
        {**ANCHOR, **CONTENT, "sink": WIDE, "masked": WIDE},
        (PRESENT, PRESENT, UNSURE),
        "undecided",
    ),
    "negative effect": ({"m5": -0.5}, (ABSENT, UNSURE, ABSENT), "undecided"),
    # Controls.
    "control as large": ({**CONTENT, "m5_control": 1.0}, (ABSENT, UNSURE, ABSENT), "undecided"),
    "control below": ({**CONTENT, "m5_control": 0.5}, (ABSENT, PRESENT, ABSENT), "placeholder"),
    "control of a side as large": ({**ANCHOR, "m2_control": 1.0}, (UNSURE, ABSENT, ABSENT), "undecided"),
    # Arms that contradict each other.
    "M1 alone": ({"m1": 1.0, "m2": 0.0, "m4": 1.0}, (TORN, ABSENT, ABSENT), "unresolved"),
    "M2 alone": ({"m1": 0.0, "m2": 1.0, "m4": 0.0}, (TORN, ABSENT, ABSENT), "unresolved"),
    "M1 and M2 without a path": ({**ANCHOR, "m4": 0.0}, (TORN, ABSENT, ABSENT), "unresolved"),
    "a path, and no effect": ({"m4": 1.0}, (TORN, ABSENT, ABSENT), "unresolved"),
    "a path and no effect, beside a sink": ({**SINK, "m4": 1.0}, (TORN, ABSENT, PRESENT), "unresolved"),
    "removal hurts and no role is there": ({"lost": 0.4, "masked": 0.4}, (TORN,) * 3, "unresolved"),
    "a null removal hurts and no role is there": ({"null": 0.4, "masked": 0.4}, (TORN,) * 3, "unresolved"),
    "removal hurts within the margin": ({"lost": 0.03, "masked": 0.03}, (ABSENT,) * 3, "unused"),
    # Removal that hurts while a role is not settled.
    "removal hurts, and a placeholder may explain it": (
        {"m5": WIDE, "lost": 0.4, "masked": 0.4},
        (ABSENT, UNSURE, ABSENT),
        "undecided",
    ),
    "removal hurts, and no role that is open can explain it": (
        {"m5": -0.5, "lost": 0.4, "masked": 0.4},
        (TORN, UNSURE, TORN),
        "unresolved",
    ),
    "removal hurts, and idle heads hold margin": ({"lost": 0.4, "masked": 0.4, "held": 0.3}, (TORN,) * 3, "unresolved"),
    # What an anchor needs beside M1 and M2.
    "one side unsure": ({**ANCHOR, "m2": about(0.5, 0.6)}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "path unsure": ({**ANCHOR, "m4": about(0.1, 0.3)}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "renaming moves": ({**ANCHOR, "m3": 0.3}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "renaming moves downwards": ({**ANCHOR, "m3": -0.3}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "renaming unsure": ({**ANCHOR, "m3": WIDE}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "no renaming": ({**ANCHOR, "m3": None}, (PRESENT, ABSENT, ABSENT), "anchor"),
    "absent, but for one side": ({"m2": about(0.09, 0.05), "either": 0.03}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "a swap that should change nothing": ({**ANCHOR, "same": 0.3}, (TORN, ABSENT, ABSENT), "unresolved"),
    "a swap that should change nothing, perhaps": ({**ANCHOR, "same": WIDE}, (PRESENT, ABSENT, ABSENT), "anchor"),
    # Results that are read by attention, and not by value.
    "by keys": ({"k5": 1.0, "lost": 0.4, "masked": 0.4}, (ABSENT, PRESENT, ABSENT), "placeholder"),
    "by keys, as the control": ({"k5": 1.0, "k5_control": 1.0}, (ABSENT, UNSURE, ABSENT), "undecided"),
    "by keys, perhaps": ({"k5": WIDE}, (ABSENT, UNSURE, ABSENT), "undecided"),
    "by values, and keys perhaps": ({**CONTENT, "k5": WIDE}, (ABSENT, PRESENT, ABSENT), "placeholder"),
    "by values, perhaps, and by keys": ({"m5": WIDE, "k5": 1.0}, (ABSENT, PRESENT, ABSENT), "placeholder"),
    # A margin that hangs on labels while the answers stand.
    "margin held": ({"held": 0.3}, (ABSENT, ABSENT, UNSURE), "undecided"),
    "margin held, beside an anchor": ({**ANCHOR, "held": 0.3}, (PRESENT, ABSENT, ABSENT), "anchor"),
    "margin held, perhaps": ({"held": WIDE}, (ABSENT,) * 3, "unused"),
    # What was not measured.
    "no M1": ({**ANCHOR, "m1": None}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "no M4": ({**ANCHOR, "m4": None}, (UNSURE, ABSENT, ABSENT), "undecided"),
    "no M5": ({**ANCHOR, "m5": None}, (PRESENT, UNSURE, ABSENT), "undecided"),
    "no M6": ({**CONTENT, "sink": None, "masked": None}, (ABSENT, PRESENT, UNSURE), "undecided"),
    # A sink where no head is idle.
    "no idle head, and nothing lost": ({"sink": None}, (ABSENT,) * 3, "unused"),
    "no idle head, and much lost": ({**CONTENT, "sink": None}, (ABSENT, PRESENT, UNSURE), "undecided"),
    "unsure of idle heads, and nothing lost": (
        {**ANCHOR, "sink": WIDE, "masked": 0.0},
        (PRESENT, ABSENT, ABSENT),
        "anchor",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_branch_of_one_model(case):
    values, expected, label = CASES[case]
    found = verdict(one(evidence(**values)))
    assert statuses(found) == expected
    assert found.label == label
    assert found.lengths[0].label == label
    for role in found.roles.values():
        assert role.reason
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("step", "competent"),
    [
        (1.0, True),
        (0.96, True),  # .95 to .97: the gate is reached by the whole interval
        (0.955, False),
        (0.5, False),
    ],
)
def test_the_gate_is_passed_by_the_whole_interval(step, competent):
    found = verdict(one(evidence(**ANCHOR), step))
    assert found.label == ("anchor" if competent else "not-applicable")
    assert statuses(found) == ((PRESENT, ABSENT, ABSENT) if competent else (NONE,) * 3)
    if not competent:
        assert "gate of 0.95" in found.roles["anchor"].reason
        assert found.may_claim.startswith("nothing: step accuracy")


def test_exact_match_does_not_open_the_gate_and_one_mode_is_enough():
    poor, good = accuracy(0.5), accuracy(1.0, "written")
    exact = tuple(a if a.metric == "step" else replace(a, estimate=about(1.0)) for a in poor)
    base = one(evidence(**ANCHOR)).measured[0]
    for rows, mode in (
        (exact, None),
        (poor + good, "written"),
        (accuracy(1.0) + good, "written"),
        (accuracy(1.0) + accuracy(0.5, "written"), "forced"),
    ):
        found = verdict(Battery("x", "parity-aligned", 96, 0, (replace(base, accuracy=rows),)))
        assert found.lengths[0].mode == mode
        assert found.label == ("anchor" if mode else "not-applicable")


def test_refusals_say_why():
    found = verdict(one((), refusal="it has no labels"))
    assert found.label == "not-applicable"
    assert all(r.reason == "it has no labels" and r.status is NONE for r in found.roles.values())
    # Labels that repeat are no address; the other roles are judged, and name the label.
    values: dict[str, Any] = {"m1": None, "m2": None, "m3": None, "m4": None, "either": None}
    for more, label in (({}, "unused"), (CONTENT, "placeholder"), ({"m5": WIDE}, "undecided")):
        found = verdict(one(evidence(**{**values, **more}), no_address="labels repeat"))
        assert found.roles["anchor"].status is NONE
        assert found.roles["anchor"].reason == "labels repeat"
        assert found.label == label
    torn = verdict(one(evidence(**{**values, "lost": 0.4, "masked": 0.4}), no_address="labels repeat"))
    assert statuses(torn) == (NONE, TORN, TORN)


def test_the_level_is_for_all_intervals_at_once():
    """An effect at 95 % alone need not be one at the simultaneous level, which rises with the number of lengths."""
    assert MARGINS.level(1) == pytest.approx(1 - 0.05 / MARGINS.intervals)
    assert MARGINS.level(2) == pytest.approx(1 - 0.05 / MARGINS.intervals / 2)
    assert MARGINS.intervals >= 11
    with pytest.raises(AttributeError):
        MARGINS.rho = 0.2  # type: ignore[misc]
    e = Interval(0.2, 0.2, 0.2, 0.04, 200)
    assert e.at(0.95).low > MARGINS.rho > e.at(MARGINS.level(1)).low
    assert verdict(one(evidence(m5=e))).roles["placeholder"].status is UNSURE
    assert verdict(one(evidence(m5=replace(e, error=0.02)))).roles["placeholder"].status is PRESENT
    half = [stats.t.ppf(0.5 + MARGINS.level(k) / 2, 200) for k in (1, 2)]
    narrow = replace(e, error=0.1 / (sum(half) / 2))
    assert narrow.at(MARGINS.level(1)).low > MARGINS.rho > narrow.at(MARGINS.level(2)).low
    two = [Measured(n, accuracy(length=n), evidence(n, m5=narrow)) for n in (20, 40)]
    assert verdict(one(evidence(m5=narrow))).roles["placeholder"].status is PRESENT
    assert verdict(Battery("x", "f", 96, 0, tuple(two))).roles["placeholder"].status is UNSURE


LENGTHS = {
    "alike": ((ANCHOR, 1.0), (ANCHOR, 1.0), PRESENT, "anchor"),
    "one is not competent": ((ANCHOR, 1.0), ({}, 0.6), PRESENT, "anchor"),
    "neither is": ((ANCHOR, 0.6), (ANCHOR, 0.6), NONE, "not-applicable"),
    "unlike": ((ANCHOR, 1.0), ({}, 1.0), UNSURE, "undecided"),
    "one contradicts": ((ANCHOR, 1.0), ({**ANCHOR, "m4": 0.0}, 1.0), TORN, "unresolved"),
    "one is unsure": ((ANCHOR, 1.0), ({**ANCHOR, "m3": 0.3}, 1.0), UNSURE, "undecided"),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_are_combined(case):
    *parts, status, label = LENGTHS[case]
    at = [Measured(n, accuracy(s, length=n), evidence(n, **v)) for n, (v, s) in zip((20, 40), parts, strict=True)]
    found = verdict(Battery("x", "parity-aligned", 96, 0, tuple(at)))
    assert found.roles["anchor"].status is status
    assert found.label == label
    assert [f.length for f in found.lengths] == [20, 40]


def test_rho_is_the_mean_of_the_lengths_that_count():
    def two(second: float) -> Battery:
        first = Measured(20, accuracy(), evidence(m5=0.8, remainder=0.2, lost=0.4))
        return Battery("x", "f", 96, 0, (first, Measured(40, accuracy(second), evidence(40, m5=0.4, remainder=0.6))))

    found, alone = verdict(two(1.0)), verdict(two(0.5))
    rho = found.roles["placeholder"].rho
    assert rho is not None
    assert rho.value == pytest.approx(0.6)
    assert rho.error == pytest.approx(0.01 / 2**0.5)
    assert found.remainder == pytest.approx(0.4)
    assert alone.remainder == pytest.approx(0.2)
    assert alone.roles["placeholder"].rho.value == pytest.approx(0.8)  # type: ignore[union-attr]
    assert verdict(one(evidence())).remainder is None


def test_the_reason_on_margins_names_each_length_where_there_are_several():
    at = tuple(Measured(n, accuracy(length=n), evidence(n, **ANCHOR, held=0.3)) for n in (20, 40))
    several, alone = verdict(Battery("x", "f", 96, 0, at)), verdict(one(evidence(**ANCHOR, held=0.3)))
    assert several.roles["sink"].margins is not None
    assert several.roles["anchor"].margins is None
    reason, single = (found.roles["sink"].margins.reason for found in (several, alone))  # type: ignore[union-attr]
    assert reason == f"length 20: {single}; length 40: {single}"


# Several models -----------------------------------------------------------------------------------------


def models(count: int, spread: float = 0.01, competent: int | None = None, **values: Any) -> list[Battery]:
    """Return models evenly spread about the values; those after the first `competent` cannot do the task."""
    found = []
    for k in range(count):
        off = spread * (2 * k / max(1, count - 1) - 1)
        step = 1.0 if competent is None or k < competent else 0.6
        own = evidence(**{**{name: 0.0 for name in ("m1", "m2", "m3", "m4", "m5", "sink", "lost", "masked")}, **values})
        own = tuple(replace(e, value=about(e.value.value + off)) for e in own)
        found.append(replace(one(own, step), name=f"m{k}"))
    return found


def test_two_models_can_never_show_presence():
    """The smallest p of the sign-flip test over two models is 1/4; a claim over one model is about that model."""
    assert sign_flip([1.0, 1.0]) == 0.25
    assert verdict(models(1, **ANCHOR)).label == "anchor"
    found = verdict(models(2, **ANCHOR))
    assert found.roles["anchor"].status is UNSURE
    assert found.label == "undecided"


@pytest.mark.parametrize(("values", "label"), [(ANCHOR, "anchor"), (CONTENT, "placeholder"), (SINK, "sink")])
def test_eight_models_can(values, label):
    found = verdict(models(8, **values))
    assert found.label == label
    assert found.replication == "models"
    assert {e.unit for f in found.lengths for e in f.evidence} == {MODELS}
    assert all(e.n == 8 for f in found.lengths for e in f.evidence)


@pytest.mark.slow
def test_holm_asks_more_of_five_models_than_of_eight():
    """2^-6 = .016 is below .05, but the third of six tests needs .0125: 2^-7 or less."""
    assert [verdict(models(k, **ANCHOR)).roles["anchor"].status for k in (6, 7)] == [UNSURE, PRESENT]
    (few,) = verdict(models(6, **ANCHOR)).lengths
    assert "over 6 models, whose least p is 0.016, does not hold" in few.roles["anchor"].reason


def test_a_verdict_over_models_tells_its_p_values():
    found = verdict(models(8, **ANCHOR)).lengths[0]
    anchor, sink = (found.roles[role].tests for role in ("anchor", "sink"))
    assert anchor is not None
    assert sink is not None
    # Both tests of three roles and of the sink on margins are a family of eight, three of which are surer; the
    # smallest p is 2^-8.
    assert anchor["present"] == {"p": 2**-8, "holm": pytest.approx(5 * 2**-8), "holds": True}
    assert not anchor["absent"]["holds"]
    assert sink["absent"]["holds"]
    assert float(sink["absent"]["p"]) < 1e-6
    assert not sink["present"]["holds"]
    assert found.to_json()["roles"]["anchor"]["tests"] == anchor
    alone = verdict(models(1, **ANCHOR)).lengths[0].roles["anchor"]
    assert alone.tests is None
    assert "tests" not in alone.to_json()


def test_absence_over_models_needs_tost():
    assert verdict(models(8)).label == "unused"
    wide = verdict(models(8, spread=0.3))
    assert statuses(wide) == (UNSURE,) * 3
    assert wide.label == "undecided"


def test_unused_over_models_needs_the_proof_that_labels_can_go():
    """Two of three models lose accuracy without labels: no role is present, and no loss is shown over models."""
    several = [
        replace(
            b,
            measured=tuple(
                replace(
                    m,
                    evidence=tuple(replace(e, value=about(lost)) if e.key == keys.NULL_ALL else e for e in m.evidence),
                )
                for m in b.measured
            ),
        )
        for b, lost in zip(models(3), (0.2, 0.17, 0.01), strict=True)
    ]
    found = verdict(several)
    assert statuses(found) == (ABSENT, ABSENT, UNSURE)
    assert found.label == "undecided"
    assert "may lose 0.127 [" in found.roles["sink"].reason
    assert verdict(models(3, spread=0.008)).label == "unused"


def test_models_that_scatter_widely_show_no_presence():
    found = verdict(models(8, spread=1.5, m5=1.0, lost=0.4))
    assert found.roles["placeholder"].status is UNSURE


def test_the_control_is_taken_off_each_model():
    found = verdict(
        [
            replace(
                b,
                measured=tuple(
                    replace(
                        m, evidence=tuple(replace(e, control=about(0.95)) if e.arm == "M5" else e for e in m.evidence)
                    )
                    for m in b.measured
                ),
            )
            for b in models(8, **{**CONTENT, "m5": 0.9})
        ]
    )
    assert found.roles["placeholder"].status is UNSURE


@pytest.mark.parametrize(
    ("controls", "status"),
    [
        ((0.0,) * 8, PRESENT),
        ((None,) * 8, PRESENT),
        ((0.0,) * 7 + (None,), PRESENT),
        ((0.93,) * 2 + (None,) * 6, UNSURE),
        ((0.93,) + (None,) * 7, UNSURE),
    ],
)
def test_a_control_that_some_models_lack_is_no_control_of_zero(controls, status):
    """A model without a control counts as if its control were as large as its effect; seven others can suffice."""
    found = verdict(
        [
            replace(
                b,
                measured=tuple(
                    replace(
                        m,
                        evidence=tuple(
                            replace(e, control=c if c is None else about(c)) if e.key == HEADLINE["sink"] else e
                            for e in m.evidence
                        ),
                    )
                    for m in b.measured
                ),
            )
            for b, c in zip(models(8, **{**SINK, "sink": 0.85}), controls, strict=True)
        ]
    )
    assert found.roles["sink"].status is status


def test_presence_over_models_is_beyond_the_margin():
    """Eight models at .05 are above zero and within the margin."""
    (found,) = verdict(models(8, spread=0.01, m5=0.05)).lengths
    tests = found.roles["placeholder"].tests
    assert tests is not None
    assert sign_flip([0.05] * 8) == 2**-8
    assert tests["present"]["p"] == 1.0
    assert tests["absent"]["holds"]


def test_lengths_of_the_same_models_do_not_count_as_more_models():
    """Equal effects at two lengths add nothing over the same models; one model has new prompts at each length."""
    once, alone = models(8, spread=0.07, m5=0.7, lost=0.4), models(1, m5=0.7, lost=0.4)
    for batteries, factor in ((once, 1.0), (alone, 0.5**0.5)):
        twice = [replace(b, measured=(*b.measured, replace(b.measured[0], length=40))) for b in batteries]
        first, second = (verdict(some).roles["placeholder"].rho for some in (batteries, twice))
        assert first is not None
        assert second is not None
        assert (second.error or 0) == pytest.approx(factor * (first.error or 0))


def test_models_that_cannot_do_the_task_do_not_count():
    found = verdict(models(8, competent=7, **ANCHOR))
    assert found.roles["anchor"].status is PRESENT
    assert "7 of 8 models are competent" in found.roles["anchor"].reason
    assert all(e.n == 7 for e in found.lengths[0].evidence)
    alone = verdict(models(8, competent=1, **ANCHOR))
    assert alone.label == "not-applicable"
    assert "1 of 8 models are competent; 2 are needed" in alone.roles["anchor"].reason
    assert verdict(models(8, competent=0, **ANCHOR)).label == "not-applicable"


def test_rho_over_models_is_the_t_interval_of_their_means():
    found = verdict(models(8, spread=0.07, m5=0.7, lost=0.4))
    rho = found.roles["placeholder"].rho
    assert rho is not None
    assert (rho.value, rho.df) == (pytest.approx(0.7), 7)
    assert rho.error == pytest.approx(0.07 * (sum((2 * k / 7 - 1) ** 2 for k in range(8)) / 7 / 8) ** 0.5)


def test_a_description_that_is_undefined_does_not_stop_the_verdict():
    """M7's share of what is written is NaN in a head that writes nothing."""
    nan = Interval(*[float("nan")] * 3)
    share = Evidence(keys.VALUE_SHARE.at("L0H0"), "?", 20, "share", nan, None, 24)
    several = [
        replace(b, measured=tuple(replace(m, evidence=(*m.evidence, share)) for m in b.measured))
        for b in models(8, **ANCHOR)
    ]
    assert verdict(several).label == "anchor"


def test_models_that_are_not_alike_are_refused():
    first, second = models(2)
    with pytest.raises(ValueError, match=r"share format and lengths; got .*parity-aligned.* and .*parity-gap2"):
        verdict([first, replace(second, format="parity-gap2")])
    with pytest.raises(ValueError, match="share format and lengths"):
        verdict([first, replace(second, measured=(*second.measured, replace(second.measured[0], length=40)))])
    with pytest.raises(ValueError, match="given twice"):
        verdict([first, first])
    with pytest.raises(ValueError, match="at least one model"):
        verdict([])


# JSON and claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 8])
def test_json_by_schema_1(count):
    values: dict[str, Any] = {**ANCHOR, "remainder": 0.25, "address": 0.75}
    found = verdict(models(count, **values))
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert SCHEMA == data["schema"] == 1
    assert data["verdict"] == "anchor"
    assert set(data["roles"]) == {"anchor", "placeholder", "sink"}
    for name, status in zip(ROLES, ("PRESENT", "ABSENT", "ABSENT"), strict=True):
        role = data["roles"][name]
        assert role["status"] == status
        low, high = role["ci"]
        assert low <= role["rho"] <= high
    assert data["roles"]["anchor"]["rho"] == pytest.approx(1.0, abs=0.02)
    assert data["remainder"] == pytest.approx(0.25, abs=0.02)
    assert data["replication"] == ("prompts" if count == 1 else "models")
    assert data["n_models"] == count == len(data["models"])
    assert data["format"] == "parity-aligned"
    assert data["competence"]["gate"] == 0.95
    (length,) = data["competence"]["lengths"]
    assert (length["length"], length["competent"], length["mode"], length["forced step"]) == (20, True, "forced", 1.0)
    assert data["by_length"][0]["shares"]["address"]["value"] == pytest.approx(0.75, abs=0.02)
    assert {e["arm"] for e in data["evidence"]} == {"M1", "M2", "M3", "M4", "M5", "M6", "shares"}
    assert {e["unit"] for e in data["evidence"]} == {PROMPTS if count == 1 else MODELS}
    assert data["margins"]["version"]


def test_json_of_what_was_not_measured():
    data = json.loads(json.dumps(verdict(one((), 0.5)).to_json(), allow_nan=False))
    assert data["verdict"] == "not-applicable"
    assert data["roles"]["sink"]["rho"] is data["roles"]["sink"]["ci"] is data["remainder"] is None
    assert data["competence"]["lengths"][0]["competent"] is False


def test_claims_are_about_what_was_seen():
    single, several = verdict(one(evidence(**ANCHOR))), verdict(models(8, **ANCHOR))
    assert "this one model, at length 20" in single.may_claim
    assert "anchor" in single.may_claim
    assert "trained from another seed" in single.may_not_claim
    assert "models trained like these 8" in several.may_claim
    assert "another seed" not in several.may_not_claim
    assert "as a sink too" in single.may_not_claim
    assert "as a sink too" not in verdict(one(evidence(**SINK))).may_not_claim
    unsure = verdict(one(evidence(**ANCHOR, m5=WIDE))).may_claim
    assert "anchor PRESENT; sink ABSENT; so the verdict names no role" in unsure
    assert "none of anchor, placeholder and sink" in verdict(one(evidence())).may_claim


@pytest.mark.parametrize(("held", "named"), [(0.0, False), (0.3, True)])
def test_margins_that_idle_heads_hold_are_excluded_from_the_claim(held, named):
    """The sink beside an anchor is judged on answers; its effect on margins is named."""
    found = verdict(one(evidence(**ANCHOR, held=held)))
    assert found.label == "anchor"
    assert ("0.300 [" in found.may_claim) is named


# Planted models -----------------------------------------------------------------------------------------

QUICK = [
    ("A1", "gpt_neox"),
    ("placeholder", "gpt2"),
    ("content-addressed placeholder", "gpt_neox"),
    ("sink", "gpt2"),
    ("mixture", "gpt2"),
    ("unused, massive attention", "gpt2"),
    ("A1 with sink", "gpt_neox"),
]
REST = [(m, a) for m in MECHANISMS for a in ("gpt2", "gpt_neox") if (m, a) not in QUICK]
# Without labels this model is right less often than by chance where other keys share the attention, and at chance where
# it reads zero. The rule of `judging_sink.close_sink` on that difference leaves its sink open (probes/README.md).
LEFT_OPEN = ("placeholder", "gpt2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "architecture"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in REST)]
)
def test_planted_models_get_their_label(mechanism, architecture):
    found, truth = verdict(measured(mechanism, architecture)), planted(mechanism, architecture).truth
    if (mechanism, architecture) == LEFT_OPEN:
        assert statuses(found) == (ABSENT, PRESENT, TORN)
        assert "where other keys share their attention" in found.roles["sink"].reason
        assert found.label == "unresolved"
        return
    assert found.label == truth.label
    assert {role: f.status is PRESENT for role, f in found.roles.items()} == truth.roles
    assert Status.UNRESOLVED not in statuses(found)
    if truth.shares:
        for share in ("address", "content"):
            measured_share = found.lengths[0].share(share)
            assert measured_share is not None
            assert measured_share.value == pytest.approx(truth.shares[share], abs=0.05)
    assert found.replication == "prompts"
    json.dumps(found.to_json(), allow_nan=False)


def test_a_random_model_is_not_judged():
    found = verdict(battery(random_run(), (8,), prompts=24))
    assert found.label == "not-applicable"
    assert "gate" in found.roles["anchor"].reason
    # Asked for all the same, there is no margin to normalise by, or the gate stands.
    forced = verdict(battery(random_run(), (8,), prompts=24, competence=None, arms=("M1", "M5")))
    assert forced.label == "not-applicable"


def test_a_format_without_labels_is_not_judged():
    found = verdict(battery(random_run("parity-scratchpad"), (8,), prompts=24))
    assert found.label == "not-applicable"


def test_constant_labels_are_no_anchor_and_may_be_another_thing():
    """The weights of the placeholder on constant labels: the stored state does not depend on them."""
    run = planted_run("placeholder", fmt="parity-constant")
    found = verdict(battery(run, (LENGTH,), seed=1, prompts=oracle_models.PROMPTS, forced=True))
    assert statuses(found) == (NONE, PRESENT, ABSENT)
    assert "repeats labels" in found.roles["anchor"].reason
    assert found.label == "placeholder"


@pytest.mark.parametrize("prompts", [24, 48])
def test_few_prompts_do_not_close_the_gate(prompts):
    """A Wilson interval of 48 right of 48 begins at .926, below the gate, so competence has more prompts."""
    assert wilson(48, 48).low < MARGINS.competence < wilson(GATE, GATE).low
    found = battery(planted_run("content-addressed placeholder"), (LENGTH,), prompts=prompts, arms=("M5",))
    assert {a.n for a in found.measured[0].accuracy} == {GATE}
    assert {e.n for e in found.measured[0].evidence} == {prompts}
    assert verdict(found).roles["placeholder"].status is PRESENT


def test_what_is_not_decided_quotes_the_interval_that_decides():
    """The 95 % interval would contradict the status; the effect is that of the arm that leaves it open."""
    stored = about(0.2, 0.08)
    assert stored.low > MARGINS.rho
    placeholder = verdict(one(evidence(**{**ANCHOR, "k5": stored}))).roles["placeholder"]
    assert placeholder.status is Status.INDETERMINATE
    assert placeholder.rho == stored
    quoted = re.search(r"through K: 0.200 \[(0.\d+), 0.\d+\] \(interval simultaneous", placeholder.reason)
    assert quoted is not None
    assert float(quoted[1]) < MARGINS.rho
