"""The still picture of a heat map: one SVG on a white card, with whole pixels per cell."""

from __future__ import annotations

import base64
import struct
import textwrap
import zlib
from typing import TYPE_CHECKING

import numpy as np

from interp.views.colours import FAINT, INK, OUTLINES, STOPS, css_colour, group_colours, rgb
from interp.views.panel import Outline, Panel, pooled
from interp.views.svg import LETTER, PAD, SMALL_LETTER, document, text_element

if TYPE_CHECKING:
    from numpy import ndarray

    from interp.views.axes import Axis

STRIP = 6
# Pixels that a whole heat map may take; a cell has at least one.
WIDE, HIGH = 700, 820
# The most cells in all, and the number from which on there are fewer colours: noise must fit into 150 KB, too.
CELLS, MANY = 60_000, 20_000
# The largest cell, the width of cells with notes, and the smallest cell with room for a name.
CELL, NOTED, NAMED = (34, 24), 64, 11


def draw_still(panel: Panel, title: str, caption: str, outlines: tuple[Outline, ...], of: int = 1) -> str:
    """Return the panel as an SVG document. `of` is the number of panels in the live view.

    A heat map that is larger than the page is pooled, not scaled down, and the caption says so.
    """
    panel, note = pooled(panel, *_blocks(*panel.values.shape))
    if note:
        caption, outlines = f"{caption} {note} The live view has every cell.".strip(), ()
    rows, columns = len(panel.rows), len(panel.columns)
    w = max(1, min(NOTED if panel.notes else CELL[0], WIDE // columns))
    h = max(1, min(CELL[1], HIGH // rows))
    left, below = _room(panel.rows, h, True), _room(panel.columns, w, False)
    across, down = max(columns * w + 8, 420), rows * h
    width = left + across + 2 * PAD
    letters = int((width - 2 * PAD) / LETTER)
    head = [(13, "600", INK, line) for line in textwrap.wrap(title, int(letters * 0.8))]
    if of > 1:
        name = f"{panel.name} (one of {of} maps; the live view has them all)"
        head += [(11, "400", FAINT, line) for line in textwrap.wrap(name, letters)]
    top = PAD + sum(size + 5 for size, *_ in head) + 6
    parts, y = [], PAD
    for size, weight, colour, line in head:
        y += size
        parts.append(text_element(PAD, y, line, size=size, weight=weight, colour=colour))
        y += 5
    x0, y0 = PAD + left, top
    data = base64.b64encode(_picture(panel, w, h)).decode()
    parts += [
        f'<image x="{x0}" y="{y0}" width="{columns * w}" height="{down}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{data}"/>',
        f'<rect x="{x0 - 0.5}" y="{y0 - 0.5}" width="{columns * w + 1}" height="{down + 1}" fill="none" '
        'stroke="#8b93a0"/>',
    ]
    for k, outline in enumerate(outlines):
        path = "".join(_mark(x0 + c * w, y0 + r * h, w, h) for r, c in outline.cells)
        parts.append(f'<path d="{path}" fill="{OUTLINES[k % len(OUTLINES)]}"/>')
    parts += _notes(panel, x0, y0, w, h)
    parts += _side(panel.rows, x0, y0, h, upright=True) + _side(panel.columns, x0, y0 + down, w, upright=False)
    y = y0 + down + below + 14
    parts.append(text_element(x0, y, f"columns: {panel.columns.title}, rows: {panel.rows.title}", colour=FAINT))
    legend, y = _legend(panel, outlines, y + 10, width)
    parts += legend
    for line in textwrap.wrap(caption, letters):
        y += 15
        parts.append(text_element(PAD, y, line, colour=FAINT))
    return document(width, y + PAD, title, parts)


def _notes(panel: Panel, x0: int, y0: int, w: int, h: int) -> list[str]:
    """Return the cells' notes, cut to the width of a cell; none where cells are too small for text."""
    room = int((w - 4) / SMALL_LETTER)
    if not panel.notes or h < NAMED or room < 2:
        return []
    dark = np.abs(np.nan_to_num(panel.values)) / panel.top > 0.55
    return [
        text_element(
            x0 + (column + 0.5) * w,
            y0 + (row + 0.5) * h,
            note if len(note) <= room else note[: room - 1] + "…",
            anchor="middle",
            size=10,
            colour="#ffffff" if dark[row, column] else INK,
            drop=0.35,
        )
        for row, notes in enumerate(panel.notes)
        for column, note in enumerate(notes)
    ]


def _mark(x: int, y: int, w: int, h: int) -> str:
    """Return the outline of a cell, drawn inside it: a frame, or its two ends where a frame would cover the cell."""
    thick = max(1, min(2, max(w, h) // 6))
    sides = [(x, y, thick, h), (x + w - thick, y, thick, h)] if w >= h or w >= 10 else []
    ends = [(x, y, w, thick), (x, y + h - thick, w, thick)] if h > w or h >= 10 else []
    return "".join(f"M{a} {b}h{c}v{d}h-{c}z" for a, b, c, d in sides + ends)


def _blocks(rows: int, columns: int) -> tuple[int, int]:
    """Return how many rows and columns share a cell; 1 and 1 if the heat map fits."""
    high, wide = -(-rows // HIGH), -(-columns // WIDE)
    while -(-rows // high) * -(-columns // wide) > CELLS:
        high, wide = (high + 1, wide) if rows / high > columns / wide else (high, wide + 1)
    return high, wide


def png(pixels: ndarray, palette: ndarray) -> bytes:
    """Return a PNG file of `[height width]` palette indices; each line is stored as the difference from the last."""
    height, width = pixels.shape
    change = np.diff(pixels, axis=0, prepend=np.zeros((1, width), np.uint8)).astype(np.uint8)
    lines = np.concatenate([np.full((height, 1), 2, np.uint8), change], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = {b"IHDR": header, b"PLTE": palette.tobytes(), b"IDAT": zlib.compress(lines, 9), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts.items())


def _picture(panel: Panel, w: int, h: int) -> bytes:
    """Return the cells as a PNG: 253 or 63 colours, zero of a diverging scale in the middle, two greys for hatching."""
    levels = 253 if panel.values.size <= MANY else 63
    missing = np.isnan(panel.values)
    share = np.nan_to_num(panel.values) / panel.top
    share = np.clip(share if panel.scale == "sequential" else share / 2 + 0.5, 0, 1)
    pixels = np.rint(share * (levels - 1)).astype(np.uint8).repeat(h, axis=0).repeat(w, axis=1)
    missing = missing.repeat(h, axis=0).repeat(w, axis=1)
    down, across = np.indices(missing.shape)
    pixels[missing] = np.where((down + across) % 4 == 0, levels + 1, levels)[missing]
    greys = np.array([[235] * 3, [120] * 3], dtype=np.uint8)
    return png(pixels, np.concatenate([rgb(STOPS[panel.scale], np.linspace(0, 1, levels)), greys]))


def _room(axis: Axis, cell: int, upright: bool) -> int:
    """Return the pixels that names need beside a heat map."""
    strip = STRIP + 4 if axis.groups else 4
    if cell >= NAMED or not axis.groups:
        return strip + 4 + int(max(map(len, _names(axis))) * SMALL_LETTER)
    return strip + 22 + (int(max(len(name) for *_, name in axis.sections) * SMALL_LETTER) if upright else 10)


def _names(axis: Axis) -> list[str]:
    return [f"{t}  {n}" for t, n in zip(axis.tokens, axis.names, strict=True)] if axis.tokens else list(axis.names)


def _side(axis: Axis, x0: float, y0: float, cell: int, upright: bool) -> list[str]:
    """Return names, or sections and steps, left of a heat map (`upright`) or below it."""
    parts, colours = [], group_colours(axis.groups)
    strip = STRIP + 4 if axis.groups else 4

    def place(along: float, off: float) -> tuple[float, float]:
        return (x0 - off, y0 + along) if upright else (x0 + along, y0 + off)

    def write(along: float, off: float, text: str, turned: bool, middle: bool = False) -> str:
        x, y = place(along, off)
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        return text_element(x, y, text, anchor="middle" if middle else "end", size=10, more=turn, drop=0.35)

    for k, group in enumerate(axis.groups):
        (x, y), (w, h) = place(k * cell, STRIP + 2 if upright else 2), ((STRIP, cell) if upright else (cell, STRIP))
        if group:
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w}" height="{h}" fill="{colours[group]}"/>')
    if cell >= NAMED or not axis.groups:
        every = -(-NAMED // cell)
        names = _names(axis)
        return parts + [write((k + 0.5) * cell, strip + 2, names[k], not upright) for k in range(0, len(axis), every)]
    for k, step in axis.ticks:
        parts.append(write((k + 0.5) * cell, strip + (2 if upright else 7), step, False, not upright))
    for first, last, name in axis.sections:
        if (last - first) * cell >= (NAMED if upright else len(name) * LETTER):
            parts.append(write((first + last) / 2 * cell, strip + (20 if upright else 22), name, False, not upright))
    return parts


def _legend(panel: Panel, outlines: tuple[Outline, ...], y: float, width: int) -> tuple[list[str], float]:
    """Return the colour bar with its limits, the keys of groups and outlines, and the y where they end."""
    parts, stops = [], STOPS[panel.scale]
    low, wide = (-panel.top if panel.scale == "diverging" else 0.0), min(160, width - 180)
    for k in range(40):
        colour = css_colour(stops, k / 39)
        parts.append(
            f'<rect x="{PAD + k * wide / 40:.2f}" y="{y}" width="{wide / 40 + 0.3:.2f}" height="10" fill="{colour}"/>'
        )
    parts.append(f'<rect x="{PAD}" y="{y}" width="{wide}" height="10" fill="none" stroke="#8b93a0"/>')
    ends = [(low, 0.0), (panel.top, 1.0)] + ([(0.0, 0.5)] if low else [])
    for (value, at), anchor in zip(ends, ("start", "end", "middle"), strict=False):
        parts.append(text_element(PAD + at * wide, y + 22, f"{value:.3g}", anchor=anchor, size=10, colour=FAINT))
    unit = textwrap.wrap(panel.unit, int((width - 2 * PAD - wide - 10) / LETTER)) or [""]
    for k, line in enumerate(unit):
        parts.append(text_element(PAD + wide + 10, y + 9 + 13 * k, line))
    y += max(26, 13 * len(unit) + 4)
    groups = group_colours(g for axis in (panel.rows, panel.columns) for g in axis.groups)
    keys = [(name, f'fill="{colour}"') for name, colour in groups.items()]
    keys += [
        (o.name, f'fill="none" stroke="{OUTLINES[k % len(OUTLINES)]}" stroke-width="2"') for k, o in enumerate(outlines)
    ]
    if np.isnan(panel.values).any():
        keys.append(("not measured (hatched)", 'fill="#ebebeb" stroke="#787878" stroke-dasharray="2 2"'))
    x = PAD
    y += 12 if keys else 0
    for name, look in keys:
        wide = 24 + int(len(name) * LETTER)
        if x > PAD and x + wide > width - PAD:
            x, y = PAD, y + 16
        parts += [f'<rect x="{x + 1}" y="{y - 9}" width="9" height="9" {look}/>', text_element(x + 14, y, name)]
        x += wide
    return parts, y + 2
