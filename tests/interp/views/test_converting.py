"""Saving by file name: every kind of view as HTML, PNG, SVG and PDF, and what the PNG shows."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from interp import views
from interp.views.converting import SCALE, converted, figure_of
from tests.interp.views.circuit.samples import GRAPHS
from tests.interp.views.patterns.samples import planted

TOKENS = ["<s>", "$a$", " b", "_"]
STARTS = {".html": b"<!DOCTYPE html>", ".png": b"\x89PNG", ".pdf": b"%PDF"}


def drawn() -> Figure:
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    return figure


KINDS = {
    "attention": lambda: views.attention(planted(2, 4), tokens=TOKENS),
    "tokens": lambda: views.tokens([0.0, 1.0, -1.0, 0.5], TOKENS),
    "effect": lambda: views.effect(np.eye(2, 4), tokens=TOKENS),
    "lens": lambda: views.lens(np.eye(2, 4), TOKENS, [["x"] * 4] * 2),
    "head table": lambda: views.head_table([{"head": "$L0H0$", "a_b": 0.5}]),
    "figure": lambda: views.as_view(drawn(), "a line", "a line"),
    **{f"circuit, {name}": lambda graph=graph: views.circuit(graph) for name, graph in GRAPHS.items()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_view_saves_by_the_name_of_its_file(kind, tmp_path):
    view = KINDS[kind]()
    assert repr(view).startswith("<View: ")
    assert "\n" not in repr(view)
    for suffix, start in STARTS.items():
        assert view.save(tmp_path / f"view{suffix}").read_bytes().startswith(start)
    assert b"<svg" in view.save(tmp_path / "view.svg").read_bytes()
    with pytest.raises(ValueError, match=r"saved as .html, .png, .svg, .pdf; got '.jpg'"):
        view.save(tmp_path / "view.jpg")


def test_a_png_has_the_colours_of_the_cells(tmp_path):
    view = views.effect([[1.0, 0.0], [0.0, -1.0]], tokens=["a", "b"])
    pixels = imread(io.BytesIO(view.save(tmp_path / "a.png").read_bytes()))[..., :3] * 255
    for colour in ((5, 48, 97), (103, 0, 31)):
        assert (np.abs(pixels - colour).max(axis=-1) <= 2).mean() > 0.005


def test_a_png_has_the_size_of_the_svg():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="120" height="50" viewBox="0 0 120 50"></svg>'
    image = Image.open(io.BytesIO(converted(svg.encode(), "image/svg+xml", ".png")))
    assert image.size == (120 * SCALE, 50 * SCALE)


def test_shapes_are_where_the_svg_has_them():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100" viewBox="0 0 100 100">'
        '<g transform="translate(10 20)"><rect x="0" y="0" width="30" height="10" fill="#ff0000"/></g>'
        '<path d="M50 50h40v40h-40z" fill="#0000ff"/></svg>'
    )
    pixels = np.asarray(Image.open(io.BytesIO(converted(svg.encode(), "image/svg+xml", ".png"))).convert("RGB"))
    assert tuple(pixels[25 * SCALE, 25 * SCALE]) == (255, 0, 0)
    assert tuple(pixels[70 * SCALE, 70 * SCALE]) == (0, 0, 255)
    assert tuple(pixels[25 * SCALE, 70 * SCALE]) == (255, 255, 255)


def test_the_same_view_gives_the_same_bytes(tmp_path):
    for name in ("a.pdf", "b.pdf", "a.png", "b.png"):
        KINDS["effect"]().save(tmp_path / name)
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_svg_that_our_views_do_not_write_is_refused():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="3"/></svg>'
    with pytest.raises(ValueError, match="<circle>, which cannot be converted"):
        figure_of(svg)
