"""A verdict on a list as lines of text: label, accuracy, addresses, remainder, sinks, and on request every arm."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from probes.binding.checking import MARGIN, is_near_zero, is_small
from probes.binding.edits import ARMS, BOTH_LISTED
from probes.statuses import Status

if TYPE_CHECKING:
    from probes.binding.deciding import BindingVerdict
    from probes.binding.found import Share

INDENT = "  "
COLUMNS = 120
# What `Share.follows` counts.
OVERTAKES = "the other item's value is then above the right one"


def summary(
    verdict: BindingVerdict, columns: int = COLUMNS, evidence: bool = False, advice: str | None = None
) -> Iterator[str]:
    """Yield the lines of the answer; with `evidence` also every arm. Arms that were not measured are always named.

    `columns`: the width in which reasons are wrapped. `advice`: what to do where the verdict is undecided because
    intervals are wide.
    """
    found = verdict.measured
    yield f"{verdict.name}, {found.task} with {found.items} items: {verdict.label.upper()}"
    state = "competent" if found.competent else "NOT competent"
    deep = f" (those of all items before over {found.deep_prompts} others)" if found.deep_prompts else ""
    shares = f"; shares over {found.prompts}{deep}, their intervals jointly" if found.refusal is None else ""
    asked = f", which ask for items {', '.join(map(str, found.queries))}" if found.queries else ""
    asked += f" (edits lead to items {', '.join(map(str, found.targets))})" if found.targets else ""
    accuracy = f"accuracy {found.accuracy} over {found.posed} prompts{asked}: {state}{shares}"
    yield from _wrapped(accuracy, columns, INDENT, INDENT * 2)
    if found.refusal is not None:
        yield from textwrap.wrap(f"why: {found.refusal}", max(40, columns), subsequent_indent=INDENT)
        if found.is_short_of_prompts:
            more = f"more prompts (--prompts, or rows of a template) narrow its interval ({found.posed} here)"
            yield f"next: {more}"
        return
    for name, (status, reason) in verdict.addresses.items():
        yield from _row(name, status, reason, columns, found.shares.get(reason.partition(":")[0]))
    if "label at both" in found.shares:
        share = found.shares["label at both"]
        yield f"{INDENT}{'renaming':<13}{'':<15}{share.value}, control {share.control}: in list and query; expected: 0"
    if BOTH_LISTED in found.shares:
        share = found.shares[BOTH_LISTED]
        yield f"{INDENT}{'label + order':<13}{'':<15}{share.value}, control {share.control}: both traded in the list"
    if found.remainder is not None:
        share = found.shares["joint"]
        yield f"{INDENT}{'all jointly':<13}{'':<15}{share.value}, control {share.control}; remainder {found.remainder}"
    if followed := [f"{arm} {share.follows:.2f}" for arm, share in found.shares.items() if share.follows is not None]:
        yield from textwrap.wrap(
            f"{INDENT}prompts in which {OVERTAKES}: {'; '.join(followed)}",
            max(80, columns),
            subsequent_indent=INDENT * 2,
        )
    if verdict.is_open_by_width:
        yield f"next: {advice or f'more prompts narrow the intervals ({found.prompts} here)'}"
    heading = "loss when other keys share the attention, less that at the mean value"
    yield f"sinks ({heading}; other tokens: all but labels and values):"
    for name, (status, reason) in verdict.sinks.items():
        carried = found.carried.get(name)
        if status is Status.ABSENT and carried is not None and not is_near_zero(carried):
            reason += f"; it carries something: its mean value loses {carried}, and its removal no more"
        yield from _row(name, status, reason.removeprefix(f"{name}: "), columns, found.sinks.get(name))
    missing = {name: reason for name, reason in found.left_out.items() if evidence or name in ARMS}
    if evidence:
        yield ""
        for name, share in found.shares.items():
            yield f"{INDENT}{name:<15} {share}"
        if found.added:
            yield "what an edit or a removal adds to others (at most 0.10 either way for what is ABSENT):"
        for name, interval in found.added.items():
            yield f"{INDENT}{name}: {interval}"
    if missing and not evidence:
        yield "arms that were not measured:"
    for name, reason in missing.items():
        yield f"{INDENT}{name:<15} not applicable: {reason}"


def _row(name: str, status: Status, reason: str, columns: int, share: Share | None) -> list[str]:
    """Return the lines of an address or a sink; the reason is wrapped, without a break inside of an interval.

    Where the share leaves the status open, its excess over the control, which decides, is added.
    """
    if status is Status.INDETERMINATE and share is not None and not is_small(share):
        too_little = "" if share.excess.low > MARGIN else f", not above {MARGIN:.2f}"
        reason += f", excess {share.excess}{too_little}"
    head = f"{INDENT}{name:<13}{status.value:<15}"
    return _wrapped(reason, columns, head, " " * len(head))


def _wrapped(text: str, columns: int, first: str, later: str) -> list[str]:
    """Return the text in lines, without a break inside of an interval."""
    whole = re.sub(r" (?=\[)|(?<=,) (?=[-\d.]+\])", "\xa0", text)
    lines = textwrap.wrap(whole, max(80, columns), initial_indent=first, subsequent_indent=later)
    return [line.replace("\xa0", " ") for line in lines]
