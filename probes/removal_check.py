"""The check of roles against removal: what is lost when labels are removed must be explained by a role."""

from __future__ import annotations

from dataclasses import replace

from probes import keys
from probes.closure import VARIABLES
from probes.judging import STORED, LengthEvidence, label_of
from probes.statuses import RoleFinding, Status

# The evidence by which each role can lose answers when labels are removed.
CARRYING = {
    "anchor": (keys.EITHER_SIDE,),
    "placeholder": (keys.HISTORY_V, *STORED),
    "sink": (keys.SINK,),
}


def agree_with_removal(at: LengthEvidence, roles: dict[str, RoleFinding]) -> dict[str, RoleFinding]:
    """Return the roles; where none is PRESENT, with statuses that agree with what is lost when labels are removed.

    A loss that no role can explain makes ABSENT roles UNRESOLVED, and the sink too where it is INDETERMINATE. Anchor
    and placeholder stay ABSENT where their largest effect was measured: it shows that neither identity nor content
    matters, so the loss is one of presence. A role that is INDETERMINATE can explain it where
    its effect may exceed the margin; it keeps its status, and the reason names the loss.
    """
    statuses = {r.status for r in roles.values()}
    if Status.PRESENT in statuses or Status.UNRESOLVED in statuses:
        return roles
    # A head that counts tokens by its denominator may need labels that are otherwise unused. Where presence, which
    # tests for counting, was not measured, only removals that keep the denominator count.
    closed = (keys.RENORMALISE_ALL,) if at.find(keys.LARGEST_PRESENCE) is not None else ()
    removals = [e for key in (keys.NULL_ALL, keys.MEAN_ALL, *closed) if (e := at.find(key)) is not None]
    hurting = [e for e in removals if e.value.at(at.level).low > at.margins.accuracy]
    if hurting:
        explaining = [name for name, r in roles.items() if r.status is Status.INDETERMINATE and _may_explain(at, name)]
        if not explaining:
            reason = f"no role is present, yet removing labels loses {hurting[0].value} of accuracy"
            open_ = {
                name
                for name, r in roles.items()
                if (r.status is Status.ABSENT and not _is_closed(at, name))
                or (name == "sink" and r.status is Status.INDETERMINATE)
            }
            return {
                name: replace(r, status=Status.UNRESOLVED, reason=reason) if name in open_ else r
                for name, r in roles.items()
            }
        reason = f"; removing labels loses {hurting[0].value} of accuracy"
        return {name: replace(r, reason=r.reason + reason) if name in explaining else r for name, r in roles.items()}
    if label_of(roles) != "unused":
        return roles
    margin_held = at.find(keys.MARGIN_HELD)
    if margin_held is not None and margin_held.value.at(at.level).low > at.margins.rho:
        reason = f"removing labels keeps the answers, and moves {margin_held.value} of their margin"
        return {**roles, "sink": replace(roles["sink"], status=Status.INDETERMINATE, reason=reason)}
    # A loss that is shown, or over a few models may be one, is not shown to lie within the margin.
    may = [e for e in removals if e.value.at(at.level).high > at.margins.accuracy]
    doubtful = may if at.tests else [e for e in may if e.value.at(at.level).low > 0]
    if doubtful:
        reason = f"no role is present, and yet removing labels may lose {doubtful[0].value} of accuracy"
        return {**roles, "sink": replace(roles["sink"], status=Status.INDETERMINATE, reason=reason)}
    return roles


def _is_closed(at: LengthEvidence, role: str) -> bool:
    """Return whether the largest effect of the role's variable was measured: ABSENT then means that it is nothing."""
    return role in VARIABLES and at.find(VARIABLES[role].largest) is not None


def _may_explain(at: LengthEvidence, role: str) -> bool:
    """Return whether a role's effect may exceed the margin: an upper bound does, or the first arm was not measured."""
    first, *others = (at.find(key) for key in CARRYING[role])
    measured = [e for e in (first, *others) if e is not None]
    return first is None or any(e.value.at(at.level).high > at.margins.rho for e in measured)
