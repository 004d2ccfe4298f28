"""The table of arms: complete rows, and the steps of "How to extend: a probe arm" in probes/README.md."""

import json
from pathlib import Path

import pytest

from interp.forward import correct
from interp.tasks import parse_format
from probes import verdict
from probes.arms.inputs import ArmInputs
from probes.arms.registry import ARMS, DECIDING, DESCRIBING, Arm, left_out_of
from probes.batteries import battery
from probes.evidence import Evidence, EvidenceKey, find_evidence
from probes.intervals import clustered_proportion
from probes.serialization import battery_from_json, battery_to_json
from tests.probes.oracle_models import planted_run

README = Path(__file__).parents[3] / "probes" / "README.md"


def test_every_row_is_complete():
    assert set(DECIDING) | set(DESCRIBING) == set(ARMS)
    assert list(ARMS) == [arm.code for arm in ARMS.values()]
    for arm in ARMS.values():
        assert arm.keys
        assert arm.meaning.endswith(".")
        assert arm.code in arm.title
        assert set(arm.not_for) <= {"parity", "addition"}
    assert len({arm.short for arm in ARMS.values()}) == len(ARMS)


def test_the_readme_lists_every_arm():
    text = README.read_text(encoding="utf-8")
    assert all(f"| {arm.code} | {arm.short} |" in text for arm in ARMS.values())


def test_arms_that_do_not_apply_to_a_task_give_a_reason():
    reasons = left_out_of(parse_format("addition-aligned"), ("M5", "M11"))
    assert list(reasons) == ["M11"]
    assert reasons["M11"] == f"left out for addition: {ARMS['M11'].not_for['addition']}"
    assert left_out_of(parse_format("parity-aligned"), ARMS) == {}


# A toy arm: one measuring function with its key, and one row ---------------------------------------------

FIRST_STEP = EvidenceKey("M99", "first step")


def measure_first_step(inputs: ArmInputs) -> list[Evidence]:
    """Describe the accuracy of the first answer."""
    assert isinstance(inputs.length, int)
    at = inputs.few.predicted()[:1]
    right = correct(inputs.model, inputs.few, at)
    return [
        Evidence(
            key=FIRST_STEP,
            question="is the first answer right?",
            length=inputs.length,
            quantity="accuracy",
            value=clustered_proportion(right),
            control=None,
            n=len(inputs.few),
        )
    ]


TOY = Arm(
    code="M99",
    short="first step",
    meaning="Describes the accuracy of the first answer.",
    measure=measure_first_step,
    keys=(FIRST_STEP,),
)
WITH_TOY = {**ARMS, TOY.code: TOY}


def test_a_toy_arm_is_measured_and_reaches_the_verdict():
    steps: list[str] = []
    measured = battery(planted_run("A1"), (8,), prompts=24, arms=("M5", "M99"), registry=WITH_TOY, step=steps.append)
    assert steps[-1] == "length 8: M99 first step"
    found = verdict(measured)
    e = find_evidence(found.lengths[0].evidence, FIRST_STEP)
    assert e is not None
    assert e.value.value == 1.0
    assert [row["name"] for row in found.to_json()["evidence"] if row["arm"] == "M99"] == ["first step"]


def test_stored_evidence_of_a_toy_arm_needs_its_row():
    measured = battery(planted_run("A1"), (8,), prompts=24, arms=("M99",), registry=WITH_TOY)
    stored = json.loads(json.dumps(battery_to_json(measured)))
    assert battery_from_json(stored, registry=WITH_TOY) == measured
    with pytest.raises(ValueError, match="unknown arm 'M99'"):
        battery_from_json(stored)


def test_without_its_row_an_arm_is_unknown():
    with pytest.raises(ValueError, match="unknown arms M99"):
        battery(planted_run("A1"), (8,), prompts=24, arms=("M99",))
