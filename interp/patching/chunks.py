"""How many patches are stacked at once? Found by trying, on the work itself."""

from __future__ import annotations

CLOSE = 1.05


class Chunks:
    """How many cells to stack: every size is tried once on real work, then the fastest is kept."""

    MOST = 32

    def __init__(self, most: int) -> None:
        self.candidates = [c for c in (2, 4, 8, 16, self.MOST) if c <= most] or [1]
        self.times: dict[int, float] = {}

    def size(self) -> int:
        """Cells for the next chunk."""
        return next((c for c in self.candidates if c not in self.times), self.best)

    def took(self, size: int, cells: int, flops: float, seconds: float) -> None:
        """Remembers how fast a chunk was, for the work that it did: early layers and positions take more.

        A last chunk of fewer cells than `size` counts only where nothing better is known.
        """
        speed = seconds / flops
        if cells == size or size not in self.times:
            self.times[size] = min(speed, self.times.get(size, speed))

    @property
    def best(self) -> int:
        """The smallest size that is nearly as fast as the fastest: it takes less memory."""
        if not self.times:
            return self.candidates[0]
        fastest = min(self.times.values())
        return min(c for c, t in self.times.items() if t <= CLOSE * fastest)
