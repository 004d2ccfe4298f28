"""The verdict in plain words: what was done to labels, and what happened to the answers."""

from __future__ import annotations

from probes import keys
from probes.arms.naming import with_arm_names
from probes.evidence import EvidenceKey, find_rows
from probes.judging_sink import BY_NUMBER

TESTED = {
    "anchor": "two labels trade places",
    "placeholder": "what the model has stored at labels is taken from a prompt with other bits",
    "sink": "attention to labels is removed where nothing is read from them",
}
HAPPENED = {
    ("anchor", "PRESENT"): "the answer follows the label",
    ("anchor", "ABSENT"): "the answer stays as it is",
    ("placeholder", "PRESENT"): "the answer follows what is stored",
    ("placeholder", "ABSENT"): "the answer stays as it is",
    ("sink", "PRESENT"): "answers are lost, and another token that carries nothing restores them",
    ("sink", "ABSENT"): "the answers stay as they are",
}
SAYS = {"PRESENT": "yes", "ABSENT": "no", "NOT APPLICABLE": "not tested", "INDETERMINATE": "open", "UNRESOLVED": "open"}
# A remainder within this of 0 or 1 counts as these.
LITTLE = 0.1
UNCLEAR = "the effect on the answer is neither clearly there nor clearly none"
OPEN = {"INDETERMINATE": UNCLEAR, "UNRESOLVED": "answers change, but not as this role would change them"}


def plainly(data: dict) -> list[str]:
    """Return one sentence per role, and one on the part of the answer that none of them explains."""
    lines = []
    for name, role in data["roles"].items():
        status = role["status"]
        if status == "NOT APPLICABLE":
            said = with_arm_names(role["reason"] or "no reason is given")
        elif name == "sink" and status == "UNRESOLVED" and BY_NUMBER in (role["reason"] or ""):
            said = _by_number(data)
        else:
            said = f"when {TESTED[name]}, {HAPPENED.get((name, status)) or OPEN.get(status, UNCLEAR)}"
        lines.append(f"**{name.capitalize()}, {SAYS.get(status, status)}:** {said}.{_on_margins(role)}")
    return [*lines, *filter(None, [remainder(data)])]


def _on_margins(role: dict) -> str:
    """Return what the sink's removal does to the lead of the right answer, where it leaves the answers as they are."""
    match role:
        case {"status": "ABSENT", "margins": {"status": "PRESENT", "share": float(share)}}:
            return f" Only the lead of the right answer over the wrong one changes, by {share:.0%} of it."
    return ""


def _by_number(data: dict) -> str:
    """Return what was lost without labels, with half of them, and with each of them counted twice."""
    removed, half, twice = (
        _largest(data, key) for key in (keys.LARGEST_PRESENCE, keys.PRESENCE_NUMBER, keys.PRESENCE_TWICE)
    )
    return (
        f"when {TESTED['sink']}, {removed} of the answers are lost. A sink would not mind how many labels there are. "
        f"Here it matters: if each label counts twice in the attention, {twice} of the answers are lost; if half of "
        f"the labels are removed and the others take their share, {half}. None of the three roles explains that"
    )


def _largest(data: dict, key: EvidenceKey) -> str:
    """Return the largest value of this evidence over lengths, as percent."""
    values = [row["value"]["value"] for row in find_rows(data["evidence"], key)]
    return f"{max(values):.0%}" if values else "an unmeasured share"


def remainder(data: dict) -> str:
    """Return what the remainder is and what its value means; "" where it was not measured.

    >>> remainder({"remainder": 1.016})[:18]
    '**Remainder: 1.02.'
    """
    value = data.get("remainder")
    if not isinstance(value, float):
        return ""
    means = "Here, a part of it goes through labels"
    if not LITTLE <= value <= 1 - LITTLE:
        means = f"Here, nearly {'all' if value < LITTLE else 'none'} of it goes through labels"
    return (
        f"**Remainder: {value:.2f}.** When the bit that an answer depends on is edited, the answer changes. The "
        "remainder is the share of that change that does not go through labels: neither by which label stands where, "
        "nor by what is stored at labels, nor by attention that rests on them. 0: all of it goes through labels; 1: "
        f"none of it (estimates can leave this range). {means}."
    )
