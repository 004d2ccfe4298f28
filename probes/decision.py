"""The verdict: decide the roles of the labels from batteries of one model or of several.

Inference for one model is over its prompts, for several models over the models. Each role is PRESENT, ABSENT,
INDETERMINATE or NOT APPLICABLE, and UNRESOLVED where arms contradict each other. A label follows only where all roles
are settled (probes/README.md, Decision).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from probes.batteries import Battery, Measured
from probes.closure import close
from probes.evidence import Interval
from probes.findings import MARGINS, ROLES, LengthFinding, Margins, Verdict
from probes.judging import LengthEvidence, judge_anchor, judge_placeholder, label_of
from probes.judging_sink import ON_MARGINS, judge_on_margins, judge_sink
from probes.pooling import TESTED, UNTESTED, competent_mode, holm_tests, pool
from probes.removal_check import agree_with_removal
from probes.statuses import OnMargins, RoleFinding, Status


def verdict(batteries: Battery | Sequence[Battery], margins: Margins = MARGINS) -> Verdict:
    """Return the verdict on one model (over prompts) or on several models of one recipe (over models).

    A role is PRESENT where its simultaneous lower bound exceeds `margins.rho` and its matched control's upper
    bound, ABSENT where the whole interval lies within the margin (TOST), INDETERMINATE otherwise. Over models a
    sign-flip test (beyond the margin and the model's own control) and TOST must also hold after Holm's correction:
    one family of both tests of each role at each length. A length counts where the whole interval of step accuracy is
    above the gate. Over these lengths a role has the status that it has at each of them; where they differ it is
    UNRESOLVED if it is so at one of them, and else INDETERMINATE.

    Raises `ValueError` for no battery, for different formats or lengths, and for one model twice.
    """
    several = [batteries] if isinstance(batteries, Battery) else list(batteries)
    if not several:
        raise ValueError("give the battery of at least one model")
    first = several[0]
    shape = [(b.format, tuple(m.length for m in b.measured)) for b in several]
    if len(set(shape)) > 1:
        raise ValueError(f"models must share format and lengths; got {' and '.join(map(str, sorted(set(shape))))}")
    if len({b.name for b in several}) < len(several):
        raise ValueError("a model was given twice; each counts once")
    lengths = len(first.measured)
    if len(several) == 1:
        findings = [_at_length(m, margins, margins.level(lengths)) for m in first.measured]
    else:
        findings = _over_models(several, margins)
    replication = "prompts" if len(several) == 1 else "models"
    roles = {role: _over_lengths(role, findings, independent=len(several) == 1) for role in ROLES}
    unexplained = {role: reason for f in findings if f.mode for role, reason in f.unexplained.items()}
    return Verdict(
        label=label_of(roles, unexplained),
        roles=roles,
        lengths=tuple(findings),
        names=tuple(b.name for b in several),
        format=first.format,
        replication=replication,
        margins=margins,
    )


def _at_length(
    measured: Measured, margins: Margins, level: float, tests: dict[str, dict[str, bool]] | None = None
) -> LengthFinding:
    """Return the finding at one length. `tests`: per role, whether both tests hold after Holm's correction."""
    mode = competent_mode(measured.accuracy, margins)
    refusal = measured.refusal
    if mode is None and not refusal:
        step = max((a for a in measured.accuracy if a.metric == "step"), key=lambda a: a.estimate.value)
        refusal = f"step accuracy {step.estimate}: its interval is not above the gate of {margins.competence}"
    if refusal:
        roles = {role: RoleFinding(Status.NOT_APPLICABLE, refusal) for role in ROLES}
        label, mode, unexplained = "not-applicable", None, {}
    else:
        at = LengthEvidence(measured.evidence, margins, level, tests or {})
        label, roles, unexplained = _judge(at, measured.no_address)
    return LengthFinding(
        length=measured.length,
        label=label,
        mode=mode,
        roles=roles,
        accuracy=measured.accuracy,
        evidence=measured.evidence,
        left_out=measured.left_out,
        unexplained=unexplained,
    )


def _judge(at: LengthEvidence, no_address: str | None) -> tuple[str, dict[str, RoleFinding], dict[str, str]]:
    """Return the label and the roles at one length, and by role what a PRESENT role leaves unexplained.

    "unused" must also agree with what removing labels loses.
    """
    roles = {
        "anchor": RoleFinding(Status.NOT_APPLICABLE, no_address) if no_address else judge_anchor(at),
        "placeholder": judge_placeholder(at),
        "sink": judge_sink(at),
    }
    roles, unexplained = close(at, roles)
    roles = agree_with_removal(at, roles)
    roles["sink"] = replace(roles["sink"], margins=judge_on_margins(at))
    return label_of(roles, unexplained), roles, unexplained


def _over_lengths(role: str, findings: Sequence[LengthFinding], independent: bool) -> RoleFinding:
    """Return one finding for all lengths at which the model is competent; rho is the mean over them."""
    counted = [f for f in findings if f.mode is not None]
    if not counted:
        return findings[0].roles[role]
    parts = [f.roles[role] for f in counted]
    statuses = {p.status for p in parts}
    rho, control = (_mean([getattr(p, name) for p in parts], independent) for name in ("rho", "control"))
    by, *others = {p.by for p in parts}
    more = {"by": "" if others else by, "margins": _margins_over_lengths(role, counted, independent)}
    if others:
        statuses.add(Status.INDETERMINATE)  # an address by another label at another length
    if len(statuses) == 1:
        reason = (
            parts[0].reason
            if len(parts) == 1
            else "; ".join(f"length {f.length}: {p.reason}" for f, p in zip(counted, parts, strict=True))
        )
        return RoleFinding(statuses.pop(), reason, rho, control, **more)
    reason = "; ".join(f"length {f.length}: {p.status}, {p.reason}" for f, p in zip(counted, parts, strict=True))
    worst = Status.UNRESOLVED if Status.UNRESOLVED in statuses else Status.INDETERMINATE
    return RoleFinding(worst, reason, rho, control, **more)


def _margins_over_lengths(role: str, counted: Sequence[LengthFinding], independent: bool) -> OnMargins | None:
    """Return a role's status on margins over lengths; None where it has none, or was not measured at one of them."""
    named = [(f.length, f.roles[role].margins) for f in counted]
    found = [margins for _, margins in named if margins is not None]
    if not found or len(found) < len(counted):
        return None
    statuses = {m.status for m in found}
    status = statuses.pop() if len(statuses) == 1 else Status.INDETERMINATE
    share, control = (_mean([getattr(m, name) for m in found], independent) for name in ("share", "control"))
    by_length = "; ".join(f"length {length}: {margins.reason}" for length, margins in named if margins is not None)
    return OnMargins(status, by_length if len(found) > 1 else found[0].reason, share, control)


def _mean(intervals: Sequence[Interval | None], independent: bool) -> Interval | None:
    """Return the mean of estimates; None where one is missing.

    Estimates of one model are independent: each length has its own prompts. Estimates of several models are of the
    same models at each length; their errors are taken as fully correlated, the most that they can be.
    """
    known = [i for i in intervals if i is not None]
    if not known or len(known) < len(intervals):
        return None
    n = len(known)
    errors = [i.error or 0.0 for i in known]
    error = (math.hypot(*errors) if independent else sum(errors)) / n
    df = min(i.df or 1.0 for i in known)
    value = sum(i.value for i in known) / n
    return Interval(value, value, value, error, df).at(0.95)


def _over_models(several: Sequence[Battery], margins: Margins) -> list[LengthFinding]:
    """Return the findings at each length over models, with Holm's correction over roles, lengths and both tests."""
    pooled: list[tuple[Measured, int]] = []
    for at_length in zip(*(b.measured for b in several), strict=True):
        competent = [m for m in at_length if not m.refusal and competent_mode(m.accuracy, margins) and m.evidence]
        pooled.append((pool(competent, at_length), len(competent)))
    tested = holm_tests(pooled, margins)
    findings = []
    for (measured, count), tests in zip(pooled, tested, strict=True):
        holds = {role: {test: bool(t["holds"]) for test, t in tests.get(role, UNTESTED).items()} for role in TESTED}
        finding = _at_length(measured, margins, 1 - margins.alpha / (len(TESTED) * len(pooled)), holds)
        some = finding.mode is not None and count < len(several)
        note = f" ({count} of {len(several)} models are competent and count)" if some else ""
        roles = {n: replace(r, reason=r.reason + note, tests=tests.get(n)) for n, r in finding.roles.items()}
        if margins_of_sink := roles["sink"].margins:
            roles["sink"] = replace(roles["sink"], margins=replace(margins_of_sink, tests=tests.get(ON_MARGINS)))
        findings.append(replace(finding, roles=roles))
    return findings
