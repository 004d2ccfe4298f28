"""Closure: compare what the largest interventions change with what the specific arms explain.

A specific arm such as M1 tests one mechanism, so its zero does not show that labels have no such role. The largest
interventions are zero in every model that does not use the variable (probes/README.md, Decision). A role is ABSENT
only where its largest effect lies within the margin too, and what no arm explains makes the verdict "unresolved".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from probes import keys
from probes.claims import LARGEST
from probes.evidence import ORDER_BROKEN, ORDER_KEPT, Evidence, EvidenceKey
from probes.judging import HEADLINE, LengthEvidence, hold_absent
from probes.judging_address import followed_addresses, judge_address
from probes.judging_sink import close_sink
from probes.statuses import RoleFinding, Status


@dataclass(frozen=True)
class Variable:
    """What a role reads of labels: its largest effect, that where it predicts no change, and its Shapley share.

    `step`: its largest effect at a single step, where that is measured.
    """

    name: str
    largest: EvidenceKey
    rest: EvidenceKey
    share: EvidenceKey
    step: EvidenceKey | None = None


VARIABLES = {
    "anchor": Variable(*LARGEST["anchor"], keys.IDENTITY_REST, keys.SHARE_ADDRESS, keys.IDENTITY_STEP),
    "placeholder": Variable(*LARGEST["placeholder"], keys.CONTENT_REST, keys.SHARE_CONTENT),
}


def close(at: LengthEvidence, roles: dict[str, RoleFinding]) -> tuple[dict[str, RoleFinding], dict[str, str]]:
    """Return the roles at one length after closure, and by role what a role that is PRESENT leaves unexplained.

    Of anchor and placeholder, by their status (without the evidence that is named, it stays):

    - any: the anchor is PRESENT by other labels than the step's own where `judge_address` shows it.
    - ABSENT: UNRESOLVED where the largest effect exceeds the margin or its control is not within it, INDETERMINATE
      where the effect's interval is too wide. UNRESOLVED too where the mean over steps hides an effect at one step, or
      where the variable moves the margin only together with another (a Shapley share without an effect of its own).
    - UNRESOLVED: the same where the largest effect exceeds the margin, with that as the reason.
    - INDETERMINATE: UNRESOLVED where margins move beyond the margin although the role predicts no change, or beyond
      what the role explains while the Shapley remainder exceeds the margin.
    - PRESENT: kept; in that case what is unexplained is returned beside it.

    `judging_sink.close_sink` closes the sink.
    """
    closed, unexplained = dict(roles), {}
    for role, variable in VARIABLES.items():
        finding = roles[role]
        if finding.status is Status.NOT_APPLICABLE:
            continue
        if role == "anchor" and (addressed := judge_address(at, finding)) is not None:
            closed[role] = addressed.finding
            if left := [rest for rest in addressed.rests if at.is_present(rest)]:
                unexplained[role] = _unexplained(variable.name, max(left, key=lambda e: e.value.value))
            continue
        largest = at.find(variable.largest)
        if finding.status in (Status.ABSENT, Status.UNRESOLVED) and largest is not None:
            closed[role] = _hidden(at, variable, _close_absent(at, finding, variable.name, largest))
        elif reason := _beyond(at, role, finding.by):
            if finding.status is Status.PRESENT:
                unexplained[role] = reason
            elif finding.status is Status.INDETERMINATE:
                closed[role] = replace(finding, status=Status.UNRESOLVED, reason=f"{reason}; {finding.reason}")
    closed["sink"] = close_sink(at, roles["sink"])
    return closed, unexplained


def _beyond(at: LengthEvidence, role: str, by: str = "") -> str:
    """Return what moves margins beyond what the role predicts, as a reason; "" for nothing. `by` as in the finding."""
    variable = VARIABLES[role]
    rest = at.find(variable.rest)
    if rest is not None and at.is_present(rest):
        return _unexplained(variable.name, rest)
    if by:
        return ""  # the shares are of the step's own label and of earlier bits
    largest, share, remainder = (at.find(key) for key in (variable.largest, variable.share, keys.SHARE_REMAINDER))
    if largest is None or share is None or remainder is None:
        return ""
    # An index route leaves a remainder too. It counts where the variable moves more than its role allows: by its share,
    # or by its own arm where roles combine so that their effects cancel in the shares (an exclusive or).
    own = at.find(HEADLINE[role])
    explaining = [e for e in (share, own) if e is not None]
    explained = max(e.value.at(at.level).high for e in explaining)
    if remainder.value.at(at.level).low > at.margins.rho and (
        largest.value.at(at.level).low > explained + at.margins.rho
    ):
        reason = f"the shares leave {remainder.value} of the margin, and the largest {variable.name} effect, "
        parts = ", ".join(f"{e.arm} {e.name} {e.value}" for e in explaining)
        return f"{reason}{largest.value}, exceeds what its role explains: {parts}"
    return ""


def _close_absent(at: LengthEvidence, finding: RoleFinding, name: str, largest: Evidence) -> RoleFinding:
    """Return the finding on a role that is ABSENT or UNRESOLVED, in view of the largest effect."""
    if at.is_present(largest):
        followed = followed_addresses(at) if name == "identity" else []
        reason = "; ".join([_unexplained(name, largest), *followed, finding.reason])
        return replace(finding, status=Status.UNRESOLVED, reason=reason)
    if finding.status is Status.UNRESOLVED:
        return finding
    return hold_absent(at, finding, name, largest, f"moves {largest.control} of the margin")


def _hidden(at: LengthEvidence, variable: Variable, finding: RoleFinding) -> RoleFinding:
    """Return an ABSENT finding; UNRESOLVED where single steps or another variable hide an effect."""
    if finding.status is not Status.ABSENT:
        return finding
    step = at.find(variable.step) if variable.step else None
    if step is not None and at.is_present(step):
        where = " or ".join(map(str, step.details.get("steps", ()))) or "?"
        reason = f"{variable.name} moves {step.value} of the margin at step {where}, and little on average over steps"
        return replace(finding, status=Status.UNRESOLVED, reason=f"{reason}; {finding.reason}")
    share = at.find(variable.share)
    if share is not None and at.is_present(share):
        reason = f"{variable.name} alone moves nothing, and yet has a share of {share.value} of the margin: it matters "
        reason += "together with what else labels carry"
        return replace(finding, status=Status.UNRESOLVED, reason=f"{reason}; {finding.reason}")
    return finding


def _unexplained(name: str, e: Evidence) -> str:
    reason = f"{name} matters in a way that no arm explains: share {e.value}"
    kept, broken = (e.details.get(order) or {} for order in (ORDER_KEPT, ORDER_BROKEN))
    if kept and broken:
        most, least = max(x["value"] for x in kept.values()), min(x["value"] for x in broken.values())
        reason += f" (labels shifted in their order: at most {most:.3f}; out of order: at least {least:.3f})"
    return reason
