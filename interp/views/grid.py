"""Interactive heat maps: `draw_grid` turns panels into a view with a canvas, a read-out and a still picture.

The canvas has one or more whole pixels per cell. A scaled-down picture would hide heads, as neighbouring tokens
alternate. A heat map with more than `MOST` rows or columns is pooled by absolute value, and the caption says so.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.views.colours import DARK, OUTLINES, STOPS, group_colours
from interp.views.panel import Outline, Panel, cell_text, pooled
from interp.views.still import draw_still
from interp.views.view import View

if TYPE_CHECKING:
    from numpy import ndarray

    from interp.views.axes import Axis

# The most rows or columns before pooling, and the most cells in all (2 bytes each).
MOST = 2048
MOST_CELLS = 2**23


def draw_grid(
    panels: Panel | Sequence[Panel],
    title: str,
    caption: str = "",
    phrase: str = "{row}, {column}",
    outlines: Iterable[Outline] = (),
    first: int = 0,
) -> View:
    """Return a view of one panel, or of several with a switch between them. The still picture shows panel `first`.

    `phrase` is the text of a cell, such as "to {column} from {row}". `outlines` are drawn in every panel. Raises
    `ValueError` for no panel, for outlined cells outside a panel, and for more than `MOST_CELLS` cells in all.

    >>> from interp.views.axes import Axis
    >>> axis = Axis("layer", ("L0", "L1"))
    >>> draw_grid(Panel("change", [[0.0, 1.0], [-2.0, 0.5]], axis, axis), "a map").alt
    'a map. Heat map, 2 rows (layer) by 2 columns (layer): strongest are L1, L0: -2; L0, L1: +1; L1, L1: +0.5.'
    """
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
    alt = (
        f"{title}. Heat map, {len(shown.rows)} rows ({shown.rows.title}) by {len(shown.columns)} columns "
        f"({shown.columns.title})"
    )
    cells = [cell_text(shown, phrase, *at) for at in shown.strongest[:3]]
    alt += f": strongest are {'; '.join(cells)}." if cells else ": every value is zero."
    still = draw_still(shown, title, caption, outlines, len(panels))
    data = _data(list(panels), title, caption, phrase, outlines, first)
    return View(title, alt, still.encode(), _live(data, alt), bundle())


def packed(values: ndarray, top: float) -> str:
    """Return values as shares of `top` in float16, deflated, base64: three digits of each value in any unit."""
    return base64.b64encode(zlib.compress((values / top).astype("<f2").tobytes(), 9)).decode()


def in_script(data: object) -> str:
    """Return JSON that cannot end the script element which holds it."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


@cache
def bundle() -> str:
    """Return the script and style that all heat maps of a page share."""
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
                "notes": p.notes,
                "peak": (peak := float(np.nan_to_num(np.abs(p.values)).max(initial=0)) or 1.0),
                "values": packed(p.values, peak),
            }
            for p in panels
        ],
        "outlines": [
            {"name": o.name, "cells": o.cells, "colour": OUTLINES[k % len(OUTLINES)]} for k, o in enumerate(outlines)
        ],
        "colours": group_colours(groups),
    }


def _live(data: dict, alt: str) -> str:
    return (
        f'<div class="mnemo-grid" data-ready="false" aria-label="{escape(alt, quote=True)}" hidden>'
        f'<script type="application/json">{in_script(data)}</script></div>'
        "<script>window.mnemoGrid?.()</script>"
    )
