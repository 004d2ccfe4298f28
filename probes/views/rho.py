"""The axis of rho: its limits, and estimates with intervals that are never cut off without a mark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROLES = ("anchor", "placeholder", "sink")
# The range that every figure shows, and the widest range that data can extend it to.
USUAL, WIDEST = (-0.15, 1.25), (-0.6, 1.6)


def rho_limits(values: Iterable[float | None]) -> tuple[float, float]:
    """Return the axis limits that show all finite values, within `WIDEST`.

    >>> rho_limits([0.5, None, -0.26])
    (-0.28, 1.25)
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min([USUAL[0], *(v - 0.02 for v in finite)]), max([USUAL[1], *(v + 0.02 for v in finite)])
    return max(round(low, 4), WIDEST[0]), min(round(high, 4), WIDEST[1])


def draw_estimate(
    axis: Axes,
    y: float,
    rho: float,
    interval: tuple[float | None, float | None],
    limits: tuple[float, float],
    colour: str,
    marker: str = "o",
) -> None:
    """Draw rho with its interval. An end outside the limits, or unbounded (None), is an arrow at the axis's edge."""
    low, high = limits
    ends = []
    for end, edge, arrow in ((interval[0], low, "<"), (interval[1], high, ">")):
        inside = end is not None and low <= end <= high
        ends.append(end if inside else edge)
        if not inside:
            axis.plot([edge], [y], arrow, color=colour, markersize=6, markerfacecolor="none", label="_continues")
    axis.plot(ends, [y, y], "-", color=colour, linewidth=2.4, solid_capstyle="butt")
    shape = marker if low <= rho <= high else ("<" if rho < low else ">")
    axis.plot([min(max(rho, low), high)], [y], shape, color=colour, markersize=5.5)
