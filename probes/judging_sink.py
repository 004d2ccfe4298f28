"""The rules that decide the sink at one length: on answers and on margins, by head and by kind of query.

M6 tests whole heads that carry nothing by ablation. Presence tests cells, a head and a kind of query, that carry
nothing by interchange, and closes what M6 decides (probes/README.md, Decision).
"""

from __future__ import annotations

from dataclasses import replace

from probes import keys
from probes.evidence import Evidence
from probes.judging import HEADLINE, LengthEvidence, hold_absent, judge_by_headline
from probes.statuses import OnMargins, RoleFinding, Status

# The name of the sink's tests on margins over models.
ON_MARGINS = "sink on margins"
# Labels are counted where losing half of them costs more than this share of what losing all of them costs.
COUNTED = 0.5
# What is said of an effect of the number of labels: "labels are counted".
BY_NUMBER = "how many labels there are matters, which none of the three roles explains"
# How the removals from the cells of one kind of query are named.
ONE_KIND = "renormalise, "


def judge_sink(at: LengthEvidence) -> RoleFinding:
    """Decide by M6 in idle heads; also absent where removing labels from every head loses nothing."""
    everywhere = at.find(keys.RENORMALISE_ALL)
    if at.find(HEADLINE["sink"]) is not None:
        finding = judge_by_headline(at, "sink")
        if finding.status is not Status.INDETERMINATE:
            return finding
    elif everywhere is not None:
        reason = "in every head labels carry something: a sink would not show"
        finding = RoleFinding(Status.INDETERMINATE, reason)
    else:
        finding = RoleFinding(Status.INDETERMINATE, "M6 was not measured")
    if everywhere is not None and "sink" not in at.tests and _loses_nothing_everywhere(at):
        reason = f"removing labels from every head loses {everywhere.value} of accuracy"
        return replace(finding, status=Status.ABSENT, reason=reason)
    return finding


def close_sink(at: LengthEvidence, finding: RoleFinding) -> RoleFinding:
    """Return the finding in view of the largest presence effect and of what heads that carry something lose.

    ABSENT needs the largest effect and its control within the margin. PRESENT needs an effect that a key of equal
    score without information repairs, and that is not one of the number of labels. An effect that neither explains
    is UNRESOLVED. Presence is measured where labels carry nothing. A head that reads labels in some prompts and rests
    on them in others carries something: what is lost to other keys at answers that labels do not inform shows it. Nor
    is a sink ABSENT where all heads lose accuracy to other keys that share the attention, beyond what is lost where it
    reads zero.
    """
    closed = _close_by_answer(at, _close_by_presence(at, finding))
    if closed.status is not Status.ABSENT:
        return closed
    shared = at.find(keys.DENOMINATOR)
    if shared is None or shared.value.at(at.level).low <= at.margins.accuracy:
        return closed
    reason = f"removing labels from every head loses {shared.value} more of accuracy where other keys share their "
    reason += "attention than where it reads zero, and no arm explains this: heads that read labels may rest on them "
    reason += f"too; {closed.reason}"
    return replace(closed, status=Status.UNRESOLVED, reason=reason)


def _close_by_answer(at: LengthEvidence, finding: RoleFinding) -> RoleFinding:
    """Return the finding in view of the answers that labels do not inform, and that are lost to other keys."""
    wanted = (keys.UNINFORMED, keys.UNINFORMED_CONSTANT, keys.UNINFORMED_TWICE)
    e, constant, twice = (at.find(key) for key in wanted)
    if e is None or finding.status in (Status.PRESENT, Status.UNRESOLVED):
        return finding
    if not at.is_present(e):
        if finding.status is Status.ABSENT and constant is not None and at.is_present(constant):
            reason = "presence: at answers that labels do not inform, a key of equal score with the average value of "
            reason += f"labels restores {constant.value} of the accuracy above chance, and one that reads zero does not"
            return _unresolved(constant, f"{reason}; {finding.reason}")
        return finding
    where = f"presence: at answers that labels do not inform, {e.value} of the accuracy above chance is lost where "
    where += "other keys share the attention on labels, beyond what is lost where it reads zero"
    if twice is None or at.is_present(twice):
        lost = "" if twice is None else f"; letting each label count twice loses {twice.value}: {BY_NUMBER}"
        return _unresolved(e, f"{where}{lost}")
    if at.tests or _loses_nothing_everywhere(at):
        return _unresolved(e, f"{where}; yet {finding.reason}")
    return RoleFinding(Status.PRESENT, f"{where}; {finding.reason}", e.value, e.control)


def _close_by_presence(at: LengthEvidence, finding: RoleFinding) -> RoleFinding:
    """Return the finding in view of the largest presence effect; unchanged where that was not measured."""
    largest = at.find(keys.LARGEST_PRESENCE)
    if largest is None:
        return _close_without_cells(at, finding)
    if at.is_present(largest):
        return _close_effect(at, finding, largest)
    if finding.status is Status.PRESENT:
        reason = "labels carry something, by interchange, in the heads that M6 counts as idle; removing them where "
        reason += f"they carry nothing loses {largest.value}"
        status = Status.UNRESOLVED if at.is_absent(largest) else Status.INDETERMINATE
        return replace(finding, status=status, reason=reason)
    if finding.status is not Status.ABSENT:
        return finding
    return hold_absent(at, finding, "presence", largest, f"loses {largest.control}")


def _close_without_cells(at: LengthEvidence, finding: RoleFinding) -> RoleFinding:
    """Return the finding where no head carries nothing from labels, for any kind of query: M6 counts none as idle then.

    ABSENT is held against the answers that labels do not inform. Unchanged where presence was not measured.
    """
    by_answer = at.find(keys.UNINFORMED)
    if by_answer is None or finding.status not in (Status.PRESENT, Status.ABSENT):
        return finding
    if finding.status is Status.ABSENT:
        return hold_absent(at, finding, "presence", by_answer, f"loses {by_answer.control}")
    reason = "labels carry something, by interchange, in every head and for every kind of query, also where M6 counts "
    return replace(finding, status=Status.UNRESOLVED, reason=f"{reason}heads as idle; {finding.reason}")


def _close_effect(at: LengthEvidence, finding: RoleFinding, largest: Evidence) -> RoleFinding:
    """Return the finding where removing labels loses answers although they carry nothing there."""
    wanted = (keys.PRESENCE_REPAIRED, keys.PRESENCE_NUMBER, keys.PRESENCE_TWICE)
    repaired, number, twice = (at.find(key) for key in wanted)
    where = f"presence: without attention to labels, {_queries(at, largest)}, {largest.value} of the accuracy above "
    where += "chance is lost, although labels carry nothing there"
    if repaired is None or not at.is_present(repaired):
        reason = f"presence matters in a way that no arm explains: share {largest.value}; {finding.reason}"
        return _unresolved(largest, reason)
    if number is not None and number.value.at(at.level).low > max(at.margins.rho, COUNTED * repaired.value.value):
        reason = f"{where}; removing half of them loses {number.value}: {BY_NUMBER}"
        return _unresolved(largest, reason)
    if twice is not None and at.is_present(twice):
        reason = f"{where}; letting each of them count twice in the attention loses {twice.value}: {BY_NUMBER}"
        return _unresolved(largest, reason)
    if finding.status is Status.PRESENT:
        return replace(finding, reason=f"{finding.reason}; {where}")
    if at.tests or _loses_nothing_everywhere(at):
        return _unresolved(largest, f"{where}; yet {finding.reason}")
    reason = f"{where}; a key of equal score restores {repaired.value}"
    return RoleFinding(Status.PRESENT, reason, repaired.value, repaired.control)


def _loses_nothing_everywhere(at: LengthEvidence) -> bool:
    """Return whether removing labels from every head loses no accuracy; False where that was not measured."""
    everywhere = at.find(keys.RENORMALISE_ALL)
    return everywhere is not None and at.loses_nothing(everywhere)


def _unresolved(largest: Evidence, reason: str) -> RoleFinding:
    """Return the sink as UNRESOLVED by the largest presence effect, which is its effect then."""
    return RoleFinding(Status.UNRESOLVED, reason, largest.value, largest.control)


def _queries(at: LengthEvidence, largest: Evidence) -> str:
    """Return at which kinds of query the effect is, as words."""
    lost = largest.details.get("answers lost", {})
    single = {name.removeprefix(ONE_KIND): share for name, share in lost.items() if name.startswith(ONE_KIND)}
    kinds = [kind for kind, share in single.items() if share > at.margins.rho]
    return f"from {' and '.join(kinds)}" if kinds else "in some heads"


def margin_evidence(at: LengthEvidence) -> Evidence | None:
    """Return what decides the sink on margins: presence by cell, or where that is missing, M6 in idle heads."""
    return at.find(keys.PRESENCE_MARGIN) or at.find(keys.MARGIN_HELD)


def judge_on_margins(at: LengthEvidence) -> OnMargins | None:
    """Decide the sink on margins: what removing labels moves of them where labels carry nothing. None: not measured."""
    e, held = margin_evidence(at), at.find(keys.MARGIN_HELD)
    if e is None:
        return None
    shown = [x for x in (e, held) if x is not None]
    text = f"{e.arm} {e.name}: {e.value}"
    repaired = at.find(keys.PRESENCE_MARGIN_REPAIRED)
    restored = repaired is None or e is held or at.is_present(repaired)
    if at.is_present(e) and restored and at.test_holds(ON_MARGINS, "present"):
        return OnMargins(Status.PRESENT, f"{text}, more than {at.margins.rho} and than its control", e.value, e.control)
    absent = all(at.is_absent(x) for x in shown) and not at.control_moves(e)
    if absent and at.test_holds(ON_MARGINS, "absent"):
        return OnMargins(Status.ABSENT, f"{text} lies within +-{at.margins.rho}", e.value, e.control)
    if repaired is not None and not restored and at.is_present(e):
        reason = f"{text}, of which a key of equal score restores {repaired.value}: this is not shown to be a sink"
        return OnMargins(Status.INDETERMINATE, reason, e.value, e.control)
    text = f"{e.arm} {e.name}: {at.together(e)} shows neither presence nor absence"
    return OnMargins(Status.INDETERMINATE, text, e.value, e.control)
