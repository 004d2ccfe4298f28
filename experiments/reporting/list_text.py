"""Sentences of a report on lists or recall: the verdict in short, its statuses, and what its numbers need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.reporting.rows import estimate
from experiments.support.list_results import position_arm
from probes.binding.edits import BOTH_LISTED
from probes.binding.text import OVERTAKES

# Share of attention from which a head attends mostly to a token.
MOSTLY = 0.5
ABOUT = (
    "The prompt shows a list and asks for one of its items. A model can find the item by its **own label** (the one "
    "in front of it), by the **order** (it comes after the item that was just copied), or by its **position** in the "
    "list. Each address is tested by an edit that changes where it leads and leaves the others as they are."
)
STATUSES = (
    "An arm **leads to the other item** where the intervals of its share, of its excess over the matched control, "
    "and of what the other item's value gains over the best of all others, are entirely above {limit:g}. "
    "**PRESENT**: arms on both sides lead there: for the own label the trade in the list, beyond what a renaming in "
    "list and query moves, and another label in the query; for the order an arm in the query and one in the list; "
    "for the position the trade of two items each and, in a repeated list, that of its two halves. Two addresses are "
    "PRESENT too where edits of both at once lead there, and of one alone do not. **ABSENT**: the shares of all arms "
    "of the address and of their controls are entirely within ±{limit:g}, and so is what the address adds to edits "
    "of the other addresses. **INDETERMINATE**: neither. The matched control of a trade is a trade of two items that "
    "the answer does not depend on; that of a replacement puts a third item's tokens there. Intervals are t "
    "intervals over {prompts} prompts; all of them hold together with 95 %. The summary above has one arm per "
    "address: `label at list`, `order`, and for the position the trade of the halves where it was measured."
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
    position = position_arm(found["shares"])
    shares = [
        f"{address} {found['addresses'][address]['status']} ({_with_control(share)}{_leads(share)})"
        for address, arm in (("own label", "label at list"), ("order", "order"), ("position", position))
        if (share := found["shares"].get(arm))
    ]
    joint, rest = found["shares"].get("joint"), found["remainder"]
    left = f" All three together: {_with_control(joint)}." if joint else ""
    left += " The control is what a similar edit that leads elsewhere moves." if joint else ""
    both = found["shares"].get(BOTH_LISTED)
    left += f" Label and order traded together in the list: {_with_control(both)}." if both else ""
    left += f" What all three together do not move (the remainder): {rest['value']:.2f}." if rest else ""
    left += f" {renamed}" if (renamed := renaming_check(found["shares"], short=True)) else ""
    sinks = [sink for sink, decided in found["sinks"].items() if decided["status"] == "PRESENT"]
    sink = f" Sinks: {', '.join(sinks)}." if sinks else ""
    accuracy = f"{round(found['accuracy']['value'] * found['posed'])} of {found['posed']}"
    return (
        f"On {what}, `{name}` gives the right value in {accuracy} prompts; {said}. How far an edit of each address "
        "moves the logits toward the other item (1: as far as a trade of the two values), beside its matched control: "
        f"{', '.join(shares)}.{left}{sink}"
    )


def _with_control(share: dict[str, Any]) -> str:
    """Return a share and its control as text, such as "0.86, control 0.57"."""
    return f"{share['value']['value']:.2f}, control {share['control']['value']:.2f}"


def _leads(share: dict[str, Any]) -> str:
    """Return in which share of the prompts the other item's value overtakes the right one; "" if not measured."""
    if "follows" not in share:
        return ""
    return f"; {OVERTAKES} in {share['follows']:.0%} of prompts"


def renaming_check(shares: dict[str, Any], short: bool = False) -> str:
    """Return what a renaming in list and query moves, which should be nothing; "" where it moves nothing.

    >>> renaming_check({"label at both": {"value": {"value": 0.01, "low": -0.1, "high": 0.1}, "control": None}})
    ''
    """
    share = shares.get("label at both")
    if share is None or share["value"]["low"] is None or share["value"]["low"] <= 0:
        return ""
    if short:
        return f"A renaming of a label in both places should move nothing; it moves {_with_control(share)}."
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
        f"**{named}** attend{ending} mostly to the value asked for, and the right answer's logit falls when the clean "
        "output is patched in. Negative heads do so too (Wang et al. 2023, arXiv 2211.00593)."
    )
