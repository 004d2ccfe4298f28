"""Which roles do the labels have, and what may be claimed? (science 3)

Evidence of one model is inferred over its prompts, evidence of several models over the models. Each role is
PRESENT, ABSENT, INDETERMINATE or NOT APPLICABLE, and UNRESOLVED where arms contradict each other; a label follows
only where all roles are settled, or where two are there, whatever the third is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from probes.arms import Battery, Measured
from probes.evidence import MODELS, Accuracy, Evidence, Interval
from probes.inference import equivalence, holm, sign_flip, t_interval

SCHEMA = 1
ROLES = ("anchor", "placeholder", "sink")
# The arm whose value is each role's rho.
HEADLINE = {"anchor": ("M1", "either side"), "placeholder": ("M5", "history in V at labels"), "sink": ("M6", "sink")}


@dataclass(frozen=True)
class Margins:
    """Every threshold of the decision, fixed before looking (science 3). Frozen and versioned together."""

    version: str = "2026-11d"
    rho: float = 0.10
    accuracy: float = 0.05
    competence: float = 0.95
    alpha: float = 0.05
    # Intervals that decide at one length: M1, M2, both, and whatever is found, M3, M4, M5 by V and by K, M6 by answer
    # and by margin, and five controls.
    intervals: int = 15

    def to_json(self) -> dict:
        """The thresholds, as they are written beside every finding."""
        return asdict(self)

    def level(self, lengths: int) -> float:
        """Confidence level of each interval so that all that decide, at all lengths, hold at once (Bonferroni)."""
        return 1 - self.alpha / (self.intervals * max(1, lengths))


MARGINS = Margins()


class Status(StrEnum):
    """What is known of a role."""

    PRESENT = "PRESENT"
    ABSENT = "ABSENT"
    INDETERMINATE = "INDETERMINATE"
    NOT_APPLICABLE = "NOT APPLICABLE"
    UNRESOLVED = "UNRESOLVED"


@dataclass(frozen=True)
class RoleFinding:
    """One role: its status and why; rho with a 95 % interval and its matched control, None where not measured."""

    status: Status
    reason: str
    rho: Interval | None = None
    control: Interval | None = None

    def to_json(self) -> dict:
        """A plain dictionary."""
        interval = None if self.rho is None else self.rho.to_json()
        return {
            "status": self.status.value,
            "rho": interval and interval["value"],
            "ci": interval and [interval["low"], interval["high"]],
            "control": None if self.control is None else self.control.to_json(),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class LengthFinding:
    """The roles at one length. `mode` is the way of writing labels in which the model is competent, None if none."""

    length: int | tuple[int, int]
    label: str
    mode: str | None
    roles: dict[str, RoleFinding]
    accuracy: tuple[Accuracy, ...]
    evidence: tuple[Evidence, ...]

    def share(self, name: str) -> Interval | None:
        """A Shapley share, "interaction" or "remainder"; None where it was not measured."""
        return next((e.value for e in self.evidence if e.arm == "shares" and e.name == name), None)

    def to_json(self) -> dict:
        """A nested plain dictionary; evidence is listed apart."""
        shares = {name: s.to_json() for name in (*SHARES, "interaction", "remainder") if (s := self.share(name))}
        return {
            "length": self.length, "verdict": self.label, "mode": self.mode,
            "roles": {name: role.to_json() for name, role in self.roles.items()}, "shares": shares or None,
            "accuracy": [a.to_json() for a in self.accuracy],
        }  # fmt: skip


SHARES = ("address", "content", "normalisation")


@dataclass(frozen=True)
class Verdict:
    """What the labels do: over all lengths at which the model is competent, and length by length."""

    label: str
    roles: dict[str, RoleFinding]
    lengths: tuple[LengthFinding, ...]
    names: tuple[str, ...]
    format: str
    replication: str
    margins: Margins = MARGINS

    @property
    def remainder(self) -> float | None:
        """Share of the margin that no role explains, mean over competent lengths; None where not measured."""
        found = [r.value for f in self.lengths if f.mode and (r := f.share("remainder"))]
        return sum(found) / len(found) if found else None

    @property
    def may_claim(self) -> str:
        """The strongest sentence that this verdict allows."""
        who = "this one model" if self.replication == "prompts" else f"models trained like these {len(self.names)}"
        competent = [str(f.length) for f in self.lengths if f.mode]
        where = f"in {who}, at length {', '.join(competent)}, with labels and earlier answers given"
        match self.label:
            case "not-applicable":
                return f"nothing: {self.lengths[0].roles['anchor'].reason}"
            case "undecided" | "unresolved":
                settled = [f"{r} {f.status}" for r, f in self.roles.items() if f.status in _SETTLED]
                return f"{where}: {'; '.join(settled) or 'no role is settled'}; no label follows"
            case "unused":
                return f"{where}: labels are none of anchor, placeholder and sink, within +-{self.margins.rho} of rho"
            case label:
                return f"{where}: the labels' role is {label}"

    @property
    def may_not_claim(self) -> str:
        """What must not be read into it."""
        limits = ["what other formats' labels do", "what happens at lengths that were not tested"]
        if self.replication == "prompts":
            limits.insert(0, "that models trained from another seed do the same")
        if self.roles["sink"].status is Status.ABSENT:
            limits.append("that heads in which labels carry something do not also rest on them")
        return "; ".join(limits)

    def to_json(self) -> dict:
        """The verdict with its evidence, by schema 1."""
        return {
            "schema": SCHEMA,
            "verdict": self.label,
            "roles": {name: role.to_json() for name, role in self.roles.items()},
            "remainder": self.remainder,
            "competence": {
                "gate": self.margins.competence,
                "lengths": [
                    {"length": f.length, "competent": f.mode is not None, "mode": f.mode,
                     **{f"{a.mode} {a.metric}": a.estimate.value for a in f.accuracy}}
                    for f in self.lengths
                ],
            },
            "evidence": [e.to_json() for f in self.lengths for e in f.evidence],
            "replication": self.replication,
            "n_models": len(self.names),
            "models": list(self.names),
            "format": self.format,
            "may_claim": self.may_claim,
            "may_not_claim": self.may_not_claim,
            "by_length": [f.to_json() for f in self.lengths],
            "margins": self.margins.to_json(),
        }  # fmt: skip


_SETTLED = (Status.PRESENT, Status.ABSENT)


def verdict(batteries: Battery | Sequence[Battery], margins: Margins = MARGINS) -> Verdict:
    """The verdict on one model, over prompts, or on several trained alike, over models.

    A role is PRESENT where its simultaneous lower bound exceeds `margins.rho` and its matched control's upper
    bound, ABSENT where the whole interval lies within the margin (TOST), INDETERMINATE otherwise. Over models the
    sign-flip test and TOST must also hold after Holm's correction over roles and lengths. Lengths at which step
    accuracy is not above the gate by its whole interval do not count. Over the lengths that do, a role has the
    status that it has at each of them, or is INDETERMINATE.

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
    roles = {role: _over_lengths(role, findings) for role in ROLES}
    replication = "prompts" if len(several) == 1 else "models"
    return Verdict(
        _label(roles), roles, tuple(findings), tuple(b.name for b in several), first.format, replication, margins
    )


def _at_length(
    measured: Measured, margins: Margins, level: float, tests: dict[str, dict[str, bool]] | None = None
) -> LengthFinding:  # fmt: skip
    """The finding at one length; `tests` holds for each role whether presence and absence survive Holm."""
    mode = _competent(measured.accuracy, margins)
    refusal = measured.refusal
    if mode is None:
        step = max((a for a in measured.accuracy if a.metric == "step"), key=lambda a: a.estimate.value)
        refusal = f"step accuracy {step.estimate} is not surely above the gate of {margins.competence}"
    if refusal:
        roles = {role: RoleFinding(Status.NOT_APPLICABLE, refusal) for role in ROLES}
        return LengthFinding(
            measured.length, "not-applicable", None, roles, measured.accuracy, measured.evidence
        )
    judge = _Judge(measured.evidence, margins, level, tests or {})
    roles = {
        "anchor": RoleFinding(Status.NOT_APPLICABLE, measured.no_address) if measured.no_address else judge.anchor(),
        "placeholder": judge.placeholder(),
        "sink": judge.sink(),
    }
    held = judge.find("M6", "margin held")
    if _label(roles) == "unused" and held is not None and held.value.at(level).low > margins.rho:
        reason = f"taking labels away leaves the answers, and moves {held.value} of their margin"
        roles["sink"] = replace(roles["sink"], status=Status.INDETERMINATE, reason=reason)
    label = _label(roles)
    # Only what counts by its denominator may miss labels that are used for nothing.
    removals = [judge.find("M6", f"remove labels, all heads: {mode}") for mode in ("null", "mean")]
    hurting = [e for e in removals if e is not None and e.value.at(level).low > margins.accuracy]
    if label == "unused" and hurting:
        reason = f"no role is there, yet removing labels loses {hurting[0].value} of accuracy"
        roles = {
            name: replace(r, status=Status.UNRESOLVED, reason=reason) if r.status is Status.ABSENT else r
            for name, r in roles.items()
        }
        label = "unresolved"
    return LengthFinding(measured.length, label, mode, roles, measured.accuracy, measured.evidence)


@dataclass(frozen=True)
class _Judge:
    """Decides the roles at one length from evidence, at the simultaneous level."""

    evidence: tuple[Evidence, ...]
    margins: Margins
    level: float
    tests: dict[str, dict[str, bool]]

    def find(self, arm: str, name: str) -> Evidence | None:
        return next((e for e in self.evidence if (e.arm, e.name) == (arm, name)), None)

    def present(self, e: Evidence) -> bool:
        bound = self.margins.rho
        if e.control is not None:
            bound = max(bound, e.control.at(self.level).high)
        return e.value.at(self.level).low > bound

    def absent(self, e: Evidence) -> bool:
        found = e.value.at(self.level)
        return -self.margins.rho < found.low and found.high < self.margins.rho

    def survives(self, role: str, test: str) -> bool:
        return self.tests.get(role, {}).get(test, True)

    def simple(self, role: str) -> RoleFinding:
        """Present, absent or neither, by the role's own arm."""
        e = self.find(*HEADLINE[role])
        if e is None:
            return RoleFinding(Status.INDETERMINATE, f"{HEADLINE[role][0]} was not measured")
        if self.present(e) and self.survives(role, "present"):
            return RoleFinding(Status.PRESENT, f"{e.arm}: {e.value}, more than {self.margins.rho} and than its control",
                               e.value, e.control)  # fmt: skip
        if self.survives(role, "absent") if role in self.tests else self.absent(e):
            reason = f"{e.arm}: {e.value} lies within +-{self.margins.rho}"
            return RoleFinding(Status.ABSENT, reason, e.value, e.control)
        reason = f"{e.arm}: {e.value} shows neither presence nor absence"
        return RoleFinding(Status.INDETERMINATE, reason, e.value, e.control)

    def placeholder(self) -> RoleFinding:
        """M5 through values; where those say no, through keys: a result can be read by being attended to."""
        found, keys = self.simple("placeholder"), self.find("M5", "history in K at labels")
        if found.status is not Status.ABSENT or keys is None or self.absent(keys):
            return found
        reason = f"through V {found.rho}, through K {keys.value}"
        if self.present(keys):
            return RoleFinding(Status.PRESENT, f"read by attention: {reason}", keys.value, keys.control)
        return replace(found, status=Status.INDETERMINATE, reason=reason)

    def anchor(self) -> RoleFinding:
        """M1 and M2 together, held against M3 (renaming does nothing) and M4 (attention carries it)."""
        found = self.simple("anchor")
        swaps = [self.find("M1", "swap input labels"), self.find("M2", "swap output labels")]
        attention, rename = self.find("M4", "attention"), self.find("M3", "rename labels")
        if any(s is None for s in swaps) or attention is None:
            return replace(found, status=Status.INDETERMINATE, reason="M1, M2 or M4 was not measured")
        sides = [s for s in swaps if s is not None]
        whatever = self.find("M1", "whatever is found")
        if whatever is not None and whatever.value.at(self.level).low > self.margins.rho:
            reason = f"labels are checked rather than followed: their trade moves {whatever.value} of the margin where "
            reason += "the same is found under both"
            return replace(found, status=Status.UNRESOLVED, reason=reason)
        present, absent = [self.present(s) for s in sides], [self.absent(s) for s in sides]
        if any(present) and any(absent):
            only = sides[present.index(True)]
            return replace(found, status=Status.UNRESOLVED, reason=f"only {only.arm} moves the answer: {only.value}")
        match found.status:
            case Status.PRESENT if self.absent(attention):
                reason = f"the answer follows the label, and attention does not carry it (M4: {attention.value})"
                return replace(found, status=Status.UNRESOLVED, reason=reason)
            case Status.PRESENT if not (all(present) and self.present(attention)):
                reason = f"not every arm is sure: M1 {sides[0].value}, M2 {sides[1].value}, M4 {attention.value}"
                return replace(found, status=Status.INDETERMINATE, reason=reason)
            case Status.PRESENT if rename is not None and not self.absent(rename):
                reason = f"renaming alone moves {rename.value} of the margin, so names may matter in themselves"
                return replace(found, status=Status.INDETERMINATE, reason=reason)
            case Status.PRESENT:
                return replace(found, reason=f"M1 {sides[0].value}, M2 {sides[1].value}, through attention (M4 "
                               f"{attention.value}), beyond their controls")  # fmt: skip
            case Status.ABSENT if self.present(attention):
                reason = f"traded attention moves the answer (M4: {attention.value}), the trade itself does not"
                return replace(found, status=Status.UNRESOLVED, reason=reason)
            case Status.ABSENT if not all(absent):
                reason = f"one side is not surely without effect: M1 {sides[0].value}, M2 {sides[1].value}"
                return replace(found, status=Status.INDETERMINATE, reason=reason)
        return found

    def sink(self) -> RoleFinding:
        """M6 on idle heads; absent, too, where taking labels away from every head loses nothing."""
        everywhere = self.find("M6", "remove labels, all heads: renormalise")
        if self.find(*HEADLINE["sink"]) is not None:
            found = self.simple("sink")
            if found.status is not Status.INDETERMINATE:
                return found
        elif everywhere is not None:
            found = RoleFinding(Status.INDETERMINATE, "in every head labels carry something: a sink would not show")
        else:
            found = RoleFinding(Status.INDETERMINATE, "M6 was not measured")
        if everywhere is not None and "sink" not in self.tests:
            lost = everywhere.value.at(self.level)
            if -self.margins.accuracy < lost.low and lost.high < self.margins.accuracy:
                reason = f"taking labels away from every head loses {everywhere.value} of accuracy"
                return replace(found, status=Status.ABSENT, reason=reason)
        return found


def _over_lengths(role: str, findings: Sequence[LengthFinding]) -> RoleFinding:
    """One status for all lengths at which the model is competent; rho is the mean over them."""
    counted = [f for f in findings if f.mode is not None]
    if not counted:
        return findings[0].roles[role]
    parts = [f.roles[role] for f in counted]
    statuses = {p.status for p in parts}
    rho, control = (_mean([getattr(p, name) for p in parts]) for name in ("rho", "control"))
    if len(statuses) == 1:
        reason = parts[0].reason if len(parts) == 1 else "; ".join(
            f"length {f.length}: {p.reason}" for f, p in zip(counted, parts, strict=True)
        )  # fmt: skip
        return RoleFinding(statuses.pop(), reason, rho, control)
    reason = "; ".join(f"length {f.length}: {p.status}, {p.reason}" for f, p in zip(counted, parts, strict=True))
    worst = Status.UNRESOLVED if Status.UNRESOLVED in statuses else Status.INDETERMINATE
    return RoleFinding(worst, reason, rho, control)


def _mean(intervals: Sequence[Interval | None]) -> Interval | None:
    """The mean of independent estimates; None where one is missing."""
    there = [i for i in intervals if i is not None]
    if not there or len(there) < len(intervals):
        return None
    n = len(there)
    error = math.sqrt(sum((i.error or 0.0) ** 2 for i in there)) / n
    df = min(i.df or 1.0 for i in there)
    value = sum(i.value for i in there) / n
    return Interval(value, value, value, error, df).at(0.95)


def _label(roles: dict[str, RoleFinding]) -> str:
    applicable = {name: r.status for name, r in roles.items() if r.status is not Status.NOT_APPLICABLE}
    there = [name for name, s in applicable.items() if s is Status.PRESENT]
    if not applicable:
        return "not-applicable"
    if Status.UNRESOLVED in applicable.values():
        return "unresolved"
    if len(there) > 1:
        return f"mixed({', '.join(there)})"
    if Status.INDETERMINATE in applicable.values():
        return "undecided"
    return there[0] if there else "unused"


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
    present, absent = {}, {}
    for k, (measured, count) in enumerate(pooled):
        for role in ROLES:
            e = next((e for e in measured.evidence if (e.arm, e.name) == HEADLINE[role]), None)
            if count >= 2 and e is not None:
                values, controls = e.details["models"], e.details["controls"]
                beyond = [v - (c or 0.0) for v, c in zip(values, controls, strict=True)]
                present[f"{k} {role}"] = sign_flip(beyond)
                absent[f"{k} {role}"] = equivalence(values, margins.rho)
    corrected = {"present": holm(present, margins.alpha), "absent": holm(absent, margins.alpha)}
    findings = []
    for k, (measured, count) in enumerate(pooled):
        tests = {
            role: {test: table.get(f"{k} {role}", (1.0, False))[1] for test, table in corrected.items()}
            for role in ROLES
        }
        finding = _at_length(measured, margins, 1 - margins.alpha / (len(ROLES) * len(pooled)), tests)
        if finding.mode is not None and count < len(several):
            note = f" ({count} of {len(several)} models are competent and count)"
            roles = {name: replace(r, reason=r.reason + note) for name, r in finding.roles.items()}
            finding = replace(finding, roles=roles)
        findings.append(finding)
    return findings


def _pool(competent: Sequence[Measured], everyone: Sequence[Measured]) -> Measured:
    """The evidence of several models as t intervals on their means; with fewer than two, why there is none."""
    accuracy = tuple(a for m in competent or everyone for a in m.accuracy)
    length, reasons = everyone[0].length, [m.refusal for m in everyone if m.refusal]
    if len(competent) < 2:
        reason = reasons[0] if reasons else f"{len(competent)} of {len(everyone)} models are competent; 2 are needed"
        return Measured(length, accuracy, (), reason)
    found = []
    for first in competent[0].evidence:
        same = [next((e for e in m.evidence if (e.arm, e.name) == (first.arm, first.name)), None) for m in competent]
        there = [e for e in same if e is not None and math.isfinite(e.value.value)]
        if len(there) < len(competent):
            continue  # some models give no occasion for an arm such as M10, or a description is undefined in them
        values, controls = [e.value.value for e in there], [e.control.value if e.control else None for e in there]
        control = t_interval([c for c in controls if c is not None]) if None not in controls else None
        found.append(
            replace(first, value=t_interval(values), control=control, n=len(there), unit=MODELS,
                    details={"models": values, "controls": controls})
        )  # fmt: skip
    return Measured(length, accuracy, tuple(found), None, competent[0].no_address)
