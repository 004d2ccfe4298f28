"""What does the evidence of one length say of each role?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from probes.evidence import Evidence
from probes.findings import Margins, RoleFinding, Status

# The arm whose value is each role's rho.
HEADLINE = {"anchor": ("M1", "either side"), "placeholder": ("M5", "history in V at labels"), "sink": ("M6", "sink")}


@dataclass(frozen=True)
class Judge:
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
            return RoleFinding(
                Status.PRESENT,
                f"{e.arm}: {e.value}, more than {self.margins.rho} and than its control",
                e.value,
                e.control,
            )
        if self.survives(role, "absent") if role in self.tests else self.absent(e):
            reason = f"{e.arm}: {e.value} lies within +-{self.margins.rho}"
            return RoleFinding(Status.ABSENT, reason, e.value, e.control)
        reason = f"{e.arm}: {e.value} shows neither presence nor absence"
        if self.present(e):
            reason = f"{e.arm}: {e.value}, more than {self.margins.rho} and than its control; but the sign-flip test "
            reason += f"over {e.n} models, whose least p is {2.0**-e.n:.2g}, does not hold after Holm's correction"
        elif e.control is not None and e.value.at(self.level).low > self.margins.rho:
            reason = f"{e.arm}: {e.value} is not more than its control, {e.control}"
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
                return replace(
                    found,
                    reason=f"M1 {sides[0].value}, M2 {sides[1].value}, through attention (M4 "
                    f"{attention.value}), beyond their controls",
                )
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


def label_of(roles: dict[str, RoleFinding]) -> str:
    """The label that follows from the roles; see `probes.decision`."""
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
