"""One row as coloured tokens: which values, which viewer, and the still picture."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from interp import views
from tests.interp.views.patterns.samples import NASTY, nasty, planted, prompts
from tests.interp.views.patterns.test_page import data_of

SVG = "{http://www.w3.org/2000/svg}"


def test_a_row_of_a_batch_a_map_or_by_itself_is_the_same():
    batch = prompts(3, batch_size=2)
    values = torch.randn(2, batch.n_pos, batch.n_pos, generator=torch.Generator().manual_seed(0))
    whole, one, row = (views.tokens(v, batch, prompt=1, dest=9) for v in (values, values[1], values[1, 9]))
    assert data_of(whole) == data_of(one) == data_of(row)
    assert data_of(row)["values"] == pytest.approx(values[1, 9].tolist())
    assert data_of(row)["from"] == batch.name(9)
    assert row.still == whole.still


@pytest.mark.parametrize(
    ("length", "viewer", "kind"),
    [(3, "auto", "row"), (60, "auto", "strip"), (3, "strip", "strip"), (60, "circuitsvis", "row")],
)
def test_long_prompts_get_our_own(length, viewer, kind):
    batch = prompts(length)
    view = views.tokens(planted(1, batch.n_pos)[0, 0], batch, 0, 7, viewer=viewer)
    assert data_of(view)["kind"] == kind
    assert ("not circuitsvis" in data_of(view)["note"]) == (kind == "strip")
    assert len(view.live) < 60_000


def test_the_still_picture_names_every_token_and_colours_by_sign():
    batch = nasty()
    row = torch.zeros(batch.n_pos)
    row[3], row[5] = 2.0, -1.0
    view = views.tokens(row, batch, 0, 13)
    root = ElementTree.fromstring(view.still)
    groups = list(root.iter(SVG + "g"))
    texts = [next(g.iter(SVG + "text")).text for g in groups]
    assert texts[: len(NASTY)] == NASTY
    fills = [next(g.iter(SVG + "rect")).attrib["fill"] for g in groups]
    assert fills[3] == "rgb(33,102,172)"
    red, _, blue = map(int, re.findall(r"\d+", fills[5]))
    assert red > blue + 40
    assert fills[4] == "rgb(255,255,255)"
    right = [float(r.attrib["x"]) + float(r.attrib["width"]) for g in groups for r in g.iter(SVG + "rect")]
    assert max(right) <= float(root.attrib["width"])
    assert f"Largest: {batch.name(3)}" in view.alt


def test_what_is_not_there_is_refused():
    batch = prompts(3)
    for values, arguments, words in (
        (torch.zeros(batch.n_pos + 1), {}, "values must be one of"),
        (torch.full((batch.n_pos,), float("nan")), {}, "NaN"),
        (torch.zeros(batch.n_pos), {"dest": batch.n_pos}, "positions are 0 to 13"),
        (torch.zeros(batch.n_pos), {"prompt": 1}, "prompts are 0 to 0"),
        (torch.zeros(batch.n_pos), {"viewer": "canvas"}, "viewers are auto, circuitsvis, strip"),
    ):
        given: dict[str, Any] = {"prompt": 0, "dest": 1} | arguments
        with pytest.raises(ValueError, match=words):
            views.tokens(values, batch, **given)
