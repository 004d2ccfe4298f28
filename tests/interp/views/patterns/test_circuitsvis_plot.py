"""circuitsvis itself, and the places in which it is mended."""

import circuitsvis.utils.render
import pytest
import torch

from interp.views.patterns.circuitsvis_plot import MENDS, mended_bundle, plot_props, token_props
from interp.views.patterns.prompt import prompt_of
from tests.interp.views.patterns.samples import nasty, planted


def test_each_mend_is_in_the_script_and_it_can_stand_in_a_page():
    script = mended_bundle()
    assert script is not None
    assert all(new in script for _, new in MENDS)
    assert r'.replace(/&/g,"&amp;").replace(/</g,"&lt;").replace(/\s/g,"&nbsp;")' in script
    assert "</script" not in script
    assert "sourceMappingURL" not in script
    assert len(script) < 1_400_000


def test_nothing_is_asked_of_the_internet(monkeypatch):
    def asked():
        raise AssertionError("the internet was asked")

    monkeypatch.setattr(circuitsvis.utils.render, "internet_on", asked)
    batch = nasty()
    plot = plot_props(planted(2, batch.n_pos)[0], prompt_of(batch, 0), [4, 7])
    assert plot["component"] == "AttentionHeads"
    assert plot["props"]["attentionHeadNames"] == ["head 4", "head 7"]
    assert plot["props"]["maskUpperTri"] is True


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_are_symmetric_and_values_are_what_was_given(sign):
    batch = nasty()
    values = sign * torch.arange(batch.n_pos) / 7
    given = token_props(values, prompt_of(batch, 0))
    assert given["component"] == "ColoredTokens"
    assert given["props"]["maxValue"] == -given["props"]["minValue"] == pytest.approx(13 / 7)
    assert given["props"]["values"] == pytest.approx(values.tolist(), abs=5e-5)
    assert given["props"]["tokens"] == batch.symbols(0)
