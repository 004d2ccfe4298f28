"""Figures as views: their picture, their numbers, their size."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from interp.views.figures import MOST_BYTES, as_view, faithfulness, svg_of


def scatter(n: int) -> Figure:
    figure = Figure(layout="constrained")
    x = np.linspace(0, 1, n)
    figure.subplots().scatter(x, np.sin(40 * x), c=x)
    return figure


def test_a_small_figure_is_an_svg_on_white_and_a_crowded_one_a_png():
    small, crowded = as_view(scatter(5), "small", "five dots"), as_view(scatter(20_000), "crowded", "many dots")
    assert small.media == "image/svg+xml"
    assert b"fill: #ffffff" in small.still
    assert crowded.media == "image/png"
    assert max(len(small.still), len(crowded.still)) < MOST_BYTES
    assert small.still == as_view(scatter(5), "small", "five dots").still


def test_numbers_are_a_table_of_words_not_of_markup():
    view = as_view(scatter(5), "t", "a", ["<b>"], [["<i>"]])
    assert "<b>" not in view.live
    assert "<td>&lt;i&gt;</td>" in view.live
    assert "<script" not in view._repr_html_()


@dataclass
class Line:
    sizes: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def test_faithfulness_is_a_view_with_its_numbers():
    view = faithfulness({"best": Line((1, 10), (0.2, 0.9), (0.1, 0.8), (0.3, 1.0))}, 100)
    assert "<td>best</td><td>10</td><td>0.900</td><td>0.800</td><td>1.000</td>" in view.live
    assert "of 100" in view.alt
