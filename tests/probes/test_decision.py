import json

import pytest

from probes.decision import MARGINS, Status, find_address
from probes.evidence import Accuracy, Evidence, Interval


def around(value: float, half: float = 0.02) -> Interval:
    return Interval(value, value - half, value + half)


def evidence(m1: Interval, m2: Interval, rename: Interval | None = None, control: float = 0.0) -> list[Evidence]:
    swaps = [
        Evidence(name, "?", 20, effect, around(0), around(control), around(0), n=100)
        for name, effect in (("M1 swap input labels", m1), ("M2 swap output labels", m2))
    ]
    return [*swaps, Evidence("M3 rename labels", "?", 20, rename or around(0), around(0), None, None, n=100)]


def accuracy(step: float) -> list[Accuracy]:
    return [Accuracy("step", "forced", 20, around(step), 0.5, 100)]


@pytest.mark.parametrize(
    ("arms", "step", "status"),
    [
        (evidence(around(0.95), around(0.9)), 0.99, Status.PRESENT),
        (evidence(around(0.0), around(0.01)), 0.99, Status.ABSENT),
        (evidence(around(0.95), around(0.0)), 0.99, Status.UNRESOLVED),
        (evidence(around(0.95), around(0.1, 0.2)), 0.99, Status.INDETERMINATE),
        (evidence(around(0.0, 0.3), around(0.0, 0.3)), 0.99, Status.INDETERMINATE),
        (evidence(around(0.95), around(0.9)), 0.94, Status.NOT_APPLICABLE),
        (evidence(around(0.5), around(0.5), control=0.6), 0.99, Status.INDETERMINATE),
        (evidence(around(0.95), around(0.9), rename=around(0.3)), 0.99, Status.INDETERMINATE),
        (evidence(around(0.11), around(0.95)), 0.99, Status.INDETERMINATE),
        (evidence(around(0.95), around(0.9), rename=around(0.0, 0.3)), 0.99, Status.INDETERMINATE),
        (evidence(around(0.95), around(0.9), rename=around(-0.3)), 0.99, Status.INDETERMINATE),
        (evidence(around(0.95), around(0.9)), 0.96, Status.NOT_APPLICABLE),
    ],
)
def test_every_status_has_its_case(arms, step, status):
    assert find_address(20, accuracy(step), arms).status == status


def test_a_refusal_is_not_applicable_and_says_why():
    found = find_address(20, accuracy(1.0), [], refusal="it has no labels")
    assert found.status == Status.NOT_APPLICABLE
    assert "it has no labels" in found.sentence


def test_a_finding_is_json():
    text = json.dumps(find_address(20, accuracy(1.0), evidence(around(1.0), around(1.0))).to_json())
    assert json.loads(text)["status"] == "PRESENT"


def test_simultaneous_level():
    assert MARGINS.level(lengths=2) == pytest.approx(0.995)
    with pytest.raises(AttributeError):
        MARGINS.rho = 0.2  # type: ignore[misc]
