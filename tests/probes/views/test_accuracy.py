"""The figure of accuracy by length: what is drawn, read from the axes."""

from dataclasses import replace
from typing import Any

import pytest
from matplotlib.colors import to_hex

from experiments.support.results import save_figure
from interp.views.colours import SERIES
from probes.evidence import Accuracy, Interval
from probes.views.accuracy import TITLES, accuracy_by_length, by_length


def points(mode="forced", metrics=tuple(TITLES), shift=0.0, lengths=(20, 5, 10)):
    """Accuracies that fall with length, in no order."""
    return [
        Accuracy(m, mode, n, Interval(0.95 - n / 100 - shift, 0.9 - n / 100 - shift, 0.97 - n / 100 - shift), 1 / n, 64)
        for m in metrics
        for n in lengths
    ]


def lines(axis) -> list[Any]:
    """The curves, without chance."""
    return [line for line in axis.lines if line.get_label() != "chance"]


def test_one_line_for_each_run_and_mode():
    figure = accuracy_by_length({"a": points() + points("written"), "b": points(shift=0.1)}, trained=10)
    assert [axis.get_title() for axis in figure.axes] == list(TITLES.values())
    names = ["a, labels given", "a, labels written by the model", "b, labels given"]
    for axis in figure.axes:
        assert [line.get_label() for line in lines(axis)] == names
        assert [line.get_linestyle() for line in lines(axis)] == ["-", "--", "-"]
        assert [line.get_color() for line in lines(axis)] == [SERIES[0], SERIES[0], SERIES[1]]
        assert len(axis.collections) == 3  # a band each
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [*names, "chance"]


@pytest.mark.parametrize(
    ("task", "name"), [("parity", "final bit"), ("addition", "final sum"), ("recall", "final answer")]
)
def test_the_last_answer_is_named_by_the_task(task, name):
    figure = accuracy_by_length({"a": points()}, None, task)
    assert figure.axes[-1].get_title() == f"{name}, free-running"
    page = by_length({"a": points()}, None, task=task).live
    assert [known for known in ("final bit", "final sum", "final answer") if known in page] == [name]


def test_lines_rise_in_length_within_their_bands():
    axis = accuracy_by_length({"a": points()}, trained=10).axes[0]
    (line,) = lines(axis)
    assert list(line.get_xdata()) == [5, 10, 20]
    assert list(line.get_ydata()) == pytest.approx([0.9, 0.85, 0.75])
    box = axis.collections[0].get_datalim(axis.transData)
    assert (box.x0, box.x1, box.y0, box.y1) == pytest.approx((5, 20, 0.7, 0.92))


def test_panels_show_their_own_metric():
    figure = accuracy_by_length({"a": points(metrics=("step",)) + points(metrics=("final",), shift=0.2)}, trained=10)
    step, exact, final = figure.axes
    assert [len(lines(axis)) for axis in (step, exact, final)] == [1, 0, 1]
    assert lines(final)[0].get_ydata()[0] == pytest.approx(0.7)
    assert not exact.lines  # no chance either where nothing was measured


def test_chance_is_dotted():
    for axis in accuracy_by_length({"a": points()}, trained=10).axes:
        (chance,) = set(axis.lines) - set(lines(axis))
        assert chance.get_label() == "chance"
        assert chance.get_linestyle() == ":"
        assert chance.get_xydata().tolist() == [[5, 1 / 5], [10, 1 / 10], [20, 1 / 20]]  # type: ignore[union-attr]


def test_modes_that_differ_in_chance_have_a_line_each():
    given = points()
    written = [replace(p, chance=p.chance / 100) for p in points("written")]
    axis = accuracy_by_length({"a": given + written}, trained=10).axes[0]
    found = {x.get_label(): x.get_xydata().tolist() for x in axis.lines if str(x.get_label()).startswith("chance")}  # type: ignore[union-attr]
    assert found == {
        "chance, labels given": [[5, 1 / 5], [10, 1 / 10], [20, 1 / 20]],
        "chance, labels written by the model": [[5, 1 / 500], [10, 1 / 1000], [20, 1 / 2000]],
    }


def test_the_trained_range_is_shaded():
    for axis in accuracy_by_length({"a": points()}, trained=10).axes:
        (shade,) = axis.patches
        box = shade.get_extents().transformed(axis.transData.inverted())
        assert (box.x0, box.x1) == pytest.approx((0, 10))
        assert box.y0 < 0 < 1 < box.y1
        assert 0 < (shade.get_alpha() or 1) < 0.5
        assert [t.get_text() for t in axis.texts] == ["trained"]


def test_a_model_without_a_recipe_has_no_trained_range():
    for axis in accuracy_by_length({"a": points()}, trained=None).axes:
        assert not axis.patches
        assert not axis.texts


def test_runs_beyond_the_colours_are_drawn_too_and_can_be_told_apart():
    runs = {f"run{i}": points(metrics=("step",), shift=i / 100) for i in range(2 * len(SERIES) + 1)}
    found = lines(accuracy_by_length(runs, trained=10).axes[0])
    assert [line.get_label() for line in found] == [f"{name}, labels given" for name in runs]
    assert len({(to_hex(line.get_color()), line.get_marker()) for line in found}) == len(runs)


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name, shift in (("a", 0.0), ("b", 0.0), ("c", 0.1)):
        figure = accuracy_by_length({"run": points(shift=shift) + points("written")}, trained=10)
        save_figure(figure, tmp_path / f"{name}.svg")
    a, b, c = ((tmp_path / f"{name}.svg").read_bytes() for name in "abc")
    assert a == b != c


def test_accuracy_by_length_is_a_view_with_its_numbers():
    points = [Accuracy("exact", "forced", n, Interval(0.9, 0.85, 0.95), 0.5**n, 100) for n in (10, 20)]
    view = by_length({"mine": points}, trained=15)
    assert "Trained up to length 15" in view.alt
    assert "<td>mine</td><td>exact match, free-running</td><td>labels given</td><td>20</td><td>0.900</td>" in view.live
    assert len(view.still) < 150_000


def test_tiny_chances_are_not_told_apart():
    one, *_ = points(metrics=("exact",))
    page = by_length({"a": [replace(one, chance=3e-145), replace(one, length=6, chance=2e-6)]}, None).live
    assert "&lt; 1e-06" in page
    assert "2e-06</td>" in page
