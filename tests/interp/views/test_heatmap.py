"""Heat maps: what the picture shows, read from the picture."""

import base64
import io
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage, imread

from experiments.support.results import save_figure
from interp.views.heatmap import MOST_NAMES, heat_map


def draw(values, groups=()):
    rows, columns = ([f"{word}{i}" for i in range(n)] for word, n in zip("rc", values.shape, strict=True))
    return heat_map(values, rows, columns, "a title", "change in logit difference at step 3", groups)


def parts(figure) -> tuple[Any, Any]:
    """The map's axis and image."""
    axis = figure.axes[0]
    (image,) = axis.images
    assert isinstance(image, AxesImage)
    return axis, image


def colour(image, value):
    red, _, blue, _ = image.cmap(image.norm(value))
    return float(red), float(blue)


@pytest.mark.parametrize("values", [[[3.0, -1.0]], [[1.0, -3.0]], [[3.0, 2.0]], [[-3.0, -2.0]]])
def test_colours_are_symmetric_about_zero_blue_for_more_and_red_for_less(values):
    _, image = parts(draw(torch.tensor(values)))
    assert image.norm(0.0) == pytest.approx(0.5)
    assert (image.norm.vmin, image.norm.vmax) == (-3.0, 3.0)
    red, blue = colour(image, 2.0)
    assert blue > red + 0.2
    red, blue = colour(image, -2.0)
    assert red > blue + 0.2
    assert colour(image, 0.0) == pytest.approx((0.97, 0.97), abs=0.02)  # white


def test_zeros_are_white():
    _, image = parts(draw(torch.zeros(2, 3)))
    assert image.norm(0.0) == pytest.approx(0.5)
    assert image.norm(1.0) > image.norm(0.0)


def test_every_value_stands_in_its_cell():
    values = torch.tensor([[1.0, -2.0, 0.5], [0.0, 2.0, -0.25]])
    axis, image = parts(draw(values))
    assert torch.equal(torch.tensor(image.get_array().data), values)
    assert axis.get_ylim() == (1.5, -0.5)  # the first row on top
    assert axis.get_xlim() == (-0.5, 2.5)
    assert axis.get_title() == "a title"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_is_refused(bad):
    values = torch.zeros(2, 3)
    values[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        draw(values)


@pytest.mark.parametrize("shape", [(3, 2), (2, 4), (1, 3), (2, 3, 1), (6,)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match=re.escape("values must be [2 3]; got")):
        heat_map(torch.zeros(shape), ["a", "b"], ["x", "y", "z"], "t", "u")


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (3, 90), (4, 1000), (24, 4200)])
def test_every_cell_has_a_pixel_in_the_saved_picture(rows, columns, tmp_path):
    """Neighbours of opposite sign: in the saved picture the sign turns once between any two columns."""
    sign = (torch.arange(rows).unsqueeze(1) + torch.arange(columns)) % 2 * 2.0 - 1
    save_figure(draw(sign), tmp_path / "map.svg")
    pictures = re.findall(r'xlink:href="data:image/png;base64,\s*([^"]+)"', (tmp_path / "map.svg").read_text())
    pixels = max((imread(io.BytesIO(base64.b64decode(p))) for p in pictures), key=lambda p: p.size)
    blue = torch.tensor(pixels[..., 2] > pixels[..., 0])
    height, width = blue.shape
    assert len(torch.tensor(pixels[..., 0]).unique()) == 2  # nothing is blended
    middle = blue[height // rows // 2]
    assert int((middle[1:] != middle[:-1]).sum()) == columns - 1
    middle = blue[:, width // columns // 2]
    assert int((middle[1:] != middle[:-1]).sum()) == rows - 1


@pytest.mark.parametrize("columns", [1, 26, MOST_NAMES])
def test_every_column_and_row_has_its_name(columns):
    axis, _ = parts(draw(torch.ones(3, columns)))
    assert [t.get_text() for t in axis.get_xticklabels()] == [f"c{i}" for i in range(columns)]
    assert list(axis.get_xticks()) == list(range(columns))
    assert [t.get_text() for t in axis.get_yticklabels()] == ["r0", "r1", "r2"]


@pytest.mark.parametrize("columns", [MOST_NAMES + 1, 2 * MOST_NAMES + 1, 1000])
def test_names_are_thinned_beyond_the_limit(columns):
    axis, _ = parts(draw(torch.ones(2, columns), groups=["bit"] * columns))
    ticks = [int(t) for t in axis.get_xticks()]
    assert MOST_NAMES / 2 <= len(ticks) <= MOST_NAMES
    assert len({b - a for a, b in pairwise(ticks)}) == 1
    assert [t.get_text() for t in axis.get_xticklabels()] == [f"c{i}" for i in ticks]


def test_names_have_the_colour_of_their_role():
    groups = ["start", "input", "output", "input", "output"]
    axis, _ = parts(draw(torch.ones(2, 5), groups))
    colours = [to_hex(t.get_color()) for t in axis.get_xticklabels()]
    assert colours[1] == colours[3]
    assert colours[2] == colours[4]
    assert len(set(colours)) == 3


def test_without_roles_names_are_black():
    axis, _ = parts(draw(torch.ones(2, 5)))
    assert {to_hex(t.get_color()) for t in axis.get_xticklabels()} == {"#000000"}


def test_the_colour_bar_says_what_is_shown():
    bar = draw(torch.ones(2, 5)).axes[1]
    assert " ".join(bar.get_ylabel().split()) == "change in logit difference at step 3"


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    values = torch.linspace(-1, 2, 12).reshape(3, 4)
    groups = ["a", "b", "a", "b"]
    for name in "abc":
        save_figure(draw(values + (name == "c"), groups), tmp_path / f"{name}.svg")
    a, b, c = ((tmp_path / f"{name}.svg").read_bytes() for name in "abc")
    assert a == b != c
    assert a.startswith(b"<?xml")
