"""The figure of faithfulness by size: what is drawn, read from the axes."""

from types import SimpleNamespace
from typing import Any

import pytest

from interp.views.colours import SERIES
from interp.views.curve import faithfulness_by_size


def line(sizes, values):
    return SimpleNamespace(sizes=sizes, values=values, low=[v - 0.1 for v in values], high=[v + 0.1 for v in values])


def test_lines_bands_and_the_one_circuit():
    lines: Any = {"greedy": line([0, 4, 40], [0.0, 0.5, 1.0]), "random": line([1, 40], [0.0, 1.0])}
    lines["this"] = line([9], [0.9])
    axis: Any = faithfulness_by_size(lines, 40, "a title").axes[0]
    drawn = {item.get_label(): item for item in axis.lines if not str(item.get_label()).startswith("_")}
    assert list(drawn["greedy"].get_xdata()) == [4, 40]  # no edge at all has no place on a logarithm
    assert list(drawn["greedy"].get_ydata()) == [0.5, 1.0]
    assert drawn["random"].get_color() == SERIES[1]
    assert axis.get_xscale() == "log"
    assert axis.get_xlabel() == "edges (of 40)"
    legend = [text.get_text() for text in axis.get_legend().get_texts()]
    assert legend == ["greedy", "random", "this"]
    (star,) = axis.containers
    assert star.lines[0].get_xydata().tolist() == [[9.0, 0.9]]
    ((_, low), (_, high)) = star.lines[2][0].get_segments()[0]
    assert (low, high) == pytest.approx((0.8, 1.0))
