"""Things in a row stand without overlap, as near as can be to where they want to be."""

import random
from itertools import pairwise

import pytest

from interp.views.circuit.order import spread


@pytest.mark.parametrize("seed", range(8))
def test_spread_keeps_order_and_distance_and_is_best(seed):
    draw = random.Random(seed)
    desired, sizes = ([draw.uniform(low, 9) for _ in range(6)] for low in (0, 0.5))

    def fits(found):
        return all(b - a >= (s + t) / 2 - 1e-9 for (a, b), (s, t) in zip(pairwise(found), pairwise(sizes), strict=True))

    def cost(found):
        return sum((a - b) ** 2 for a, b in zip(found, desired, strict=True))

    best = spread(desired, sizes)
    assert fits(best)
    for _ in range(400):
        other = [x + draw.gauss(0, 0.3) for x in best]
        assert not fits(other) or cost(other) >= cost(best) - 1e-9
    inside = spread(desired, sizes, 2, 2 + sum(sizes))
    assert inside[0] - sizes[0] / 2 == pytest.approx(2)
    tight = spread(desired, sizes, 0, sum(sizes) / 2)
    assert 0 <= tight[0] <= tight[-1] <= sum(sizes) / 2
    assert tight == sorted(tight)
