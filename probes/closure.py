"""Closure: compare what the largest interventions change with what the specific arms explain.

A specific arm such as M1 tests one mechanism, so its zero does not show that labels have no such role. The largest
interventions are zero in every model that does not use the variable (probes/README.md, Decision). A role is ABSENT
only where its largest effect lies within the margin too, and what no arm explains makes the verdict "unresolved".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from probes import keys
from probes.evidence import Evidence, EvidenceKey
from probes.findings import RoleFinding, Status
from probes.judging import LengthEvidence


@dataclass(frozen=True)
class Variable:
    """What a role reads of labels: its largest effect, and that where the role's own mechanism predicts no change."""

    name: str
    largest: EvidenceKey
    rest: EvidenceKey


VARIABLES = {
    "anchor": Variable("identity", keys.LARGEST_IDENTITY, keys.IDENTITY_REST),
    "placeholder": Variable("content", keys.LARGEST_CONTENT, keys.CONTENT_REST),
}


def close(at: LengthEvidence, roles: dict[str, RoleFinding]) -> tuple[dict[str, RoleFinding], dict[str, str]]:
    """Return the roles at one length after closure, and by role what a role that is PRESENT leaves unexplained.

    An ABSENT role becomes UNRESOLVED where the largest effect exceeds the margin, or its control is not within it, and
    INDETERMINATE where the effect's interval is too wide. A role that is INDETERMINATE becomes UNRESOLVED, and one
    that is PRESENT keeps its status, where margins move beyond the margin although the role predicts no change.
    Without the evidence of the largest interventions nothing changes.
    """
    closed, unexplained = dict(roles), {}
    for role, variable in VARIABLES.items():
        finding, largest, rest = roles[role], at.find(variable.largest), at.find(variable.rest)
        if finding.status in (Status.ABSENT, Status.UNRESOLVED) and largest is not None:
            closed[role] = _close_absent(at, finding, variable.name, largest)
        elif rest is not None and at.is_present(rest):
            reason = _unexplained(variable.name, rest)
            if finding.status is Status.PRESENT:
                unexplained[role] = reason
            elif finding.status is Status.INDETERMINATE:
                closed[role] = replace(finding, status=Status.UNRESOLVED, reason=f"{reason}; {finding.reason}")
    return closed, unexplained


def _close_absent(at: LengthEvidence, finding: RoleFinding, name: str, largest: Evidence) -> RoleFinding:
    """Return the finding on a role that is ABSENT or UNRESOLVED, in view of the largest effect."""
    if at.is_present(largest):
        reason = "; ".join([_unexplained(name, largest), *_neighbours(at, name), finding.reason])
        return replace(finding, status=Status.UNRESOLVED, reason=reason)
    if finding.status is Status.UNRESOLVED:
        return finding
    if at.control_moves(largest):
        reason = f"the control of the largest {name} effect moves {largest.control} of the margin"
        return replace(finding, status=Status.UNRESOLVED, reason=reason)
    if not at.is_absent(largest):
        reason = f"the largest {name} effect, {largest.value}, is not shown to be within the margin; {finding.reason}"
        return replace(finding, status=Status.INDETERMINATE, reason=reason)
    return finding


def _neighbours(at: LengthEvidence, name: str) -> list[str]:
    """Return by which label next to the step's own the answer goes."""
    if name != "identity":
        return []
    sides = {"before": at.find(keys.SWAP_BEFORE), "after": at.find(keys.SWAP_AFTER)}
    return [
        f"the answer follows the label {side} the step's own: rho {e.value}"
        for side, e in sides.items()
        if e is not None and at.is_present(e)
    ]


def _unexplained(name: str, e: Evidence) -> str:
    return f"{name} matters in a way that no arm explains: share {e.value}"
