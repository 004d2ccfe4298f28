"""Which colour has a number, and which a role?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy import ndarray

Scale = Literal["diverging", "sequential"]
# ColorBrewer's RdBu (red for less than zero, blue for more) and Blues, from the lowest value to the highest, and
# pairs for a dark page, where nothing is dark and much is light.
STOPS: dict[Scale, tuple[str, ...]] = {
    "diverging": (
        "#67001f",
        "#b2182b",
        "#d6604d",
        "#f4a582",
        "#fddbc7",
        "#f7f7f7",
        "#d1e5f0",
        "#92c5de",
        "#4393c3",
        "#2166ac",
        "#053061",
    ),
    "sequential": ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b"),
}
DARK: dict[Scale, tuple[str, ...]] = {
    "diverging": ("#ffab9b", "#f07a66", "#b8493b", "#5f2b28", "#20252d", "#1f4165", "#2f79b8", "#5fb0f5", "#a9d8ff"),
    "sequential": ("#20252d", "#1f4165", "#2f79b8", "#6cb0ee", "#e2f0ff"),
}
# Okabe and Ito's colours, as bars beside an axis, as in `interp.views.patterns`: a label is darker than what it labels.
ROLES = {
    "start": "#7d7d7d",
    "separator": "#a8892c",
    "input": "#56b4e9",
    "input label": "#0072b2",
    "output": "#e69f00",
    "output label": "#d55e00",
    "answer": "#009e73",
    "answer label": "#5bbf9f",
    "filler": "#cc79a7",
}
OTHERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
# Outlines, which must be seen on red and blue, on a light page and on a dark one.
OUTLINES = ("#008F68", "#B5508A", "#A87400")


def rgb(stops: Iterable[str], share: ndarray) -> ndarray:
    """`share` from 0 to 1, of any shape, to `[... 3]` bytes: straight lines between the stops.

    >>> rgb(("#000000", "#ffffff"), np.array([0.0, 1.0])).tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    table = np.array([[int(stop[k : k + 2], 16) for k in (1, 3, 5)] for stop in stops], dtype=float)
    at = np.linspace(0, 1, len(table))
    mixed = np.stack([np.interp(share, at, table[:, k]) for k in range(3)], axis=-1)
    return (mixed + 0.5).astype(np.uint8)


def hexed(stops: Iterable[str], share: float) -> str:
    """One colour as CSS writes it."""
    return "#" + bytes(rgb(stops, np.array(share)).tolist()).hex()


def colours_of(groups: Iterable[str]) -> dict[str, str]:
    """A colour for each group, in the order of appearance; roles have their own.

    >>> colours_of(["input", "mine", "input"])
    {'input': '#56b4e9', 'mine': '#0072B2'}
    """
    found: dict[str, str] = {}
    for group in groups:
        if group and group not in found:
            found[group] = ROLES.get(group, OTHERS[sum(g not in ROLES for g in found) % len(OTHERS)])
    return found
