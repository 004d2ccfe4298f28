"""Units of work of a sweep: patches that start at neighbouring positions, for some prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from interp.patching.cells import Cell, first
from interp.patching.cost import Sizes, engine_flops

# Most positions that the patches of one bucket start from.
BUCKET = 8


@dataclass(frozen=True)
class WorkUnit:
    """Patches that are computed together: cells whose positions start in neighbouring buckets, for some prompts."""

    number: int
    start: int
    cells: tuple[int, ...]
    prompts: range

    @property
    def name(self) -> str:
        """The number with a digest of the content: another memory or device splits the same sweep into other units.

        >>> WorkUnit(3, 0, (0, 1), range(2)).name != WorkUnit(3, 0, (0, 2), range(2)).name
        True
        """
        content = repr((self.start, self.cells, self.prompts))
        return f"{self.number}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def buckets_of(
    cells: Sequence[Cell], alive: Sequence[bool], sizes: Sizes, site: str, prompts: int, most: int, starting: float
) -> list[list[int]]:
    """Return the numbers of the cells that are alive, by first position, in buckets that are computed together.

    A bucket is joined to the one before it where `most` patches fit one stack, and where computing its patches from
    the earlier start costs less than starting the operators of a pass of their own: `starting` FLOPs per layer.
    """
    order = sorted((i for i, a in enumerate(alive) if a), key=lambda i: first(cells[i]))
    small: list[list[int]] = []
    for i in order:
        if not small or first(cells[i]) >= first(cells[small[-1][0]]) + BUCKET:
            small.append([])
        small[-1].append(i)
    joined: list[list[int]] = []
    for bucket in small:
        own = [cells[i] for i in bucket]
        if joined and len(joined[-1]) + len(bucket) <= most:
            earlier = engine_flops(sizes, own, site, first(cells[joined[-1][0]]))
            if prompts * (earlier - engine_flops(sizes, own, site, first(own[0]))) <= starting * sizes.n_layers:
                joined[-1] += bucket
                continue
        joined.append(bucket)
    return joined
