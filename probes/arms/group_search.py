"""Group testing: find which of many heads or cells an intervention may change without harm.

An intervention in each head alone takes a pass per head. Groups that do no harm take one pass together, so a model in
which few of many heads carry something needs few passes. Effects of opposite sign within a group can hide each other;
the arms therefore measure the chosen heads again, on other prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Unit = TypeVar("Unit")
# Takes groups and returns the harm of each, in units of what is allowed.
Harms = Callable[[Sequence[Sequence[Unit]]], Sequence[float]]

# With more heads than this, on both sides of the prompt together, discovery tests groups and uses fewer prompts.
MANY_UNITS = 64
FEWER_PROMPTS = 8


def largest_harmless(units: Sequence[Unit], harms: Harms) -> list[Unit]:
    """Return the units of groups that do no harm alone and jointly: the least harmful groups are joined first.

    A group that does harm (above 1) is split, a unit that does harm is left out. All groups of one size are tested in
    one call. What does harm beside the units that are joined already is halved, and a unit that does is left out, so
    that it hides none of those that come after it.
    """
    harmless, _ = _split(units, harms)
    waiting = [[unit for _, group in sorted(harmless, key=lambda found: found[0]) for unit in group]]
    joined: list[Unit] = []
    while waiting:
        more = waiting.pop()
        if more and harms([[*joined, *more]])[0] <= 1:
            joined += more
        elif len(more) > 1:
            half = len(more) // 2
            waiting += [more[half:], more[:half]]
    return joined


def harmful_units(units: Sequence[Unit], harms: Harms) -> list[Unit]:
    """Return the units that do harm alone, in their order; a group without harm is not searched."""
    return _split(units, harms)[1]


def longest_harmless(units: Sequence[Unit], harms: Harms) -> list[Unit]:
    """Return the longest beginning of a list that does no harm jointly, by bisection."""
    low, high = 0, len(units) + 1
    middle = len(units)  # all of them first: in most models that is the answer
    while high - low > 1:
        low, high = (middle, high) if not middle or harms([units[:middle]])[0] <= 1 else (low, middle)
        middle = (low + high) // 2
    return list(units[:low])


def _split(units: Sequence[Unit], harms: Harms) -> tuple[list[tuple[float, Sequence[Unit]]], list[Unit]]:
    """Return the groups without harm, with their harm, and the harmful units, both in the order of the units."""
    spans, harmless, harmful = [(0, len(units))] if units else [], [], []
    while spans:
        found = list(zip(spans, harms([units[a:b] for a, b in spans]), strict=True))
        harmless += [(a, harm, units[a:b]) for (a, b), harm in found if harm <= 1]
        harmful += [a for (a, b), harm in found if harm > 1 and b - a == 1]
        wide = [(a, b) for (a, b), harm in found if harm > 1 and b - a > 1]
        spans = [half for a, b in wide for half in ((a, (a + b) // 2), ((a + b) // 2, b))]
    ordered = sorted(harmless, key=lambda group: group[0])
    return [(harm, group) for _, harm, group in ordered], [units[a] for a in sorted(harmful)]
