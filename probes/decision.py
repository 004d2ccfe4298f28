"""What may be concluded from the arms that were run, and what may not?

So far three arms: M1, M2 and M3. They can say that label identity is used as an address, that it is not, or
that it cannot be said. They cannot tell a placeholder from a sink from a label that is not used at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from probes.evidence import Accuracy, Evidence, Interval


@dataclass(frozen=True)
class Margins:
    """Every threshold of the decision, fixed before looking (science 3). Frozen and versioned together."""

    version: str = "2026-11"
    rho: float = 0.10
    competence: float = 0.95
    alpha: float = 0.05
    # Intervals that decide at one length: two swaps, their two controls, and renaming.
    intervals: int = 5

    def to_json(self) -> dict:
        """The thresholds, as they are written beside every finding."""
        return asdict(self)

    def level(self, lengths: int) -> float:
        """Confidence level of each interval so that all that decide, at all lengths, hold at once (Bonferroni)."""
        return 1 - self.alpha / (self.intervals * max(1, lengths))


MARGINS = Margins()


class Status(StrEnum):
    """What is known of a role at one length."""

    PRESENT = "PRESENT"
    ABSENT = "ABSENT"
    INDETERMINATE = "INDETERMINATE"
    NOT_APPLICABLE = "NOT APPLICABLE"
    UNRESOLVED = "UNRESOLVED"


@dataclass(frozen=True)
class AddressFinding:
    """Whether label identity is used as an address at one length, why, and the evidence behind it."""

    length: int
    status: Status
    reason: str
    accuracy: tuple[Accuracy, ...]
    evidence: tuple[Evidence, ...]

    @property
    def sentence(self) -> str:
        """The finding as it may be quoted."""
        match self.status:
            case Status.PRESENT:
                return "label identity is used as an address (labels and earlier answers forced)"
            case Status.ABSENT:
                return "label identity is not used as an address"
            case Status.NOT_APPLICABLE:
                return f"the question does not apply: {self.reason}"
            case _:
                return f"it cannot be said whether label identity is used as an address: {self.reason}"

    def to_json(self) -> dict:
        """A nested plain dictionary."""
        return {
            "length": self.length,
            "status": self.status.value,
            "finding": self.sentence,
            "reason": self.reason,
            "accuracy": [a.to_json() for a in self.accuracy],
            "evidence": [e.to_json() for e in self.evidence],
        }


def find_address(
    length: int,
    accuracy: Sequence[Accuracy],
    evidence: Sequence[Evidence],
    refusal: str | None = None,
    margins: Margins = MARGINS,
) -> AddressFinding:
    """The finding at one length, from its accuracies and from M1, M2 and M3 with simultaneous intervals.

    PRESENT: both swaps move more than `margins.rho`, and more than their controls, by the whole interval,
    while consistent renaming is shown to move less (its whole interval within +-`margins.rho`). The arm with
    held-out labels is description and decides nothing. ABSENT: both swaps lie within +-`margins.rho` (TOST).
    One of each is UNRESOLVED: the arms contradict each other. Where step accuracy (teacher forced) is not above
    the gate by its whole interval, or where the interventions cannot be made (`refusal` says why), NOT APPLICABLE.
    """

    def finding(status: Status, reason: str) -> AddressFinding:
        return AddressFinding(length, status, reason, tuple(accuracy), tuple(evidence))

    step = next(a for a in accuracy if a.metric == "step" and a.mode == "forced")
    if refusal:
        return finding(Status.NOT_APPLICABLE, refusal)
    if step.estimate.low < margins.competence:
        reason = f"step accuracy {step.estimate} is not surely above the gate of {margins.competence}"
        return finding(Status.NOT_APPLICABLE, reason)
    swaps = [e for e in evidence if e.control is not None]
    assert len(swaps) == 2, "M1 and M2 are needed"
    rename = next(e for e in evidence if e.name == "M3 rename labels")
    present = [_above(e.effect, margins.rho) and e.effect.low > _of(e.control).high for e in swaps]
    absent = [_within(e.effect, margins.rho) for e in swaps]
    if all(present):
        if not _within(rename.effect, margins.rho):
            reason = f"renaming alone moves {rename.effect} of the margin, so names may matter in themselves"
            return finding(Status.INDETERMINATE, reason)
        return finding(Status.PRESENT, "both swaps move the answer with the label, beyond their controls")
    if all(absent):
        return finding(Status.ABSENT, f"both swaps move less than {margins.rho} of the margin")
    if any(present) and any(absent):
        names = [e.name for e, p in zip(swaps, present, strict=True) if p]
        return finding(Status.UNRESOLVED, f"the arms contradict each other: only {names[0]} moves the answer")
    return finding(Status.INDETERMINATE, "the intervals decide neither presence nor absence")


def _above(interval: Interval, bound: float) -> bool:
    return interval.low > bound


def _within(interval: Interval, bound: float) -> bool:
    return -bound < interval.low and interval.high < bound


def _of(control: Interval | None) -> Interval:
    assert control is not None
    return control

