"""Sentences of a report on lists or recall: the verdict in short, its statuses, and what its numbers need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.reporting.rows import estimate

# Share of attention from which a head attends mostly to a token.
MOSTLY = 0.5
ABOUT = (
    "The prompt shows a list and asks for one of its items. A model can find the item by its **own label** (the token "
    "before it), by the **order** (it follows the item that was written last), or by its **position** in the list. "
    "Each address is tested by an edit that changes where it leads and leaves the others as they are."
)
STATUSES = (
    "**PRESENT**: the share of an arm, and its excess over the matched control, are above {limit:g}. **ABSENT**: all "
    "arms of the address and their controls are within ±{limit:g}. **INDETERMINATE**: neither. The matched control is "
    "the same edit on items that the answer does not depend on, or toward a third item. Intervals are t intervals over "
    "{prompts} prompts; all of them hold together with 95 %. An address has up to three arms, and one that decides is "
    "enough, but for the own label: a query's label that was learned as an index moves the answer too, so the trade in "
    "the list must decide. The summary has the edit in the list, or of the whole item."
)


def in_short(name: str, found: dict[str, Any]) -> str:
    """Return the verdict in two sentences.

    >>> in_short("m", {"verdict": "not applicable", "refusal": "the model gives ...", "task": "recall", "items": 6})
    '`m` is **not judged** on recall with 6 items: the model gives ...'
    """
    what = f"{found['task']} with {found['items']} items"
    if found["refusal"] is not None:
        return f"`{name}` is **not judged** on {what}: {found['refusal']}"
    words = {"undecided": "the evidence does not decide", "unresolved": "none of the three addresses explains it"}
    words["not applicable"] = "no address could be tested"
    said = words.get(found["verdict"], f"it finds the item by **{found['verdict']}**")
    shares = [
        f"{address} {found['addresses'][address]['status']} ({_with_control(share)})"
        for address, arm in (("own label", "label at list"), ("order", "order"), ("position", "position"))
        if (share := found["shares"].get(arm))
    ]
    joint, rest = found["shares"].get("joint"), found["remainder"]
    left = f" All three together: {_with_control(joint)}." if joint else ""
    left += " The control is what such edits move anyway." if joint else ""
    left += f" The remainder, 1 minus the share of all three, is {rest['value']:.2f}." if rest else ""
    left += f" {renamed}" if (renamed := renaming_check(found["shares"], short=True)) else ""
    sinks = [sink for sink, decided in found["sinks"].items() if decided["status"] == "PRESENT"]
    sink = f" Sinks: {', '.join(sinks)}." if sinks else ""
    accuracy = f"{found['accuracy']['value']:.2f} of {found['posed']}"
    return (
        f"On {what}, `{name}` gives the right value in {accuracy} prompts; {said}. Share of the answer's change "
        f"by each address, beside its matched control: {', '.join(shares)}.{left}{sink}"
    )


def _with_control(share: dict[str, Any]) -> str:
    """Return a share and its control as text, such as "0.86, control 0.57"."""
    return f"{share['value']['value']:.2f}, control {share['control']['value']:.2f}"


def renaming_check(shares: dict[str, Any], short: bool = False) -> str:
    """Return what a renaming in list and query moves, which should be nothing; "" where it moves nothing.

    >>> renaming_check({"label at both": {"value": {"value": 0.01, "low": -0.1, "high": 0.1}, "control": None}})
    ''
    """
    share = shares.get("label at both")
    if share is None or share["value"]["low"] is None or share["value"]["low"] <= 0:
        return ""
    if short:
        return f"A renaming of labels, which leads nowhere else, moves {share['value']['value']:.2f}."
    return (
        f"The check `label at both` should move nothing, and moves {estimate(share['value'])} (control "
        f"{estimate(share['control'])}). Renaming labels moves the answer by that much without a change of address, so "
        "read each share beside its control."
    )


def negative_heads(rows: Sequence[dict[str, Any]]) -> str:
    """Return which heads attend mostly to the value asked for and yet work against it; "" for none."""
    against = [row for row in rows if row["change"] < 0 and row["value asked for"] > MOSTLY]
    if not against:
        return ""
    named, ending = ", ".join(f"L{row['layer']}H{row['head']}" for row in against), "s" * (len(against) == 1)
    return (
        f"**{named}** attend{ending} mostly to the value asked for and work{ending} against it, as negative heads do "
        "(Wang et al. 2023, arXiv 2211.00593)."
    )
