"""Group testing: find which of many heads or cells an intervention may change without harm.

An intervention in each head alone takes a pass per head. Groups that do no harm take one pass together, so a model in
which few of many heads carry something needs few passes. Effects of opposite sign within a group can hide each other;
the arms therefore measure the chosen heads again, on other prompts.

In a large model each of many heads moves a little, and what all of them may move together is soon reached. Groups are
then tried in the order of a first-order estimate (`probes.arms.first_order`), with a limit on the number of tests.
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
# Prompts of a test among many units that run before the others: most harm shows in the first.
DECIDING = 1
# Where units have an order: groups that are tested at most (eleven halve a thousand units down to one), and units that
# are tested alone at most.
MOST_TESTS, MOST_ALONE = 16, 24


def largest_harmless(units: Sequence[Unit], harms: Harms) -> list[Unit]:
    """Return the units of groups that do no harm alone and jointly: the least harmful groups are joined first.

    A group that does harm (above 1) is split, a unit that does harm is left out. All groups of one size are tested in
    one call. What does harm beside the units that are joined already is halved, and a unit that does is left out, so
    that it hides none of those that come after it.
    """
    found = sorted(_split(units, harms), key=lambda found: found[0])
    return joined_in_order([unit for _, group in found for unit in group], harms, most=None)


def joined_in_order(units: Sequence[Unit], harms: Harms, most: int | None = MOST_TESTS) -> list[Unit]:
    """Return units that do no harm jointly, tried in their order: all of them, then by halves.

    What does harm beside the units that are joined already is halved, and a unit that does is left out. After `most`
    tests (None: no limit) the rest is left out too.
    """
    joined, tests = list[Unit](), 0
    # Groups that are still to be tried, the next one last, and whether each is the first half of one that does harm.
    waiting = [(units, False)] if units else []
    while waiting and tests != most:
        group, is_first_half = waiting.pop()
        tests += 1
        if harms([[*joined, *group]])[0] <= 1:
            joined += group
            if not is_first_half:
                continue
            # The second half, which waits next, does harm beside the first: the test of both has shown that.
            group, _ = waiting.pop()
        if half := len(group) // 2:
            waiting += [(group[half:], False), (group[:half], True)]
    return joined


def longest_harmless(units: Sequence[Unit], harms: Harms) -> list[Unit]:
    """Return the longest beginning of a list that does no harm jointly, by bisection."""
    low, high = 0, len(units) + 1
    middle = len(units)  # all of them first: in most models that is the answer
    while high - low > 1:
        low, high = (middle, high) if not middle or harms([units[:middle]])[0] <= 1 else (low, middle)
        middle = (low + high) // 2
    return list(units[:low])


def _split(units: Sequence[Unit], harms: Harms) -> list[tuple[float, Sequence[Unit]]]:
    """Return the groups without harm, with their harm, in the order of the units."""
    spans, harmless = [(0, len(units))] if units else [], []
    while spans:
        found = list(zip(spans, harms([units[a:b] for a, b in spans]), strict=True))
        harmless += [(a, harm, units[a:b]) for (a, b), harm in found if harm <= 1]
        wide = [(a, b) for (a, b), harm in found if harm > 1 and b - a > 1]
        spans = [half for a, b in wide for half in ((a, (a + b) // 2), ((a + b) // 2, b))]
    return [(harm, group) for _, harm, group in sorted(harmless, key=lambda group: group[0])]
