"""The number of patches that are stacked at once, measured on the work itself."""

from __future__ import annotations

# A size within this factor of the fastest counts as equally fast.
CLOSE = 1.05


class Chunks:
    """How many cells to stack: each size is timed once on real work, then the fastest is used."""

    MOST = 32

    def __init__(self, most: int) -> None:
        self.candidates = [c for c in (2, 4, 8, 16, self.MOST) if c <= most] or [1]
        self.times: dict[int, float] = {}

    def size(self) -> int:
        """Return the number of cells for the next chunk."""
        return next((c for c in self.candidates if c not in self.times), self.best)

    def took(self, size: int, cells: int, flops: float, seconds: float) -> None:
        """Record the time of a chunk relative to its FLOPs, as early layers and positions take more.

        A chunk of fewer cells than `size` counts only while `size` has no other measurement.
        """
        speed = seconds / flops
        if cells == size or size not in self.times:
            self.times[size] = min(speed, self.times.get(size, speed))

    @property
    def best(self) -> int:
        """The smallest size that is nearly as fast as the fastest; it takes the least memory."""
        if not self.times:
            return self.candidates[0]
        fastest = min(self.times.values())
        return min(c for c, t in self.times.items() if t <= CLOSE * fastest)
