"""Models of several sizes: where their dots are."""

import itertools

import pytest

from tests.experiments.drawing.zoo.runs import FAMILY, rows_of, table, value_of, words, zoo

LARGE, SMALL = "alibi_6x256x8", "alibi_1x128x8"
SIZES = table(
    rows_of("aligned"),
    rows_of("aligned", LARGE, seeds=(2,)),
    rows_of("aligned", SMALL, seeds=(2,), failed=(2,)),
    rows_of("aligned", LARGE, seeds=(2,), metrics=("rho anchor",), modes=("",), lengths=(20, 40)),
    rows_of("scratchpad", LARGE, seeds=(3,)),
    rows_of("aligned", "rotary", seeds=(3,)),
)


def dots(axis, label: str) -> list[tuple[int, float, str]]:
    """Which size, the value and the marker of each dot of a name."""
    found = [line for line in axis.lines if line.get_label() == label]
    return sorted(
        (round(x), y, str(line.get_marker()))
        for line in found
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    )


def test_sizes_stand_in_the_order_of_their_weights_with_how_many_learned():
    ticks = [t.get_text().split("\n") for t in zoo.scale(SIZES).axes[0].get_xticklabels()]
    assert ticks == [["1x128x8", "0.2 M", "0 of 1"], ["3x128x8", "0.59 M", "3 of 3"], ["6x256x8", "4.7 M", "1 of 1"]]


@pytest.mark.parametrize(("panel", "mode"), [(0, "forced"), (1, "written")])
@pytest.mark.parametrize("length", [20, 40])
def test_a_dot_is_the_exact_match_of_a_model(panel, mode, length):
    found = dots(zoo.scale(SIZES).axes[panel], f"_{length}")
    usual = sorted(value_of("exact", mode, length, seed) for seed in (1, 2, 3))
    one = value_of("exact", mode, length, 2)
    assert [size for size, _, _ in found] == [0, 1, 1, 1, 2]
    assert [value for _, value, _ in found] == pytest.approx([one, *usual, one])
    assert [marker == "x" for _, _, marker in found] == [True, False, False, False, False]


def test_rho_is_that_of_the_longest_length():
    ((size, value, _),) = dots(zoo.scale(SIZES).axes[2], "_anchor")
    assert size == 2
    assert value == pytest.approx(value_of("rho anchor", "", 40, 2))
    assert not dots(zoo.scale(SIZES).axes[2], "_sink")


def test_titles_lie_inside_of_the_figure_and_apart():
    figure = zoo.scale(SIZES)
    figure.canvas.draw()
    whole = figure.get_suptitle() and figure._suptitle.get_window_extent()  # pyright: ignore[reportAttributeAccessIssue]
    assert whole.x0 >= 0
    assert whole.x1 <= figure.bbox.x1
    boxes = [axis.title.get_window_extent() for axis in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_one_size_is_no_figure_and_other_sizes_are_in_no_other():
    with pytest.raises(zoo.NoRows, match="one size of family alibi"):
        zoo.scale(FAMILY)
    assert "6x256x8" not in words(zoo.by_family(SIZES))
    assert [a.get_title() for a in zoo.by_family(SIZES).axes[:2]] == ["ALiBi", "rotary"]
