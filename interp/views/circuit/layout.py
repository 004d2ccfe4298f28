"""Layout of a circuit: positions of nodes and paths of edges.

A circuit is layered by construction: embedding, heads and MLP of each layer, logits, from the bottom up. The layout
chooses the order within a row (barycentres, Sugiyama et al. 1981) and the edges' paths. An edge runs vertically through
a gap of every row that it passes and bends only between rows, so that it never runs behind another node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from interp.views.circuit.boxes import FONT, LINE, PORT, Box, text_width, wrapped
from interp.views.circuit.order import centres_of
from interp.views.circuit.parts import DrawnNode, Link, Parts
from interp.views.circuit.ways import ways_of

WIDEST = 1400  # pixels; a wider picture wraps its labels more, or has them in tooltips only


@dataclass(frozen=True)
class Band:
    """A layer's stripe; `empty` if no node of the circuit is in it."""

    layer: int
    y: float
    height: float
    empty: bool


@dataclass(frozen=True)
class Layout:
    """Boxes and bands, and for each link its width and path: straight pieces `(x, y from, y to)`, with bends between.

    `named` is True if labels are inside the boxes.
    """

    boxes: tuple[Box, ...]
    bands: tuple[Band, ...]
    ways: dict[Link, tuple[tuple[float, float, float], ...]]
    widths: dict[Link, float]
    width: float
    height: float
    named: bool


def lay_out(parts: Parts) -> Layout:
    """Return the geometry of a circuit in pixels. It depends on the parts only."""
    rows: list[list[DrawnNode]] = []
    for time in sorted({node.time for node in parts.nodes}):
        rows.append([node for node in parts.nodes if node.time == time])
    row_of = {node.name: i for i, row in enumerate(rows) for node in row}
    passing = [sum(row_of[e.writer] < i < row_of[e.reader] for e in parts.links) for i in range(len(rows))]
    crossing = [sum(row_of[e.writer] <= i < row_of[e.reader] for e in parts.links) for i in range(len(rows))]
    strongest = max((abs(e.score) for e in parts.links), default=0.0) or 1.0
    thick = max(2.5, min(7.0, 300 / (len(parts.links) or 1)))
    widths = {e: 0.8 + (thick - 0.8) * abs(e.score) / strongest for e in parts.links}
    air = 2.0 if len(parts.links) <= 150 else 1.0

    lines, gaps = _lines(rows, parts), []
    sizes = {name: max(54.0, *(text_width(t) + 14 for t in texts)) for name, texts in lines.items()}
    for row, n in zip(rows, passing, strict=True):
        traffic = n * (1 + air + thick / 4) / (len(row) + 1)
        left = (WIDEST - sum(sizes[node.name] for node in row)) / len(row)
        gaps.append(22.0 + min(40.0, traffic, max(0.0, left - 22)))
    span = max(sum(sizes[n.name] + gap for n in row) for row, gap in zip(rows, gaps, strict=True))
    for node in parts.nodes:
        if node.kind in ("embed", "logits"):
            sizes[node.name] = max(sizes[node.name], 0.55 * span)
    centres = centres_of(rows, parts.links, row_of, sizes, gaps)
    places, bands, height = _heights(rows, lines, crossing, parts.n_layers)
    boxes = {
        node.name: Box(
            node=node,
            row=i,
            lines=lines[node.name],
            x=centres[node.name] - sizes[node.name] / 2,
            y=places[i][0],
            width=sizes[node.name],
            height=places[i][1],
        )
        for i, row in enumerate(rows)
        for node in row
    }
    ways = ways_of(parts, boxes, row_of, widths, air)
    xs = [x for way in ways.values() for x, _, _ in way] + [x for b in boxes.values() for x in (b.x, b.x + b.width)]
    left, right = min(xs), max(xs)
    ordered = sorted(boxes.values(), key=lambda b: (b.row, b.x))
    named = all(" ".join(lines[n.name]) != n.name for n in parts.nodes if n.label)
    return Layout(
        boxes=tuple(replace(b, x=b.x - left) for b in ordered),
        bands=tuple(bands),
        ways={e: tuple((x - left, a, b) for x, a, b in way) for e, way in ways.items()},
        widths=widths,
        width=right - left,
        height=height,
        named=named,
    )


def _lines(rows: list[list[DrawnNode]], parts: Parts) -> dict[str, tuple[str, ...]]:
    """Return the lines of each box: labels in long lines, else in short lines, else only names, until they fit."""
    for most in (190, 120, 0):  # pixels
        lines = {}
        for node in parts.nodes:
            text = node.text if most else node.name
            longest = max(most, text_width(text) / 4 + 40) if most else math.inf
            lines[node.name] = tuple(wrapped(text, longest, FONT, bold=True))
        if max(sum(max(map(text_width, lines[n.name])) + 36 for n in row) for row in rows) <= WIDEST:
            break
    return lines


def _heights(
    rows: list[list[DrawnNode]], lines: dict[str, tuple[str, ...]], crossing: list[int], n_layers: int
) -> tuple[list[tuple[float, float]], list[Band], float]:
    """Return the y and height of each row's boxes, the stripes, and the total height. The first row is lowest."""
    tall = [max(len(lines[n.name]) for n in row) * LINE + 10 for row in rows]
    at: dict[float, int] = {row[0].time: i for i, row in enumerate(rows)}
    y, starts, stripes = 0.0, {}, []  # y grows upwards here

    def put(i: int) -> None:
        nonlocal y
        y += PORT if rows[i][0].kind == "head" else 0
        starts[i] = y
        y += tall[i]

    def rise(i: int) -> float:
        return 34 + min(60.0, 0.9 * crossing[i])

    if -1 in at:
        put(at[-1])
        y += rise(at[-1])
    for layer in range(n_layers):
        own = [at[time] for time in (2 * layer, 2 * layer + 1) if time in at]
        bottom = y
        y += 10 if own else 20
        for i in own:
            put(i)
            y += rise(i) if i != own[-1] else 10
        stripes.append((layer, bottom, y, not own))
        y += rise(own[-1]) if own else 6
    if math.inf in at:
        put(at[math.inf])
    return (
        [(y - starts[i] - tall[i], tall[i]) for i in range(len(rows))],
        [Band(layer, y - top, top - bottom, empty) for layer, bottom, top, empty in stripes],
        y,
    )
