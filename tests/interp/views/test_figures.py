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


def test_dollars_in_a_name_are_dollars_and_log_ticks_stay_powers(tmp_path):
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    axis.plot([1, 1000], [0, 1], label="$broken{$ and $x_1$")
    axis.set_xscale("log")
    axis.set_title("run $\\frac$")
    axis.set_yticks([0, 1], ["$a$", "$\\b$"])
    axis.legend()
    assert svg_of(figure).count("<svg") == 1
    assert not any(text.get_parse_math() for text in (axis.title, *axis.get_yticklabels()))
    assert all(text.get_parse_math() for text in axis.get_xticklabels(which="both"))
    assert "$x_1$" not in svg_of(figure).split("<!--")[0]


def test_characters_that_are_not_printable_are_escaped_and_warn_of_no_glyph():
    """A warning of matplotlib would print them on the terminal: ESC is the start of a control code."""
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], label="a\x1b[31mb")
    axis.set_title("r\u202etxt\nsecond line")
    axis.set_yticks([0, 1], ["t\x07", "plain"])
    axis.legend()
    assert svg_of(figure) == svg_of(figure)  # a second time changes nothing; warnings are errors in these tests
    assert axis.title.get_text() == "r\\u202etxt\nsecond line"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["t\\x07", "plain"]
    assert axis.get_legend_handles_labels()[1] == ["a\x1b[31mb"]  # the data are as they were


def test_dollars_in_a_name_break_no_kind_of_file():
    figure = Figure(layout="constrained")
    figure.subplots().set_title("run $\\frac$")
    view = as_view(figure, "run $\\frac$", "a run named $\\frac$")
    for suffix in (".svg", ".png", ".pdf", ".html"):
        assert len(view.file(suffix)) > 500


def test_a_figure_of_lines_follows_the_dark_theme_and_one_with_images_does_not():
    svg = svg_of(scatter(5))
    assert "@media screen and (prefers-color-scheme: dark)" in svg
    assert '[style*="fill: #ffffff"] { fill: #14171c !important; }' in svg
    figure = Figure()
    figure.subplots().imshow([[0, 1]])
    assert "prefers-color-scheme" not in svg_of(figure)


def test_the_light_picture_is_the_same_with_the_dark_theme():
    themed = svg_of(scatter(5))
    start, end = themed.index("<style>@media"), themed.index("</style>\n") + len("</style>\n")
    assert "prefers" not in themed[:start] + themed[end:]
    assert "fill: #ffffff" in themed[end:]
