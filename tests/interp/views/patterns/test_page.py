"""The one call: which viewer it takes, what the page holds, what it refuses and how large it is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from interp import views
from interp.capturing import Capture
from interp.views.patterns import attention
from interp.views.patterns import page as one_call
from interp.views.view import page
from tests.interp.views.patterns.samples import NASTY, nasty, noise, planted, prompts


def data_of(view) -> dict:
    found = re.search(r'<script type="application/json">(.*?)</script>', view.live, re.S)
    assert found
    return json.loads(found[1])


def test_the_design_s_line():
    batch = prompts(3, batch_size=2)
    view = views.attention(Capture(batch, pattern={1: planted(4, batch.n_pos).repeat(2, 1, 1, 1)}), layer=1)
    data = data_of(view)
    assert (data["kind"], data["component"]) == ("plot", "AttentionHeads")
    assert data["props"]["tokens"] == batch.symbols(0)
    assert data["names"][8] == batch.name(8) == "output label 1"
    assert data["props"]["minValue"] == -data["props"]["maxValue"] == -1
    assert view.media == "image/png"
    assert "L1H0: from" in view.alt


@pytest.mark.parametrize(
    ("length", "arguments", "kind", "why"),
    [
        (8, {}, "plot", ""),
        (8, {"viewer": "canvas"}, "canvas", ""),
        (8, {"layer": [0, 1]}, "canvas", "one layer at a time"),
        (20, {}, "canvas", "4 heads of 82 tokens are more than it draws in a few seconds"),
    ],
)
def test_short_prompts_are_circuitsvis_s_and_others_say_why_not(length, arguments, kind, why):
    batch = prompts(length)
    patterns = {layer: planted(4, batch.n_pos, layer) for layer in (0, 1)}
    data = data_of(attention(patterns, **({"layer": 1} | arguments), batch=batch))
    assert data["kind"] == kind
    assert why in data.get("why", "")


def test_another_circuitsvis_is_not_touched(monkeypatch):
    monkeypatch.setattr(one_call, "circuitsvis_bundle", lambda: None)
    batch = prompts(3)
    assert (
        "version of circuitsvis is unknown" in data_of(attention({0: planted(2, batch.n_pos)}, 0, batch=batch))["why"]
    )


def test_heads_and_prompts_are_the_ones_asked_for():
    batch = prompts(20, batch_size=2)
    patterns = torch.cat([planted(4, batch.n_pos), planted(4, batch.n_pos, 1)])
    view = attention({2: patterns}, 2, prompt=1, heads=[3, 0], batch=batch)
    data = data_of(view)
    assert data["heads"] == [3, 0]
    assert data["tokens"] == batch.symbols(1) != batch.symbols(0)
    only = attention({2: patterns[1:, [3, 0]]}, 2, batch=batch.rows(slice(1, 2)))
    assert data["data"] == data_of(only)["data"]


@pytest.mark.parametrize("viewer", ["circuitsvis", "canvas"])
def test_no_token_ends_the_script_or_is_lost(viewer):
    batch = nasty()
    view = attention({0: planted(2, batch.n_pos)}, 0, batch=batch, viewer=viewer)
    data = data_of(view)
    assert data["tokens"][: len(NASTY)] == NASTY
    assert (data["props"] if viewer == "circuitsvis" else data)["tokens"][: len(NASTY)] == NASTY
    assert view.live.count("</script>") == view.live.count("<script") == 2
    assert "bad()" not in re.sub(r"<script.*?</script>", "", view.fragment(), flags=re.S)


def test_what_is_not_there_is_refused_with_the_choices():
    batch = prompts(3)
    n = batch.n_pos
    patterns = {0: planted(2, n), 1: planted(2, n)}
    broken = planted(2, n)
    broken[0, 1, 3, 2] = float("nan")
    for arguments, words in (
        ({"layer": 2}, r"no patterns of layers \[2\]; patterns are of layers: 0, 1"),
        ({"layer": []}, "patterns are of layers"),
        ({"layer": [1, 1]}, "the same layer is given twice: 1, 1"),
        ({"heads": [2]}, "heads are 0 to 1"),
        ({"heads": []}, "heads are 0 to 1"),
        ({"prompt": 1}, "prompts are 0 to 0"),
        ({"prompt": -1}, "prompts are 0 to 0"),
        ({"viewer": "plotly"}, "viewers are auto, circuitsvis, canvas"),
        ({"layer": [0, 1], "viewer": "circuitsvis"}, "use viewer='canvas'"),
        ({"patterns": {0: broken}}, "NaN"),
        ({"patterns": {}, "layer": None}, "there are no patterns; capture them with pattern=True"),
        ({"patterns": {0: planted(2, n + 1)}}, r"must be \[batch head 14 14\]"),
        ({"patterns": planted(2, n), "layer": [0, 1]}, "give patterns by layer"),
        ({"patterns": "text", "layer": None}, "must be an array of numbers"),
        ({"against": {0: broken}}, "NaN"),
        ({"batch": None}, "tokens are missing"),
    ):
        given: dict[str, Any] = {"patterns": patterns, "layer": 0, "batch": batch} | arguments
        with pytest.raises(ValueError, match=words):
            attention(**given)


def test_two_conditions_of_another_layout_are_refused():
    batch, other = prompts(3), prompts(3, "parity-scratchpad")
    assert not torch.equal(batch.role[: other.n_pos], other.role)
    with pytest.raises(ValueError, match="same roles and steps"):
        attention({0: planted(2, batch.n_pos)}, 0, batch=batch, against=Capture(other))


@pytest.mark.parametrize("values", [planted(12, 242), noise(12, 242)], ids=["planted", "noise"])
def test_12_heads_of_242_tokens_are_under_1_5_mb(values):
    view = attention({0: values}, 0, batch=prompts(60))
    assert len(page([view], "x")) < 1_500_000


def test_ten_views_of_12_heads_and_82_tokens_are_under_3_mb_and_carry_their_script_once():
    batch = prompts(20)
    many = [attention({0: noise(12, 82) * (i + 1) / 10}, 0, batch=batch) for i in range(10)]
    html = page(many, "ten")
    assert len(html) < 3_000_000
    assert html.count("starters.canvas = ") == 1


def test_nothing_points_elsewhere():
    view = attention({0: planted(2, 82)}, 0, batch=prompts(20))
    assert not re.search(r"https?://|@import|url\(", view.live + view.bundle)
    assert not re.search(r"<[^>]*\sid=", view.live)


def test_every_rule_of_the_style_keeps_to_the_view():
    style = Path(one_call.__file__).with_name("views.css").read_text(encoding="utf-8")
    rules = [rule for rule in re.findall(r"^\s*([^{}@\n]+)\{", style, re.M) if rule.strip()]
    parts = [part for rule in rules for part in re.sub(r"\([^)]*\)", "", rule).split(", ")]
    assert parts
    assert all(part.startswith(".mnemo-attention") for part in parts)
