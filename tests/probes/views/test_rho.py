"""The axis of rho: every finite interval is whole, and an end that is not drawn has a mark."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from probes.views.rho import USUAL, WIDEST, draw_estimate, rho_limits


def test_limits_show_every_value_within_the_widest():
    assert rho_limits([0.5, None, float("inf")]) == USUAL
    low, high = rho_limits([-0.27, 1.3])
    assert low < -0.27
    assert high > 1.3
    assert rho_limits([-9.0, 9.0]) == WIDEST


@pytest.mark.parametrize(
    ("interval", "ends", "arrows"),
    [((0.1, 0.4), [0.1, 0.4], 0), ((None, 0.4), [-0.15, 0.4], 1), ((0.1, 3.0), [0.1, 1.25], 1)],
)
def test_an_interval_ends_where_it_ends_or_in_an_arrow(interval, ends, arrows):
    axis = Figure().subplots()
    draw_estimate(axis, 2.0, 0.3, interval, USUAL, "#000000")
    (line,) = [line for line in axis.lines if np.size(line.get_xdata()) == 2]
    assert np.asarray(line.get_xdata()).tolist() == ends
    marks = [line for line in axis.lines if line.get_label() == "_continues"]
    assert [str(mark.get_marker()) for mark in marks] == ["<" if interval[0] is None else ">"] * arrows
