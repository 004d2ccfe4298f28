"""Where does a patch matter? A heat map of an effect: layer by position, or layer by head."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A name on every column stays readable up to here; longer prompts name groups of columns.
MOST_NAMES = 90


def heat_map(
    values: Tensor, rows: Sequence[str], columns: Sequence[str], title: str, unit: str, groups: Sequence[str] = ()
) -> Figure:
    """`values [row column]`, diverging and centred at zero with symmetric limits: blue positive, red negative.

    At least one pixel a cell, never down-scaled: neighbouring tokens alternate, and a smaller picture would
    hide a head. `groups` colours the columns' names (roles). Raises `ValueError` for NaN.
    """
    from matplotlib.figure import Figure

    if tuple(values.shape) != (len(rows), len(columns)):
        raise ValueError(f"values must be [{len(rows)} {len(columns)}]; got {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError("a heat map cannot show NaN or infinity")
    limit = float(values.abs().max()) or 1.0
    width = max(6.0, min(40.0, 1.8 + 0.16 * len(columns)), 1.8 + len(columns) / 90)  # inches of 110 pixels
    figure = Figure(figsize=(width, 1.9 + 0.28 * len(rows)), layout="constrained", dpi=110)
    axis = figure.subplots()
    image = axis.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    if len(columns) <= MOST_NAMES:
        axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=6)
        colours = _colours(groups)
        for label, group in zip(axis.get_xticklabels(), groups, strict=False):
            label.set_color(colours[group])
    else:
        every = -(-len(columns) // MOST_NAMES)
        axis.set_xticks(range(0, len(columns), every), columns[::every], rotation=90, fontsize=6)
    axis.set_title(title, fontsize=9)
    bar = figure.colorbar(image, ax=axis, fraction=0.03, pad=0.01)
    bar.set_label("\n".join(textwrap.wrap(unit, 20)), fontsize=7)
    return figure


def _colours(groups: Sequence[str]) -> dict[str, str]:
    """Okabe and Ito's darker colours, which stay legible as text."""
    palette = ("#000000", "#0072B2", "#A6450A", "#00694B", "#8E4B75", "#5E5E5E")
    return {group: palette[i % len(palette)] for i, group in enumerate(dict.fromkeys(groups))}
