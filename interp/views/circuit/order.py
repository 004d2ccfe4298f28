"""Order and spacing of nodes within a row, with few crossing edges."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from interp.views.circuit.parts import DrawnNode, Link


def spread(
    desired: Sequence[float], sizes: Sequence[float], low: float = -math.inf, high: float = math.inf
) -> list[float]:
    """Return centres of items of some sizes, in this order, without overlap, closest to the desired centres.

    Least squares, by pooling adjacent violators, between `low` and `high`. Items that do not fit overlap evenly.

    >>> spread([0, 0, 10], [4, 4, 4])
    [-2.0, 2.0, 10.0]
    """
    if not desired:
        return []
    squeeze = min(1.0, (high - low) / (sum(sizes) or 1))
    sizes = [s * squeeze for s in sizes]
    offsets = [sum(sizes[:i]) + s / 2 for i, s in enumerate(sizes)]
    blocks: list[tuple[float, int]] = []  # (mean, count)
    for goal in (d - o for d, o in zip(desired, offsets, strict=True)):
        mean, n = goal, 1
        while blocks and blocks[-1][0] > mean:
            before, m = blocks.pop()
            mean, n = (before * m + mean * n) / (m + n), m + n
        blocks.append((mean, n))
    starts = [min(max(mean, low), high - sum(sizes)) for mean, n in blocks for _ in range(n)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def centres_of(
    rows: list[list[DrawnNode]],
    links: Sequence[Link],
    row_of: dict[str, int],
    sizes: dict[str, float],
    gaps: list[float],
) -> dict[str, float]:
    """Return the x of each node. Sweeps up and down sort rows by barycentre; the order with fewest crossings wins."""
    weight: dict[tuple[str, str], float] = defaultdict(float)
    for e in links:
        weight[e.writer, e.reader] += abs(e.score)
    light = 0.2 * max(weight.values(), default=1.0) + 1e-9  # weak edges count too
    near: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for (u, v), w in weight.items():
        near[u].append((v, w + light))
        near[v].append((u, w + light))
    orders = [[n.name for n in row] for row in rows]
    x: dict[str, float] = {}

    def place(i: int, desired: dict[str, float]) -> None:
        row = orders[i]
        centres = spread([desired[name] for name in row], [sizes[name] + gaps[i] for name in row])
        x.update(zip(row, centres, strict=True))

    def mean(name: str, i: int, side: int) -> float:
        """Return the barycentre of the neighbours below (-1), above (1) or both (0); without neighbours, the own x."""
        others = [(x[o], w) for o, w in near[name] if not side or (row_of[o] - i) * side > 0]
        return sum(a * w for a, w in others) / sum(w for _, w in others) if others else x[name]

    for i, order in enumerate(orders):
        place(i, dict.fromkeys(order, 0.0))
    best, kept = (math.inf, math.inf), [list(order) for order in orders]
    for sweep in range(9):
        cost = _crossings(list(weight), x, row_of)
        if cost < best:
            best, kept = cost, [list(order) for order in orders]
        side = 1 if sweep % 2 else -1
        for i in range(len(rows))[::-side]:
            desired = {name: mean(name, i, side) for name in orders[i]}
            orders[i].sort(key=lambda name: desired[name])
            place(i, desired)
    orders[:] = kept
    for i, order in enumerate(orders):
        place(i, dict.fromkeys(order, 0.0))
    for _ in range(6):
        for i, order in enumerate(orders):
            place(i, {name: 0.95 * mean(name, i, 0) for name in order})  # slightly towards the middle
    return x


def _crossings(pairs: list[tuple[str, str]], x: dict[str, float], row_of: dict[str, int]) -> tuple[float, float]:
    """Return how many pairs of straight edges cross, and the total horizontal length of edges."""
    if not pairs:
        return 0.0, 0.0
    low, high = (np.array([row_of[p[k]] for p in pairs], dtype=float) for k in (0, 1))
    start, end = (np.array([x[p[k]] for p in pairs]) for k in (0, 1))
    slope = (end - start) / (high - low)
    bottom, top = np.maximum(low[:, None], low), np.minimum(high[:, None], high)

    def apart(at: np.ndarray) -> np.ndarray:
        return (start + slope * (at.T - low)).T - (start + slope * (at - low))

    crossed = (apart(bottom) * apart(top) < -1e-6) & (bottom < top)
    return float(crossed.sum()), float(np.abs(end - start).sum().round(6))
