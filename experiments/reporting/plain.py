"""The verdict in plain words: what was done to labels, and what happened to the answers."""

from __future__ import annotations

from experiments.reporting.rows import estimate, size_of
from probes import keys
from probes.arms.naming import arm_title, with_arm_names
from probes.evidence import EvidenceKey, find_rows
from probes.judging_sink import BY_NUMBER

TESTED = {
    "anchor": "two labels trade places",
    "placeholder": "what the model has stored at labels is taken from a prompt with other bits",
    "sink": "attention to labels is removed in heads whose output does not depend on what labels contain",
}
HAPPENED = {
    ("anchor", "PRESENT"): "the answer follows the label",
    ("anchor", "ABSENT"): "the answer stays as it is",
    ("placeholder", "PRESENT"): "the answer follows what is stored",
    ("placeholder", "ABSENT"): "the answer stays as it is",
    ("sink", "PRESENT"): "answers become wrong, and another token that carries nothing restores them",
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
        elif name == "anchor" and (other := _by_other_labels(role)):
            said = other
        else:
            said = f"when {TESTED[name]}, {HAPPENED.get((name, status)) or OPEN.get(status, UNCLEAR)}"
        more = _on_margins(role)
        answer = "not for answers" if more else SAYS.get(status, status)
        if name == "sink" and status in OPEN:
            more = _whole_heads(data)
        lines.append(f"**{name.capitalize()}, {answer}:** {said}.{more}")
    return [*lines, *filter(None, [remainder(data)])]


def _by_other_labels(role: dict) -> str:
    """Return what an anchor does that is PRESENT by other labels than the step's own, or by two; "" elsewhere.

    >>> _by_other_labels({"by": "the label before", "rho": 0.81})
    'when the label before trades places with that of another step, the answer follows it (0.81 of its lead)'
    """
    match role:
        case {"by": str(labels), "rho": float(rho)} if labels:
            several = " and " in labels
            trade, that, them = ("trade", "those", "them") if several else ("trades", "that", "it")
            follows = f"the answer follows {them} ({rho:.2f} of its lead)"
            return f"when {labels} {trade} places with {that} of another step, {follows}"
    return ""


def _on_margins(role: dict) -> str:
    """Return what the sink's removal does to the lead of the right answer, where it leaves the answers as they are."""
    match role:
        case {"status": "ABSENT", "margins": {"status": "PRESENT", "share": float(share)}}:
            return (
                f" Only the lead of the right answer (its logit above the other's) changes: up or down, by {share:.0%} "
                "of its mean size."
            )
    return ""


def _by_number(data: dict) -> str:
    """Return what was lost without labels, with each of them counted twice, and with half of them."""
    removed, twice, half = (
        _largest(data, key) for key in (keys.LARGEST_PRESENCE, keys.PRESENCE_TWICE, keys.PRESENCE_NUMBER)
    )
    limit = data["margins"]["rho"]
    return (
        f"when {TESTED['sink']}, {_percent(removed)} of the accuracy above chance is lost. An ideal sink takes nearly "
        "all the attention of a head and adds nothing, so the number of labels would change little. "
        f"Doubling {_matters(twice, limit)}: if each label counts twice in the attention, {_percent(twice)} of the "
        f"accuracy above chance is lost. Halving {_matters(half, limit)}: if half of the labels are removed and the "
        f"others take their share, {_percent(half)}. None of the three roles explains an effect of their number"
    )


def _largest(data: dict, key: EvidenceKey) -> dict | None:
    """Return the row of this evidence with the largest value over lengths; None where it was not measured."""
    return max(find_rows(data["evidence"], key), key=lambda row: row["value"]["value"], default=None)


def _percent(row: dict | None) -> str:
    return f"{row['value']['value']:.0%}" if row else "an unmeasured share"


def _matters(row: dict | None, limit: float) -> str:
    """Return in words on which side of the limit an effect's interval is.

    >>> _matters({"value": {"value": 0.04, "low": 0.01, "high": 0.07}}, 0.1)
    'does not matter (within the limit of 10%)'
    """
    if row is None:
        return "was not measured"
    low, high = row["value"]["low"], row["value"]["high"]
    if low is not None and low > limit:
        return "matters"
    if low is not None and high is not None and -limit <= low and high <= limit:
        return f"does not matter (within the limit of {limit:.0%})"
    return "may matter (its interval decides neither)"


def _whole_heads(data: dict) -> str:
    """Return what removal from whole heads (M6) says of a sink where its control loses as much; "" elsewhere."""
    row = _largest(data, keys.SINK)
    if row is None or not row["control"]:
        return ""
    low, high = row["value"]["low"], row["control"]["high"]
    if low is None or low <= data["margins"]["rho"] or (high is not None and low > high):
        return ""
    return (
        f" Another test, {arm_title('M6')}, removes labels from whole heads: {_percent(row)} of the accuracy above "
        f"chance is lost, and {row['control']['value']:.0%} where its control removes as many digits from heads that "
        "need labels. The loss is not clearly above that of the control, so this test does not show a sink."
    )


def remainder(data: dict) -> str:
    """Return what the remainder is and what its value means; "" where it was not measured.

    >>> remainder({"remainder": 1.016})[:18]
    '**Remainder: 1.02.'
    """
    value = data.get("remainder")
    if not isinstance(value, float):
        return ""
    means = "Here, a part of it needs labels"
    if value < LITTLE:
        means = "Here, nearly all of it needs labels"
    elif value > 1 - LITTLE:
        means = f"Here, nearly none of the bit's information travels through labels{_needed(data)}"
    rows = find_rows(data.get("evidence", ()), keys.SHARE_REMAINDER)
    measured = "; ".join(f"{estimate(row['value'])} at length {size_of(row['length'])}" for row in rows)
    return (
        f"**Remainder: {value:.2f}.** When the bit that an answer depends on is edited, the lead of the right answer "
        "(its logit above the other's) changes. A part of that change needs labels: where each label stands (address), "
        "what is stored at labels (content), or attention that rests on them (normalisation). The remainder is the "
        "rest. 0: all of it needs labels; 1: none of it (estimates can leave this range). "
        f"{f'By length, with 95 % intervals: {measured}. ' if measured else ''}{means}."
    )


def _needed(data: dict) -> str:
    """Return that the model needs labels, where removing them loses more than the limit and than its control."""
    row = _largest(data, keys.LARGEST_PRESENCE) if "evidence" in data else None
    if row is None or _matters(row, data["margins"]["rho"]) != "matters":
        return ""
    if row["control"] and (row["control"]["high"] is None or row["value"]["low"] <= row["control"]["high"]):
        return ""
    return (
        "; yet the model needs labels to be there: removing attention to them loses up to "
        f"{_percent(row)} of the accuracy above chance"
    )
