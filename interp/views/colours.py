"""Colours of all pictures: value scales, roles, series of curves, outlines; each with a pair for a dark page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy import ndarray

Scale = Literal["diverging", "sequential"]
# ColorBrewer's RdBu (red below zero, blue above) and Blues, from the lowest value to the highest.
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
# The same on a dark page: zero is dark, large values are light.
DARK: dict[Scale, tuple[str, ...]] = {
    "diverging": ("#ffab9b", "#f07a66", "#b8493b", "#5f2b28", "#20252d", "#1f4165", "#2f79b8", "#5fb0f5", "#a9d8ff"),
    "sequential": ("#20252d", "#1f4165", "#2f79b8", "#6cb0ee", "#e2f0ff"),
}
# Text, secondary text and paper.
INK, FAINT, PAPER = "#15181c", "#4d5561", "#ffffff"
# Okabe and Ito's colours, for bars beside an axis. A label is darker than what it labels.
ROLES = {
    "bos": "#4f5b66",
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
# Okabe and Ito's colours for curves. A second round of colours has the next marker.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "os^D"
# Outlines of cells, visible on red and blue, on a light page and on a dark one.
OUTLINES = ("#008F68", "#B5508A", "#A87400")


def rgb(stops: Iterable[str], share: ndarray) -> ndarray:
    """Return `[... 3]` bytes for shares from 0 to 1 of any shape, interpolated linearly between the stops.

    >>> rgb(("#000000", "#ffffff"), np.array([0.0, 1.0])).tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    table = np.array([[int(stop[k : k + 2], 16) for k in (1, 3, 5)] for stop in stops], dtype=float)
    at = np.linspace(0, 1, len(table))
    mixed = np.stack([np.interp(share, at, table[:, k]) for k in range(3)], axis=-1)
    return (mixed + 0.5).astype(np.uint8)


def css_colour(stops: Iterable[str], share: float) -> str:
    """Return the colour of one share as CSS, such as "#6baed6"."""
    return "#" + bytes(rgb(stops, np.array(share)).tolist()).hex()


def group_colours(groups: Iterable[str]) -> dict[str, str]:
    """Return a colour per group, in order of appearance. Roles have fixed colours, other groups the series' colours.

    >>> group_colours(["input", "mine", "input"])
    {'input': '#56b4e9', 'mine': '#0072B2'}
    """
    colours: dict[str, str] = {}
    for group in groups:
        if group and group not in colours:
            colours[group] = ROLES.get(group, SERIES[sum(g not in ROLES for g in colours) % len(SERIES)])
    return colours


def dark_pair(colour: str) -> str:
    """Return the colour that replaces `colour` ("#rrggbb") on a dark page: greys turn over, others become lighter.

    >>> dark_pair("#ffffff"), dark_pair("#000000"), dark_pair("#0072b2")
    ('#14171c', '#e8e8e8', '#53a0cb')
    """
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    if max(red, green, blue) - min(red, green, blue) < 24:
        # White becomes the page's own ground, black its text.
        share = np.array((red + green + blue) / 765)
        return css_colour(("#e8e8e8", "#9aa0a8", "#14171c"), float(share))
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    share = max(0.0, min(1.0, (170 - light) / 255))
    mixed = (round(c + (255 - c) * share) for c in (red, green, blue))
    return "#" + bytes(mixed).hex()
