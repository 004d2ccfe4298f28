"""The verdict: decide the roles of the labels from batteries of one model or of several.

Inference for one model is over its prompts, for several models over the models. Each role is PRESENT, ABSENT,
INDETERMINATE or NOT APPLICABLE, and UNRESOLVED where arms contradict each other. A label follows only where all roles
are settled, or where two are present, whatever the third is (probes/README.md, Decision).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from probes import keys
from probes.batteries import Battery, Measured
from probes.closure import close
from probes.evidence import MODELS, Accuracy, Evidence, EvidenceKey, Interval, find_evidence
from probes.findings import MARGINS, ROLES, LengthFinding, Margins, RoleFinding, Status, Verdict
from probes.judging import HEADLINE, LengthEvidence, judge_anchor, judge_placeholder, judge_sink, label_of
from probes.statistics import equivalence, holm, sign_flip, t_interval

# A test that could not be made does not hold.
UNTESTED = {"present": {"holds": False}, "absent": {"holds": False}}


def verdict(batteries: Battery | Sequence[Battery], margins: Margins = MARGINS) -> Verdict:
    """Return the verdict on one model (over prompts) or on several models of one recipe (over models).

    A role is PRESENT where its simultaneous lower bound exceeds `margins.rho` and its matched control's upper
    bound, ABSENT where the whole interval lies within the margin (TOST), INDETERMINATE otherwise. Over models a
    sign-flip test (beyond the margin and the model's own control) and TOST must also hold after Holm's correction:
    one family of both tests of each role at each length. A length counts where the whole interval of step accuracy is
    above the gate. Over these lengths a role has the status that it has at each of them, or is INDETERMINATE.

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
    mode = _competent(measured.accuracy, margins)
    refusal = measured.refusal
    if mode is None:
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
    roles, unexplained = close(at, _agree_with_removal(at, roles))
    return label_of(roles, unexplained), roles, unexplained


def _agree_with_removal(at: LengthEvidence, roles: dict[str, RoleFinding]) -> dict[str, RoleFinding]:
    """Return the roles; where all are ABSENT, with statuses that agree with what is lost when labels are removed."""
    if label_of(roles) != "unused":
        return roles
    # A head that counts tokens by its denominator may need labels that are otherwise unused: it does not count here.
    removals = [e for key in (keys.NULL_ALL, keys.MEAN_ALL) if (e := at.find(key)) is not None]
    hurting = [e for e in removals if e.value.at(at.level).low > at.margins.accuracy]
    if hurting:
        reason = f"no role is present, yet removing labels loses {hurting[0].value} of accuracy"
        return {
            name: replace(r, status=Status.UNRESOLVED, reason=reason) if r.status is Status.ABSENT else r
            for name, r in roles.items()
        }
    margin_held = at.find(keys.MARGIN_HELD)
    if margin_held is not None and margin_held.value.at(at.level).low > at.margins.rho:
        reason = f"removing labels keeps the answers, and moves {margin_held.value} of their margin"
        return {**roles, "sink": replace(roles["sink"], status=Status.INDETERMINATE, reason=reason)}
    # Over a few models the interval is wide: a loss that is not shown is not shown to be absent either.
    doubtful = [e for e in removals if e.value.at(at.level).high > at.margins.accuracy] if at.tests else []
    if doubtful:
        reason = f"no role is present, and yet removing labels may lose {doubtful[0].value} of accuracy"
        return {**roles, "sink": replace(roles["sink"], status=Status.INDETERMINATE, reason=reason)}
    return roles


def _over_lengths(role: str, findings: Sequence[LengthFinding], independent: bool) -> RoleFinding:
    """Return one finding for all lengths at which the model is competent; rho is the mean over them."""
    counted = [f for f in findings if f.mode is not None]
    if not counted:
        return findings[0].roles[role]
    parts = [f.roles[role] for f in counted]
    statuses = {p.status for p in parts}
    rho, control = (_mean([getattr(p, name) for p in parts], independent) for name in ("rho", "control"))
    if len(statuses) == 1:
        reason = (
            parts[0].reason
            if len(parts) == 1
            else "; ".join(f"length {f.length}: {p.reason}" for f, p in zip(counted, parts, strict=True))
        )
        return RoleFinding(statuses.pop(), reason, rho, control)
    reason = "; ".join(f"length {f.length}: {p.status}, {p.reason}" for f, p in zip(counted, parts, strict=True))
    worst = Status.UNRESOLVED if Status.UNRESOLVED in statuses else Status.INDETERMINATE
    return RoleFinding(worst, reason, rho, control)


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


def _competent(accuracy: Sequence[Accuracy], margins: Margins) -> str | None:
    """Return the mode whose whole interval of step accuracy is above the gate, "written" first; None without one."""
    modes = [a.mode for a in accuracy if a.metric == "step" and a.estimate.low >= margins.competence]
    return "written" if "written" in modes else modes[0] if modes else None


def _over_models(several: Sequence[Battery], margins: Margins) -> list[LengthFinding]:
    """Return the findings at each length over models, with Holm's correction over roles, lengths and both tests."""
    pooled: list[tuple[Measured, int]] = []
    for at_length in zip(*(b.measured for b in several), strict=True):
        competent = [m for m in at_length if not m.refusal and _competent(m.accuracy, margins) and m.evidence]
        pooled.append((_pool(competent, at_length), len(competent)))
    p_values: dict[tuple[int, str, str], float] = {}
    for k, (measured, count) in enumerate(pooled):
        for role in ROLES:
            e = find_evidence(measured.evidence, HEADLINE[role])
            if count >= 2 and e is not None:
                values, controls = e.details["models"], e.details["controls"]
                bounds = [margins.rho if c is None else max(c, margins.rho) for c in controls]
                p_values[k, role, "present"] = sign_flip([v - b for v, b in zip(values, bounds, strict=True)])
                p_values[k, role, "absent"] = equivalence(values, margins.rho)
    adjusted = holm(p_values, margins.alpha)
    findings = []
    for k, (measured, count) in enumerate(pooled):
        tests = {
            role: {
                test: {"p": p_values[key], "holm": adjusted[key][0], "holds": adjusted[key][1]}
                for test in UNTESTED
                if (key := (k, role, test)) in p_values
            }
            for role in ROLES
            if (k, role, "present") in p_values
        }
        holds = {role: {test: bool(t["holds"]) for test, t in tests.get(role, UNTESTED).items()} for role in ROLES}
        finding = _at_length(measured, margins, 1 - margins.alpha / (len(ROLES) * len(pooled)), holds)
        some = finding.mode is not None and count < len(several)
        note = f" ({count} of {len(several)} models are competent and count)" if some else ""
        roles = {n: replace(r, reason=r.reason + note, tests=tests.get(n)) for n, r in finding.roles.items()}
        findings.append(replace(finding, roles=roles))
    return findings


def _pool(competent: Sequence[Measured], everyone: Sequence[Measured]) -> Measured:
    """Return the evidence of several models as t intervals on their means; with fewer than two, the reason for none."""
    accuracy = tuple(a for m in competent or everyone for a in m.accuracy)
    length, reasons = everyone[0].length, [m.refusal for m in everyone if m.refusal]
    if len(competent) < 2:
        reason = reasons[0] if reasons else f"{len(competent)} of {len(everyone)} models are competent; 2 are needed"
        return Measured(length, accuracy, (), reason, left_out=everyone[0].left_out)
    means = [_mean_over_models(first.key, competent) for first in competent[0].evidence]
    return Measured(
        length=length,
        accuracy=accuracy,
        evidence=tuple(e for e in means if e is not None),
        no_address=competent[0].no_address,
        left_out=competent[0].left_out,
    )


def _mean_over_models(key: EvidenceKey, models: Sequence[Measured]) -> Evidence | None:
    """Return one piece of evidence over models; None where a model lacks it or has no finite value for it."""
    pieces = [e for m in models if (e := find_evidence(m.evidence, key)) is not None and math.isfinite(e.value.value)]
    if len(pieces) < len(models):
        return None  # some models give no occasion for an arm such as M10, or a description is undefined in them
    values, controls = [e.value.value for e in pieces], [e.control.value if e.control else None for e in pieces]
    if any(c is not None for c in controls):
        # A model without a measured control counts as if its control were as large as its effect.
        controls = [v if c is None else c for v, c in zip(values, controls, strict=True)]
    return replace(
        pieces[0],
        value=t_interval(values),
        control=None if None in controls else t_interval([c for c in controls if c is not None]),
        n=len(pieces),
        unit=MODELS,
        details={"models": values, "controls": controls},
    )
