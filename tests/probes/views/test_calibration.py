"""Figures of the calibration: what is drawn, read from the axes."""

import math
from typing import Any

import pytest
from matplotlib.colors import to_hex

from experiments.support.results import save_figure
from interp.views.colours import SERIES
from probes.views.calibration import HELD_OUT, LABELS, NO_LABELS, confusion, draw_confusion, draw_roles, roles
from probes.views.rho import ROLES

COUNTS = {
    "A1": {"anchor": 9, "undecided": 1},
    "count head": {"placeholder": 10},
    "index head": {"sink": 7, "unused": 3},
    "copied state": {"unused": 10},
}
EXPECTED = {"A1": "anchor", "count head": "placeholder", "index head": "sink", "copied state": "unused"}
VALUES = {
    "aligned seed 0": {"anchor": (0.9, 0.8, 0.95), "placeholder": (0.05, -0.02, 0.12), "sink": (0.0, -0.05, 0.05)},
    "constant seed 0": {"anchor": (0.02, -0.01, 0.05), "placeholder": (0.7, 0.6, 0.8), "sink": (0.2, 0.1, 0.3)},
}
PLANTED = {"anchor": [0.98, 1.0, 1.01], "placeholder": [0.9, 1.0], "sink": [0.8]}


def cells(figure) -> tuple[Any, list[str], list[str], dict[tuple[int, int], Any]]:
    """The axis, names of rows and columns, and the text of each cell."""
    axis = figure.axes[0]
    rows = [t.get_text() for t in axis.get_yticklabels()]
    columns = [t.get_text() for t in axis.get_xticklabels()]
    return axis, rows, columns, {(round(t.get_position()[1]), round(t.get_position()[0])): t for t in axis.texts}


def outlines(axis) -> set[tuple[int, int]]:
    """Cells that are outlined."""
    assert all(not p.get_fill() and (p.get_width(), p.get_height()) == (1, 1) for p in axis.patches)
    return {(round(p.get_y() + 0.5), round(p.get_x() + 0.5)) for p in axis.patches}


def luminance(rgba) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgba[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Confusion


def test_every_count_is_written_in_its_cell():
    _, rows, columns, texts = cells(draw_confusion(COUNTS, (), EXPECTED))
    assert rows == list(COUNTS)
    assert columns == [*LABELS, *NO_LABELS]
    shown = {(rows[i], columns[j]): t.get_text() for (i, j), t in texts.items()}
    assert shown == {(r, c): str(COUNTS[r].get(c, 0)) for r in rows for c in columns}


def test_colour_is_the_share_of_the_row_and_darker_for_more():
    counts = {"few": {"anchor": 1, "sink": 1}, "many": {"anchor": 60, "sink": 40}, "none": {}}
    axis, _, columns, _ = cells(draw_confusion(counts, (), dict.fromkeys(counts, "anchor")))
    (image,) = axis.images
    shown = image.get_array()
    anchor, sink = columns.index("anchor"), columns.index("sink")
    assert [tuple(row[[anchor, sink]]) for row in shown] == [(0.5, 0.5), (0.6, 0.4), (0, 0)]
    assert shown.sum() == pytest.approx(2.0)
    assert (image.norm.vmin, image.norm.vmax) == (0, 1)
    lights = [luminance(image.cmap(image.norm(x / 20))) for x in range(21)]
    assert lights == sorted(lights, reverse=True)  # reads the same without colour
    assert lights[0] > 0.5 > 0.05 > lights[-1]


def test_counts_can_be_read_on_every_shade():
    counts = {f"m{k}": {"anchor": k, "sink": 20 - k} for k in range(1, 20)}
    axis, _, _, texts = cells(draw_confusion(counts, (), dict.fromkeys(counts, "anchor")))
    (image,) = axis.images
    for (i, j), text in texts.items():
        if text.get_text() != "0":
            a, b = sorted(
                (
                    luminance(image.cmap(image.norm(image.get_array()[i, j]))),
                    luminance((1, 1, 1) if text.get_color() == "white" else (0, 0, 0)),
                )
            )
            assert (b + 0.05) / (a + 0.05) > 4.5  # WCAG 2.2 AA
            assert text.get_alpha() == 1
        else:
            assert text.get_alpha() < 0.5


def test_the_expected_verdict_is_outlined_in_every_row():
    axis, rows, columns, _ = cells(draw_confusion(COUNTS, (), EXPECTED))
    assert outlines(axis) == {(i, columns.index(EXPECTED[name])) for i, name in enumerate(rows)}
    assert len(axis.patches) == len(rows)


def test_an_expected_verdict_that_never_came_has_its_column():
    figure = draw_confusion({"both": {"undecided": 10}}, (), {"both": "mixed(anchor, sink)"})
    axis, _, columns, texts = cells(figure)
    j = columns.index("mixed(anchor, sink)")
    assert outlines(axis) == {(0, j)}
    assert texts[0, j].get_text() == "0"


def test_other_verdicts_stand_before_those_that_decide_nothing():
    counts = {"a": {"undecided": 1, "odd": 2, "anchor": 3}, "b": {"stranger": 4, "odd": 1}}
    _, _, columns, texts = cells(draw_confusion(counts, (), {"a": "anchor", "b": "anchor"}))
    assert columns == [*LABELS, "odd", "stranger", *NO_LABELS]
    assert texts[1, columns.index("stranger")].get_text() == "4"


def test_mechanisms_that_were_never_tuned_on_are_marked_and_the_mark_is_explained():
    axis, rows, _, _ = cells(draw_confusion(COUNTS, {"index head"}, EXPECTED))
    assert [name for name in rows if HELD_OUT in name] == [f"index head {HELD_OUT}"]
    assert axis.get_title(loc="left") == f"{HELD_OUT} never used to tune a threshold"
    axis, rows, _, _ = cells(draw_confusion(COUNTS, (), EXPECTED))
    assert not any(HELD_OUT in text for text in (*rows, axis.get_title(loc="left")))


def test_the_bar_and_axes_say_what_is_shown():
    figure = draw_confusion(COUNTS, (), EXPECTED)
    axis, bar = figure.axes
    assert bar.get_ylabel() == "share of the variants"
    assert axis.get_xlabel() == "verdict (outlined: expected)"
    assert axis.get_ylabel() == "planted mechanism"


@pytest.mark.parametrize(
    ("confusion", "never_tuned", "expected", "message"),
    [
        ({}, (), {}, "no planted mechanisms"),
        (COUNTS, (), {"A1": "anchor"}, "no expected verdict for: count head, index head, copied state"),
        (COUNTS, ("A1", "A7"), EXPECTED, "never_tuned names mechanisms without a row: A7"),
        ({"A1": {"anchor": -1}}, (), EXPECTED, "A1 has anchor = -1"),
        ({"A1": {"anchor": 0.5, "sink": 2}}, (), EXPECTED, "A1 has anchor = 0.5$"),
    ],
)
def test_mistakes_in_a_confusion_are_named(confusion, never_tuned, expected, message):
    with pytest.raises(ValueError, match=message):
        draw_confusion(confusion, never_tuned, expected)


# Roles


def intervals(axis) -> dict[int, tuple[float, float]]:
    """Row -> (low, high)."""
    found = [line for line in axis.lines if line.get_marker() in ("None", None) and line.get_linestyle() == "-"]
    return {line.get_ydata()[0]: tuple(line.get_xdata()) for line in found if list(line.get_ydata()) != [0, 1]}


def points(axis) -> dict[int, float]:
    """Row -> value."""
    return {line.get_ydata()[0]: line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"}


def margins(axis) -> list[Any]:
    return [line for line in axis.lines if line.get_linestyle() == "--"]


def test_each_role_has_a_panel_and_each_model_a_row():
    figure = draw_roles(VALUES, PLANTED)
    assert [axis.get_title() for axis in figure.axes] == list(ROLES)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(VALUES)
    assert list(figure.axes[0].get_yticks()) == [0, 1]
    assert figure.axes[0].get_ylim() == (1.5, -0.5)  # the first on top
    for axis, role in zip(figure.axes, ROLES, strict=True):
        expected = [VALUES[name][role] for name in VALUES]
        assert points(axis) == {i: value for i, (value, _, _) in enumerate(expected)}
        assert intervals(axis) == {i: (low, high) for i, (_, low, high) in enumerate(expected)}


def test_roles_have_colours_of_their_own():
    figure = draw_roles(VALUES, None)
    colours = [{to_hex(line.get_color()) for line in axis.lines if line.get_marker() == "o"} for axis in figure.axes]
    assert colours == [{c.lower()} for c in SERIES[:3]]


def test_planted_values_are_faint_ticks_behind_every_row():
    for axis, role in zip(draw_roles(VALUES, PLANTED).axes, ROLES, strict=True):
        assert len(axis.collections) == len(VALUES)
        for row, ticks in enumerate(list[Any](axis.collections)):
            segments = [s.tolist() for s in ticks.get_segments()]
            assert segments == [[[x, row - 0.35], [x, row + 0.35]] for x in PLANTED[role]]
            assert 0 < (ticks.get_alpha() or 1) < 0.5
            assert ticks.get_zorder() < min(line.get_zorder() for line in axis.lines if line.get_marker() == "o")


@pytest.mark.parametrize("planted", [None, {}, {"anchor": []}])
def test_without_planted_values_nothing_is_behind(planted):
    assert [len(axis.collections) for axis in draw_roles(VALUES, planted).axes] == [0, 0, 0]


def test_panels_without_planted_values_have_no_ticks():
    assert [len(axis.collections) for axis in draw_roles(VALUES, {"sink": [1.0]}).axes] == [0, 0, 2]


@pytest.mark.parametrize("margin", [0.10, 0.25])
def test_the_margin_is_a_dashed_line_with_its_name(margin):
    figure = draw_roles(VALUES, None, margin)
    for axis in figure.axes:
        (line,) = margins(axis)
        assert list(line.get_xdata()) == [margin, margin]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [f"margin {margin:.2f}"]


def test_the_margin_is_a_tenth_unless_said_otherwise():
    assert list(margins(draw_roles(VALUES, None).axes[0])[0].get_xdata()) == [0.1, 0.1]


def test_a_role_that_was_not_measured_is_said_to_be_so():
    figure = draw_roles({**VALUES, "short": {"anchor": (0.5, 0.4, 0.6)}}, PLANTED)
    anchor, placeholder, sink = figure.axes
    assert points(anchor)[2] == 0.5
    assert not anchor.texts
    for axis in (placeholder, sink):
        assert set(points(axis)) == set(intervals(axis)) == {0, 1}
        assert len(axis.collections) == 2  # no ticks under the words
        (text,) = axis.texts
        assert (text.get_text(), text.get_position()[1]) == ("not measured", 2)


@pytest.mark.parametrize(
    ("roles", "planted", "message"),
    [
        ({}, None, "no models"),
        ({"m": {"anker": (0.5, 0.4, 0.6)}}, None, "one of anchor, placeholder, sink; got anker"),
        (VALUES, {"unused": [0.0]}, "one of anchor, placeholder, sink; got unused"),
        ({"m": {"sink": (0.5, 0.6, 0.7)}}, None, r"sink of m: 0.5 does not lie in a finite interval \[0.6, 0.7\]"),
        ({"m": {"sink": (math.nan, 0.4, 0.6)}}, None, "sink of m: nan"),
        ({"m": {"sink": (0.5, 0.4, math.inf)}}, None, "sink of m: 0.5"),
        (VALUES, {"anchor": [0.5, math.nan]}, "planted values of anchor"),
    ],
)
def test_mistakes_in_roles_are_named(roles, planted, message):
    with pytest.raises(ValueError, match=message):
        draw_roles(roles, planted)


# Both


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    """Saving also lays the figure out, with warnings as errors."""
    changed = {**VALUES, "aligned seed 0": {"anchor": (0.8, 0.7, 0.9)}}
    figures = {
        "confusion": [draw_confusion(c, ("A1",), EXPECTED) for c in (COUNTS, COUNTS, {**COUNTS, "A1": {"sink": 1}})],
        "roles": [draw_roles(values, PLANTED) for values in (VALUES, VALUES, changed)],
    }
    for kind, drawn in figures.items():
        for i, figure in enumerate(drawn):
            save_figure(figure, tmp_path / f"{kind}{i}.svg")
        a, b, c = ((tmp_path / f"{kind}{i}.svg").read_bytes() for i in range(3))
        assert a == b != c


def test_figures_with_many_rows_are_drawn_too(tmp_path):
    names = [f"a planted mechanism {i}" for i in range(30)]
    save_figure(
        draw_confusion({n: {"anchor": 10} for n in names}, names, dict.fromkeys(names, "anchor")), tmp_path / "many.svg"
    )
    save_figure(draw_roles({n: VALUES["aligned seed 0"] for n in names}, PLANTED), tmp_path / "roles.svg")
    assert (tmp_path / "many.svg").read_text().startswith("<?xml")
    assert (tmp_path / "roles.svg").read_text().startswith("<?xml")


# Views


def test_views_have_the_numbers_as_a_table():
    view = confusion(COUNTS, ["index head"], EXPECTED)
    right = sum(COUNTS[name].get(EXPECTED[name], 0) for name in COUNTS)
    assert f"{right} of 40 variants have the expected verdict" in view.alt
    assert "<td>index head</td><td>sink</td><td>unused</td><td>3</td>" in view.live
    assert "<td>constant seed 0</td><td>sink</td><td>0.200</td><td>0.100</td><td>0.300</td>" in roles(VALUES).live
