"""What can be found of the labels, and how is it said?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum

from probes.evidence import Accuracy, Evidence, Interval

SCHEMA = 1
ROLES = ("anchor", "placeholder", "sink")


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
    """One role: its status and why; rho with a 95 % interval and its matched control, None where not measured.

    `tests`, over models alone: for "present" (sign-flip beyond the margin and the control) and "absent" (TOST) the p
    value, the one after Holm's correction over roles, lengths and both tests, and whether it holds.
    """

    status: Status
    reason: str
    rho: Interval | None = None
    control: Interval | None = None
    tests: dict[str, dict[str, float | bool]] | None = None

    def to_json(self) -> dict:
        """A plain dictionary."""
        interval = None if self.rho is None else self.rho.to_json()
        return {
            "status": self.status.value,
            "rho": interval and interval["value"],
            "ci": interval and [interval["low"], interval["high"]],
            "control": None if self.control is None else self.control.to_json(),
            "reason": self.reason,
            **({} if self.tests is None else {"tests": self.tests}),
        }


@dataclass(frozen=True)
class LengthFinding:
    """The roles at one length. `mode` is the way of writing labels in which the model is competent, None if none.

    `left_out`: arms that were asked for and do not apply to the task, each with the reason.
    """

    length: int | tuple[int, int]
    label: str
    mode: str | None
    roles: dict[str, RoleFinding]
    accuracy: tuple[Accuracy, ...]
    evidence: tuple[Evidence, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def share(self, name: str) -> Interval | None:
        """A Shapley share, "interaction" or "remainder"; None where it was not measured."""
        return next((e.value for e in self.evidence if e.arm == "shares" and e.name == name), None)

    def to_json(self) -> dict:
        """A nested plain dictionary; evidence is listed apart."""
        shares = {name: s.to_json() for name in (*SHARES, "interaction", "remainder") if (s := self.share(name))}
        return {
            "length": self.length,
            "verdict": self.label,
            "mode": self.mode,
            "roles": {name: role.to_json() for name, role in self.roles.items()},
            "shares": shares or None,
            "accuracy": [a.to_json() for a in self.accuracy],
            "left_out": self.left_out,
        }


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
            held = [
                (f.length, e.value)
                for f in self.lengths
                if f.mode
                for e in f.evidence
                if (e.arm, e.name) == ("M6", "margin held")
            ]
            limits += [
                f"that the answers' margins at length {length} do not hang on such rest: {value} of them may"
                for length, value in held
                if value.high > self.margins.rho
            ]
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
                    {
                        "length": f.length,
                        "competent": f.mode is not None,
                        "mode": f.mode,
                        **{f"{a.mode} {a.metric}": a.estimate.value for a in f.accuracy},
                    }
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
        }


_SETTLED = (Status.PRESENT, Status.ABSENT)
