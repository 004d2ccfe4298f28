"""The number of patches that are stacked at once: measured on the work itself on a CPU, else what fits the memory."""

from __future__ import annotations

# A size within this factor of the fastest counts as equally fast.
CLOSE = 1.02
# Positions of all rows of a stack below which a CPU's matrix products are not at full speed.
LEAST_POSITIONS = 256
# FLOPs that a device computes while the operators of one layer are started, about a hundred: at 2 microseconds each
# and 5e10 FLOP/s on one CPU thread; at 4 microseconds each and 4.5e13 FLOP/s in float32 on an H100. A pass with fewer
# spends its time on starting operators.
STARTING = {"cpu": 1e7}
STARTING_ELSEWHERE = 2e10


def starting_flops(device_type: str) -> float:
    """Return the FLOPs that a device computes while the operators of one layer are started."""
    return STARTING.get(device_type, STARTING_ELSEWHERE)


class Chunks:
    """How many cells to stack.

    On a CPU each size is timed once on real work, from `FIRST` on, then the fastest is used: large stacks leave its
    caches. On other devices it is `most`, which the memory allows: work is queued there, so that nothing can be timed
    without waiting for it. `positions` are those of one cell: prompts times tokens.
    """

    MOST = 32
    FIRST = 8

    def __init__(self, most: int, device_type: str = "cpu", positions: int = LEAST_POSITIONS) -> None:
        if device_type == "cpu":
            enough = [c for c in (2, 4, 8, 16) if c * positions >= LEAST_POSITIONS]
            self.candidates = [c for c in (*enough, self.MOST) if c <= most] or [most]
        else:
            self.candidates = [most]
        self.times: dict[int, float] = {}

    def size(self) -> int:
        """Return the number of cells for the next chunk: a size that was not timed yet, or the fastest.

        The order of the sizes is fixed, so that short sweeps give the same digits again.
        """
        order = [c for c in self.candidates if c >= self.FIRST] + [c for c in self.candidates[::-1] if c < self.FIRST]
        return next((c for c in order if c not in self.times), self.best)

    def took(self, size: int, cells: int, flops: float, seconds: float) -> None:
        """Record the time of a chunk relative to its FLOPs, as early layers and positions take more.

        A chunk of fewer cells than `size` counts only while `size` has no other measurement.
        """
        speed = seconds / flops
        if cells == size or size not in self.times:
            self.times[size] = min(speed, self.times.get(size, speed))

    @property
    def best(self) -> int:
        """The largest size that is nearly as fast as the fastest; it starts the fewest operators."""
        if not self.times:
            return self.candidates[-1]
        fastest = min(self.times.values())
        return max(c for c, t in self.times.items() if t <= CLOSE * fastest)
