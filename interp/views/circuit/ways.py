"""Paths of edges: through a gap of every row that they pass, never behind another node."""

from __future__ import annotations

import math
from collections import defaultdict

from interp.views.circuit.boxes import Box
from interp.views.circuit.order import spread
from interp.views.circuit.parts import Link, Parts

MARGIN = 5  # pixels between a box and an edge that passes it


def ways_of(
    parts: Parts, boxes: dict[str, Box], row_of: dict[str, int], widths: dict[Link, float], air: float
) -> dict[Link, tuple[tuple[float, float, float], ...]]:
    """Return the straight pieces of every link, from its writer's top through a gap of each row to its port."""
    rows: dict[int, list[Box]] = defaultdict(list)
    for box in sorted(boxes.values(), key=lambda b: b.x):
        rows[box.row].append(box)
    free = {i: _free(row) for i, row in rows.items()}
    room = {(i, g): right - left for i, gaps in free.items() for g, (left, right) in enumerate(gaps)}
    wish: dict[tuple[int, int], list[tuple[float, Link]]] = defaultdict(list)
    middle = {e: _toward(boxes[e.writer], boxes[e.reader], e.reads) for e in parts.links}
    for e in parts.strongest:  # the strongest get the most direct paths
        first, last = row_of[e.writer], row_of[e.reader]
        x, goal = middle[e]
        for i in range(first + 1, last):
            x += (goal - x) / (last - i + 1)
            gaps = [g for g in range(len(free[i])) if room[i, g] >= widths[e] + air]
            g = min(gaps, key=lambda g: abs(min(max(x, free[i][g][0]), free[i][g][1]) - x))
            room[i, g] -= widths[e] + air
            wish[i, g].append((x, e))
            x = min(max(x, free[i][g][0]), free[i][g][1])
    order = {e: k for k, e in enumerate(parts.links)}
    through: dict[Link, dict[int, float]] = defaultdict(dict)
    for (i, g), some in wish.items():
        some.sort(key=lambda item: (item[0], order[item[1]]))
        for (_, e), x in zip(
            some, spread([x for x, _ in some], [widths[e] + air for _, e in some], *free[i][g]), strict=True
        ):
            through[e][i] = x

    def ends(groups: dict[tuple[float, float, float], list[Link]], toward: dict[Link, float]) -> dict[Link, float]:
        places = {}
        for (left, right, pull), some in groups.items():
            some.sort(key=lambda e: (toward[e], order[e]))
            desired = [(left + right) / 2 * (1 - pull) + toward[e] * pull for e in some]
            places |= dict(zip(some, spread(desired, [widths[e] + air for e in some], left, right), strict=True))
        return places

    starts, stops = defaultdict(list), defaultdict(list)
    for e in parts.links:
        u, v = boxes[e.writer], boxes[e.reader]
        starts[u.x + 6, u.x + u.width - 6, 1.0 if u.node.kind == "embed" else 0.3].append(e)
        left, right = v.port(e.reads)
        stops[left + 2, right - 2, 1.0 if v.node.kind == "logits" else 0.0].append(e)
    begin = ends(starts, {e: through[e].get(row_of[e.writer] + 1, middle[e][1]) for e in parts.links})
    finish = ends(stops, {e: through[e].get(row_of[e.reader] - 1, middle[e][0]) for e in parts.links})
    ways = {}
    for e in parts.links:
        top, foot = boxes[e.writer].y, boxes[e.reader].foot
        inner = [(through[e][i], rows[i][0].foot, rows[i][0].y) for i in sorted(through[e])]
        ways[e] = ((begin[e], top, top), *inner, (finish[e], foot, foot))
    return ways


def _toward(writer: Box, reader: Box, reads: str) -> tuple[float, float]:
    """Return the x where an edge would begin and end. At embedding and logits it is straight above or below."""
    begin, end = writer.x + writer.width / 2, sum(reader.port(reads)) / 2
    if writer.node.kind == "embed":
        begin = min(max(end, writer.x + 12), writer.x + writer.width - 12)
    if reader.node.kind == "logits":
        end = min(max(begin, reader.x + 12), reader.x + reader.width - 12)
    return begin, end


def _free(row: list[Box]) -> list[tuple[float, float]]:
    """Return the intervals where edges may pass a row: between its boxes, and beside them."""
    edges = [-math.inf, *(x for b in row for x in (b.x - MARGIN, b.x + b.width + MARGIN)), math.inf]
    return list(zip(edges[::2], edges[1::2], strict=True))
