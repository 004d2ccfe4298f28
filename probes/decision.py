"""Which roles do the labels have, and what may be claimed? (science 3)

Evidence of one model is inferred over its prompts, evidence of several models over the models. Each role is
PRESENT, ABSENT, INDETERMINATE or NOT APPLICABLE, and UNRESOLVED where arms contradict each other; a label follows
only where all roles are settled, or where two are there, whatever the third is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from probes.batteries import Battery, Measured
from probes.evidence import MODELS, Accuracy, Interval
from probes.findings import MARGINS, ROLES, LengthFinding, Margins, RoleFinding, Status, Verdict
from probes.judging import HEADLINE, Judge, label_of
from probes.statistics import equivalence, holm, sign_flip, t_interval

# What could not be tested does not hold.
UNTESTED = {"present": {"holds": False}, "absent": {"holds": False}}


def verdict(batteries: Battery | Sequence[Battery], margins: Margins = MARGINS) -> Verdict:
    """The verdict on one model, over prompts, or on several trained alike, over models.

    A role is PRESENT where its simultaneous lower bound exceeds `margins.rho` and its matched control's upper
    bound, ABSENT where the whole interval lies within the margin (TOST), INDETERMINATE otherwise. Over models a
    sign-flip test (beyond the margin and the model's own control) and TOST must also hold after Holm's correction:
    one family of both tests of each role at each length. Lengths at which step accuracy is not above the gate by its
    whole interval do not count. Over the lengths that do, a role has the status that it has at each of them, or is
    INDETERMINATE.

    Raises `ValueError` for batteries of different formats or lengths, of one model twice, or for none.
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
    return Verdict(
        label_of(roles), roles, tuple(findings), tuple(b.name for b in several), first.format, replication, margins
    )


def _at_length(
    measured: Measured, margins: Margins, level: float, tests: dict[str, dict[str, bool]] | None = None
) -> LengthFinding:
    """The finding at one length; `tests` holds for each role whether presence and absence survive Holm."""
    mode = _competent(measured.accuracy, margins)
    refusal = measured.refusal
    if mode is None:
        step = max((a for a in measured.accuracy if a.metric == "step"), key=lambda a: a.estimate.value)
        refusal = f"step accuracy {step.estimate} is not surely above the gate of {margins.competence}"
    if refusal:
        roles = {role: RoleFinding(Status.NOT_APPLICABLE, refusal) for role in ROLES}
        return LengthFinding(
            measured.length, "not-applicable", None, roles, measured.accuracy, measured.evidence, measured.left_out
        )
    judge = Judge(measured.evidence, margins, level, tests or {})
    roles = {
        "anchor": RoleFinding(Status.NOT_APPLICABLE, measured.no_address) if measured.no_address else judge.anchor(),
        "placeholder": judge.placeholder(),
        "sink": judge.sink(),
    }
    held = judge.find("M6", "margin held")
    if label_of(roles) == "unused" and held is not None and held.value.at(level).low > margins.rho:
        reason = f"taking labels away leaves the answers, and moves {held.value} of their margin"
        roles["sink"] = replace(roles["sink"], status=Status.INDETERMINATE, reason=reason)
    label = label_of(roles)
    # Only what counts by its denominator may miss labels that are used for nothing.
    removals = [judge.find("M6", f"remove labels, all heads: {mode}") for mode in ("null", "mean")]
    there = [e for e in removals if e is not None]
    hurting = [e for e in there if e.value.at(level).low > margins.accuracy]
    if label == "unused" and hurting:
        reason = f"no role is there, yet removing labels loses {hurting[0].value} of accuracy"
        roles = {
            name: replace(r, status=Status.UNRESOLVED, reason=reason) if r.status is Status.ABSENT else r
            for name, r in roles.items()
        }
        label = "unresolved"
    # Over a few models the interval is wide: that none is shown to be lost does not show that none is.
    doubtful = [e for e in there if e.value.at(level).high > margins.accuracy] if tests is not None else []
    if label == "unused" and doubtful:
        reason = f"no role is there, and yet removing labels may lose {doubtful[0].value} of accuracy"
        roles["sink"] = replace(roles["sink"], status=Status.INDETERMINATE, reason=reason)
        label = "undecided"
    return LengthFinding(measured.length, label, mode, roles, measured.accuracy, measured.evidence, measured.left_out)


def _over_lengths(role: str, findings: Sequence[LengthFinding], independent: bool) -> RoleFinding:
    """One status for all lengths at which the model is competent; rho is the mean over them."""
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
    """The mean of estimates; None where one is missing.

    One model's are independent, of other prompts at each length. Those of several models are of the same models, and
    are taken to err together, which is the most that they can.
    """
    there = [i for i in intervals if i is not None]
    if not there or len(there) < len(intervals):
        return None
    n = len(there)
    errors = [i.error or 0.0 for i in there]
    error = (math.hypot(*errors) if independent else sum(errors)) / n
    df = min(i.df or 1.0 for i in there)
    value = sum(i.value for i in there) / n
    return Interval(value, value, value, error, df).at(0.95)


def _competent(accuracy: Sequence[Accuracy], margins: Margins) -> str | None:
    """The mode whose step accuracy is above the gate by its whole interval; the model's own writing first."""
    modes = [a.mode for a in accuracy if a.metric == "step" and a.estimate.low >= margins.competence]
    return "written" if "written" in modes else modes[0] if modes else None


def _over_models(several: Sequence[Battery], margins: Margins) -> list[LengthFinding]:
    """Each length's evidence as means of models, with Holm's correction over roles and lengths."""
    pooled: list[tuple[Measured, int]] = []
    for at_length in zip(*(b.measured for b in several), strict=True):
        competent = [m for m in at_length if not m.refusal and _competent(m.accuracy, margins) and m.evidence]
        pooled.append((_pool(competent, at_length), len(competent)))
    p_values: dict[tuple[int, str, str], float] = {}
    for k, (measured, count) in enumerate(pooled):
        for role in ROLES:
            e = next((e for e in measured.evidence if (e.arm, e.name) == HEADLINE[role]), None)
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
        held = {role: {test: bool(t["holds"]) for test, t in tests.get(role, UNTESTED).items()} for role in ROLES}
        finding = _at_length(measured, margins, 1 - margins.alpha / (len(ROLES) * len(pooled)), held)
        some = finding.mode is not None and count < len(several)
        note = f" ({count} of {len(several)} models are competent and count)" if some else ""
        roles = {n: replace(r, reason=r.reason + note, tests=tests.get(n)) for n, r in finding.roles.items()}
        findings.append(replace(finding, roles=roles))
    return findings


def _pool(competent: Sequence[Measured], everyone: Sequence[Measured]) -> Measured:
    """The evidence of several models as t intervals on their means; with fewer than two, why there is none."""
    accuracy = tuple(a for m in competent or everyone for a in m.accuracy)
    length, reasons = everyone[0].length, [m.refusal for m in everyone if m.refusal]
    if len(competent) < 2:
        reason = reasons[0] if reasons else f"{len(competent)} of {len(everyone)} models are competent; 2 are needed"
        return Measured(length, accuracy, (), reason, left_out=everyone[0].left_out)
    found = []
    for first in competent[0].evidence:
        same = [next((e for e in m.evidence if (e.arm, e.name) == (first.arm, first.name)), None) for m in competent]
        there = [e for e in same if e is not None and math.isfinite(e.value.value)]
        if len(there) < len(competent):
            continue  # some models give no occasion for an arm such as M10, or a description is undefined in them
        values, controls = [e.value.value for e in there], [e.control.value if e.control else None for e in there]
        if any(c is not None for c in controls):
            # A model whose control was not measured (it shows no occasion for one) can speak for nothing beyond it.
            controls = [v if c is None else c for v, c in zip(values, controls, strict=True)]
        control = None if None in controls else t_interval([c for c in controls if c is not None])
        found.append(
            replace(
                first,
                value=t_interval(values),
                control=control,
                n=len(there),
                unit=MODELS,
                details={"models": values, "controls": controls},
            )
        )
    return Measured(length, accuracy, tuple(found), None, competent[0].no_address, competent[0].left_out)
