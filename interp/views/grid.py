"""What is the value in each cell of a map, and of which row and column? A heat map to point at, of any size.

Drawn on a canvas at one or more whole pixels a cell: a smaller picture would hide a head, as neighbouring tokens
alternate. What no screen holds (more than `MOST` rows or columns) is pooled by absolute value, and says so.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.views.axes import Axis
from interp.views.colours import DARK, OUTLINES, STOPS, Scale, colours_of
from interp.views.view import View

if TYPE_CHECKING:
    from numpy import ndarray

# Rows or columns from which on a map is pooled, and cells in all from which on it is refused (2 bytes each).
MOST = 2048
MOST_CELLS = 2**23
# How many of the strongest cells are listed in words.
LISTED = 8


@dataclass(frozen=True, eq=False)
class Panel:
    """One map. `values [row column]`: numbers, or tensors of any kind; NaN is hatched as "not measured".

    `diverging`: blue for more than zero, red for less, symmetric limits. `sequential`: from zero up, for masses and
    sizes. `limit` is the value of the strongest colour; None for the largest there is. Raises `ValueError` for
    infinity, for negative values on a sequential scale and for a shape that is not that of the axes.
    """

    name: str
    values: Any
    rows: Axis
    columns: Axis
    unit: str = ""
    scale: Scale = "diverging"
    limit: float | None = None

    def __post_init__(self) -> None:
        values = array_of(self.values)
        if values.shape != (len(self.rows), len(self.columns)):
            raise ValueError(f"{self.name}: values must be [{len(self.rows)} {len(self.columns)}]; got {values.shape}")
        if np.isinf(values).any():
            raise ValueError(f"{self.name}: a map cannot show infinity")
        if self.scale not in STOPS:
            raise ValueError(f"unknown scale {self.scale!r}; scales are {', '.join(STOPS)}")
        if self.scale == "sequential" and (values < 0).any():
            raise ValueError(f"{self.name}: a sequential scale starts at zero; there are values below")
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise ValueError(f"{self.name}: the limit must be positive; got {self.limit}")
        object.__setattr__(self, "values", values)

    @property
    def top(self) -> float:
        """The value of the strongest colour."""
        if self.limit is not None:
            return float(self.limit)
        sizes = np.abs(self.values[~np.isnan(self.values)])
        return float(sizes.max(initial=0.0)) or 1.0

    @property
    def strongest(self) -> list[tuple[int, int]]:
        """The cells of the largest absolute values, zeros left out."""
        sizes = np.nan_to_num(np.abs(self.values)).ravel()
        order = np.argsort(-sizes, kind="stable")[:LISTED]
        return [divmod(int(k), len(self.columns)) for k in order if sizes[k] > 0]


@dataclass(frozen=True)
class Outline:
    """Cells with a line around them: (row, column) pairs of one panel's map, the first of its kind."""

    name: str
    cells: tuple[tuple[int, int], ...]


def draw_grid(
    panels: Panel | Sequence[Panel],
    title: str,
    caption: str = "",
    phrase: str = "{row}, {column}",
    outlines: Iterable[Outline] = (),
    first: int = 0,
) -> View:
    """A map, or several with a switch between them; the still picture is that of panel `first`.

    `phrase` says a cell in words, such as "to {column} from {row}". `outlines` are drawn in every panel. Raises
    `ValueError` for no panel, for outlined cells outside a map, and for more than `MOST_CELLS` cells in all.

    >>> axis = Axis("layer", ("L0", "L1"))
    >>> draw_grid(Panel("change", [[0.0, 1.0], [-2.0, 0.5]], axis, axis), "a map").alt
    'a map. Heat map, 2 rows (layer) by 2 columns (layer): strongest are L1, L0: -2; L0, L1: +1; L1, L1: +0.5.'
    """
    from interp.views.still import draw_still

    panels, outlines = [panels] if isinstance(panels, Panel) else list(panels), tuple(outlines)
    if not 0 <= first < len(panels):
        raise ValueError(f"no panel {first}; there are {len(panels)}")
    if sum(panel.values.size for panel in panels) > MOST_CELLS:
        raise ValueError(f"at most {MOST_CELLS} cells in one view; choose fewer panels or prompts")
    for outline in outlines:
        for row, column in outline.cells:
            if any(not (0 <= row < len(p.rows) and 0 <= column < len(p.columns)) for p in panels):
                raise ValueError(f"{outline.name}: there is no cell {row}, {column} in every panel")
    if outlines and any(max(p.values.shape) > MOST for p in panels):
        raise ValueError(f"cells can be outlined in maps of up to {MOST} rows and columns, which are not pooled")
    names = [panel.name for panel in panels]
    if len(set(names)) < len(names):
        raise ValueError("two panels have one name")
    blocks = [[-(-n // MOST) for n in panel.values.shape] for panel in panels]
    panels, notes = zip(*(pooled(p, *block) for p, block in zip(panels, blocks, strict=True)), strict=True)
    caption = " ".join(dict.fromkeys(filter(None, (caption, *notes))))
    shown = panels[first]
    words = (
        f"{title}. Heat map, {len(shown.rows)} rows ({shown.rows.title}) by {len(shown.columns)} columns "
        f"({shown.columns.title})"
    )
    said = [f"{cell_in_words(shown, phrase, *at)}" for at in shown.strongest[:3]]
    words += f": strongest are {'; '.join(said)}." if said else ": every value is zero."
    still = draw_still(shown, title, caption, outlines, len(panels))
    data = _data(list(panels), title, caption, phrase, outlines, first)
    return View(title, words, still.encode(), _live(data, words), bundle())


def pooled(panel: Panel, high: int, wide: int) -> tuple[Panel, str]:
    """The panel with blocks of `high` rows and `wide` columns as cells, and what was done in words ("" for nothing).

    Each cell then has the value of the largest absolute value of its block: a lone strong cell stays.
    """
    if high == wide == 1:
        return panel, ""
    rows, columns = panel.rows.pooled(high), panel.columns.pooled(wide)
    blocks = np.full((len(rows) * high, len(columns) * wide), np.nan)
    blocks[: panel.values.shape[0], : panel.values.shape[1]] = panel.values
    blocks = blocks.reshape(len(rows), high, len(columns), wide).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(len(rows), len(columns), high * wide)
    peak = np.where(np.isnan(blocks), -1, np.abs(blocks)).argmax(axis=2)
    values = np.take_along_axis(blocks, peak[..., None], axis=2)[..., 0]
    note = f"Pooled: each cell has the largest absolute value of {high} x {wide} (rows x columns), with its sign."
    return replace(panel, values=values, rows=rows, columns=columns), note


def number(value: float, scale: Scale = "diverging") -> str:
    """Three digits, with a sign where the sign has a meaning."""
    if math.isnan(value):
        return "not measured"
    return f"{value:+.3g}" if scale == "diverging" and value else f"{value:.3g}"


def cell_in_words(panel: Panel, phrase: str, row: int, column: int) -> str:
    """A cell as it is read out."""
    where = phrase.replace("{row}", panel.rows.said(row)).replace("{column}", panel.columns.said(column))
    return f"{where}: {number(float(panel.values[row, column]), panel.scale)}"


def array_of(values: Any) -> ndarray:
    """Numbers as a float64 array, also from tensors of any device and kind."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=float)


def packed(values: ndarray, top: float) -> str:
    """Shares of `top` as float16, deflated, base64: three digits of each value, whatever its unit."""
    return base64.b64encode(zlib.compress((values / top).astype("<f2").tobytes(), 9)).decode()


def in_script(data: object) -> str:
    """JSON that nothing in it can end: for a script element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


@cache
def bundle() -> str:
    """Script and style that all maps of a page share."""
    script, style = ((Path(__file__).with_name(f"grid.{kind}")).read_text(encoding="utf-8") for kind in ("js", "css"))
    return script.replace('"STYLE"', in_script(style)).replace('"STOPS"', in_script({"light": STOPS, "dark": DARK}))


def _data(
    panels: list[Panel], title: str, caption: str, phrase: str, outlines: tuple[Outline, ...], first: int
) -> dict:
    axes: list[Axis] = list(dict.fromkeys(axis for panel in panels for axis in (panel.rows, panel.columns)))
    groups = [group for axis in axes for group in axis.groups]
    return {
        "title": title,
        "caption": caption,
        "phrase": phrase,
        "first": first,
        "axes": [
            {
                "title": a.title,
                "names": a.names,
                "tokens": a.tokens,
                "groups": a.groups,
                "sections": a.sections,
                "ticks": a.ticks,
            }
            for a in axes
        ],
        "panels": [
            {
                "name": p.name,
                "unit": p.unit,
                "scale": p.scale,
                "limit": float(f"{p.top:.6g}"),
                "rows": axes.index(p.rows),
                "columns": axes.index(p.columns),
                "strongest": p.strongest,
                "peak": (peak := float(np.nan_to_num(np.abs(p.values)).max(initial=0)) or 1.0),
                "values": packed(p.values, peak),
            }
            for p in panels
        ],
        "outlines": [
            {"name": o.name, "cells": o.cells, "colour": OUTLINES[k % len(OUTLINES)]} for k, o in enumerate(outlines)
        ],
        "colours": colours_of(groups),
    }


def _live(data: dict, words: str) -> str:
    return (
        f'<div class="mnemo-grid" data-ready="false" aria-label="{escape(words, quote=True)}" hidden>'
        f'<script type="application/json">{in_script(data)}</script></div>'
        "<script>window.mnemoGrid?.()</script>"
    )
