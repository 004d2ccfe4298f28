"""The rules that decide each role at one length from its evidence (probes/README.md, Decision)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from probes import keys
from probes.evidence import Evidence, EvidenceKey, Interval, find_evidence
from probes.findings import Margins
from probes.statuses import RoleFinding, Status

NOTHING: Mapping[str, str] = MappingProxyType({})
# The evidence whose value is each role's rho.
HEADLINE = {"anchor": keys.EITHER_SIDE, "placeholder": keys.HISTORY_V, "sink": keys.SINK}


@dataclass(frozen=True)
class LengthEvidence:
    """The evidence at one length, with the thresholds and the level of the intervals that decide.

    `tests` has per role whether the tests "present" and "absent" over models hold after Holm's correction; it is empty
    for one model.
    """

    evidence: tuple[Evidence, ...]
    margins: Margins
    level: float
    tests: dict[str, dict[str, bool]]

    def find(self, key: EvidenceKey) -> Evidence | None:
        """Return a piece of evidence; None where it was not measured."""
        return find_evidence(self.evidence, key)

    def is_present(self, e: Evidence) -> bool:
        """Return whether the interval lies above the margin and above the control's upper bound."""
        bound = self.margins.rho
        if e.control is not None:
            bound = max(bound, e.control.at(self.level).high)
        return e.value.at(self.level).low > bound

    def is_absent(self, e: Evidence) -> bool:
        """Return whether the interval lies within the margin (TOST). `control_moves` tests the control."""
        return self._is_within_margin(e.value)

    def control_moves(self, e: Evidence) -> bool:
        """Return whether the control's interval is not within the margin. No role is ABSENT by such evidence."""
        return e.control is not None and not self._is_within_margin(e.control)

    def _is_within_margin(self, interval: Interval) -> bool:
        at_level = interval.at(self.level)
        return -self.margins.rho < at_level.low and at_level.high < self.margins.rho

    def checked(self) -> Evidence | None:
        """Return what a swap moves where both labels lead to the same answer, if that is shown; else None.

        An address predicts no change there: labels are checked rather than followed.
        """
        same = self.find(keys.SAME_UNDER_BOTH)
        return same if same is not None and same.value.at(self.level).low > self.margins.rho else None

    def loses_nothing(self, e: Evidence) -> bool:
        """Return whether a loss of accuracy lies within its margin."""
        lost = e.value.at(self.level)
        return -self.margins.accuracy < lost.low and lost.high < self.margins.accuracy

    def together(self, e: Evidence) -> str:
        """Return a value with the interval that decides, which holds together with the others of the verdict."""
        return f"{e.value.at(self.level)} (interval simultaneous with the verdict's others)"

    def test_holds(self, role: str, test: str) -> bool:
        """Return whether a test over models holds for a role; True for one model, which has no such tests."""
        return self.tests.get(role, {}).get(test, True)


def judge_by_headline(at: LengthEvidence, role: str) -> RoleFinding:
    """Decide a role by its headline evidence alone: present, absent, neither, or unresolved where the control moves."""
    e = at.find(HEADLINE[role])
    if e is None:
        return RoleFinding(Status.INDETERMINATE, f"{HEADLINE[role].arm} was not measured")
    margin = at.margins.rho
    if at.is_present(e) and at.test_holds(role, "present"):
        reason = f"{e.arm}: {e.value}, more than {margin} and than its control"
        return RoleFinding(Status.PRESENT, reason, e.value, e.control)
    if at.test_holds(role, "absent") if role in at.tests else at.is_absent(e):
        reason = f"{e.arm}: {e.value} lies within +-{margin}"
        finding = RoleFinding(Status.ABSENT, reason, e.value, e.control)
        # The sink's control removes digits from the heads that need labels. Such heads may rest on digits instead, so
        # this loses answers without being a fault of the arm. The control of presence should change nothing.
        return finding if role == "sink" else _unless_control_moves(at, e, finding)
    reason = f"{e.arm}: {at.together(e)} shows neither presence nor absence"
    if at.is_present(e):
        reason = f"{e.arm}: {e.value}, more than {margin} and than its control; but the sign-flip test "
        reason += f"over {e.n} models, whose least p is {2.0**-e.n:.2g}, does not hold after Holm's correction"
    elif e.control is not None and e.value.at(at.level).low > margin:
        reason = f"{e.arm}: {at.together(e)} is not more than its control, {e.control.at(at.level)}"
    return RoleFinding(Status.INDETERMINATE, reason, e.value, e.control)


def _unless_control_moves(at: LengthEvidence, e: Evidence, finding: RoleFinding) -> RoleFinding:
    """Return an ABSENT finding; UNRESOLVED where the evidence's control, which should change nothing, does."""
    if not at.control_moves(e):
        return finding
    reason = f"{e.arm} {e.name}: {e.value}, yet its control, which should change nothing, moves {e.control}"
    return replace(finding, status=Status.UNRESOLVED, reason=reason)


# The further ways in which labels can hold what the answer uses, in the order in which they name a placeholder.
STORED = {
    keys.HISTORY_K: "earlier bits, through K",
    keys.STEP_BIT_V: "the step's own bit, through V",
    keys.STEP_BIT_K: "the step's own bit, through K",
}


def judge_placeholder(at: LengthEvidence) -> RoleFinding:
    """Decide by M5 through values; where that shows nothing, through keys, or by a copy of the step's own bit.

    Attention to a position can carry a result too. ABSENT needs every one of them. Over models, whose tests are of
    values, the other ways leave the role UNRESOLVED.
    """
    by_value = judge_by_headline(at, "placeholder")
    if by_value.status is Status.PRESENT or at.find(HEADLINE["placeholder"]) is None:
        return by_value
    others = {key: e for key in STORED if (e := at.find(key)) is not None}
    for key, e in others.items():
        if at.is_present(e):
            reason = f"labels hold {STORED[key]}: {e.value}, more than {at.margins.rho} and than its control"
            if at.tests:  # over models only V is tested with Holm's correction
                reason += ", which no test over models covers"
            status = Status.UNRESOLVED if at.tests else Status.PRESENT
            return RoleFinding(status, f"{reason}; {by_value.reason}", e.value, e.control, by=STORED[key])
    if by_value.status is not Status.ABSENT:
        return by_value
    for key, e in others.items():
        if not at.is_absent(e):
            reason = f"M5, earlier bits, through V: {by_value.rho} lies within +-{at.margins.rho}; "
            reason += f"{STORED[key]}: {at.together(e)} shows neither presence nor absence"
            return replace(by_value, status=Status.INDETERMINATE, reason=reason, rho=e.value, control=e.control)
    for e in others.values():
        if at.control_moves(e):
            return _unless_control_moves(at, e, by_value)
    return by_value


def judge_anchor(at: LengthEvidence) -> RoleFinding:
    """Decide by the mean of M1 and M2, and require that M3 (renaming) and M4 (attention) agree."""
    finding = judge_by_headline(at, "anchor")
    inputs, outputs = at.find(keys.SWAP_INPUTS), at.find(keys.SWAP_OUTPUTS)
    attention, rename = at.find(keys.ATTENTION), at.find(keys.RENAME)
    if inputs is None or outputs is None or attention is None:
        return replace(finding, status=Status.INDETERMINATE, reason="M1, M2 or M4 was not measured")
    if (same := at.checked()) is not None:
        reason = f"labels are checked rather than followed: a swap moves {same.value} of the margin where both labels "
        reason += "lead to the same answer"
        return replace(finding, status=Status.UNRESOLVED, reason=reason)
    sides = (inputs, outputs)
    present, absent = [at.is_present(s) for s in sides], [at.is_absent(s) for s in sides]
    if any(present) and any(absent):
        only = sides[present.index(True)]
        return replace(finding, status=Status.UNRESOLVED, reason=f"only {only.arm} moves the answer: {only.value}")
    swaps = f"M1 {inputs.value}, M2 {outputs.value}"
    match finding.status:
        case Status.PRESENT if at.is_absent(attention):
            reason = f"the answer follows the label, and attention does not carry it (M4: {attention.value})"
            return replace(finding, status=Status.UNRESOLVED, reason=reason)
        case Status.PRESENT if not (all(present) and at.is_present(attention)):
            reason = f"not every arm shows presence: {swaps}, M4 {attention.value}"
            return replace(finding, status=Status.INDETERMINATE, reason=reason)
        case Status.PRESENT if rename is not None and not at.is_absent(rename):
            reason = f"renaming alone moves {rename.value} of the margin, so names may matter in themselves"
            return replace(finding, status=Status.INDETERMINATE, reason=reason)
        case Status.PRESENT:
            return replace(finding, reason=f"{swaps}, through attention (M4 {attention.value}), beyond their controls")
        case Status.ABSENT if at.is_present(attention):
            reason = f"attention of a swap moves the answer (M4: {attention.value}), the swap itself does not"
            return replace(finding, status=Status.UNRESOLVED, reason=reason)
        case Status.ABSENT if not all(absent):
            reason = f"one side is not shown to be without effect: {swaps}"
            return replace(finding, status=Status.INDETERMINATE, reason=reason)
        case Status.ABSENT:
            for e in (inputs, outputs, attention):
                if at.control_moves(e):
                    return _unless_control_moves(at, e, finding)
    return finding


def label_of(roles: dict[str, RoleFinding], unexplained: Mapping[str, str] = NOTHING) -> str:
    """Return the label that follows from the roles, and from what roles that are PRESENT leave unexplained.

    "not-applicable" without a role that could be tested; "unresolved" where arms contradict each other or leave
    something unexplained; "undecided" where a role is not settled; the role, or "mixed(...)" of several; "unused" where
    all are absent.
    """
    applicable = {name: r.status for name, r in roles.items() if r.status is not Status.NOT_APPLICABLE}
    present = [name for name, status in applicable.items() if status is Status.PRESENT]
    if not applicable:
        return "not-applicable"
    if Status.UNRESOLVED in applicable.values() or unexplained:
        return "unresolved"
    if Status.INDETERMINATE in applicable.values():
        return "undecided"
    if len(present) > 1:
        return f"mixed({', '.join(present)})"
    return present[0] if present else "unused"


def hold_absent(at: LengthEvidence, finding: RoleFinding, name: str, largest: Evidence, moved: str) -> RoleFinding:
    """Return a finding that is ABSENT, in view of the largest effect of its variable.

    It is UNRESOLVED where that effect's control is not within the margin, and INDETERMINATE where the effect itself is
    not. `moved` says what the control did: "loses .2".
    """
    if at.control_moves(largest):
        reason = f"the control of the largest {name} effect {moved}"
        return replace(finding, status=Status.UNRESOLVED, reason=reason)
    if not at.is_absent(largest):
        reason = f"the largest {name} effect, {at.together(largest)}, is not within the margin; {finding.reason}"
        return replace(finding, status=Status.INDETERMINATE, reason=reason)
    return finding
