"""circuitsvis through its public API: what its plots hand over, in the version that we know."""

import circuitsvis
import circuitsvis.utils.render
import pytest
import torch
from circuitsvis.tokens import colored_tokens

from interp.views.patterns.circuitsvis_plot import (
    JOINER,
    LOCAL_SRC,
    circuitsvis_bundle,
    escaped,
    plot_props,
    token_props,
)
from interp.views.patterns.prompt import prompt_of
from tests.interp.views.patterns.samples import NASTY, nasty, planted


def test_the_layout_of_local_src_is_that_of_circuitsvis_1_43():
    """All that depends on the version: `RenderedHTML.local_src` ends with a call of `CircuitsVis.render`."""
    assert circuitsvis.__version__.startswith("1.43"), "another version: see whether this file's tests still hold"
    found = LOCAL_SRC.search(colored_tokens(["a"], [0.5]).local_src)
    assert found
    assert (found["component"], "globalThis" in found["script"] or "var CircuitsVis" in found["script"]) == (
        "ColoredTokens",
        True,
    )


def test_another_layout_gives_no_script(monkeypatch):
    circuitsvis_bundle.cache_clear()
    monkeypatch.setattr(circuitsvis.utils.render, "render_local", lambda *_, **__: "<p>something else</p>")
    try:
        assert circuitsvis_bundle() is None
    finally:
        circuitsvis_bundle.cache_clear()


def test_the_script_can_stand_in_a_page():
    script = circuitsvis_bundle()
    assert script is not None
    assert "</script" not in script
    assert "sourceMappingURL" not in script
    assert len(script) < 1_400_000


def test_the_internet_is_not_contacted(monkeypatch):
    def contacted():
        raise AssertionError("the internet was contacted")

    monkeypatch.setattr(circuitsvis.utils.render, "internet_on", contacted)
    batch = nasty()
    plot = plot_props(planted(2, batch.n_pos)[0], prompt_of(batch, 0), [4, 7])
    assert plot["component"] == "AttentionHeads"
    assert plot["props"]["attentionHeadNames"] == ["head 4", "head 7"]
    assert plot["props"]["maskUpperTri"] is True


def test_escaped_tokens_start_no_tag_and_no_entity():
    for token in NASTY:
        assert escaped(token).replace(JOINER, "") == token
        assert all(following == JOINER for sign in "<&" for _, following in pairs(escaped(token), sign))


def pairs(text: str, sign: str) -> list[tuple[str, str]]:
    return [(a, b) for a, b in zip(text, text[1:] + " ", strict=True) if a == sign]


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_are_symmetric_and_values_are_what_was_given(sign):
    batch = nasty()
    values = sign * torch.arange(batch.n_pos) / 7
    given = token_props(values, prompt_of(batch, 0))
    assert given["component"] == "ColoredTokens"
    assert given["props"]["maxValue"] == -given["props"]["minValue"] == pytest.approx(13 / 7)
    assert given["props"]["values"] == pytest.approx(values.tolist(), abs=5e-5)
    assert [token.replace(JOINER, "") for token in given["props"]["tokens"]] == batch.symbols(0)
