"""Views of what people have: token strings, text prompts, and arrays of numpy, torch, bfloat16 or lists."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interp import views
from interp.tasks import Prompts
from tests.interp.views.patterns.samples import planted
from tests.interp.views.patterns.test_page import data_of as attention_data
from tests.interp.views.test_grid import data_of

TOKENS = ["<s>", "When", " Mary", " and", " Mary", "\n"]
PATTERNS = planted(3, len(TOKENS))[0]
ARRAYS = {
    "torch": PATTERNS,
    "bfloat16": PATTERNS.bfloat16(),
    "numpy": PATTERNS.numpy(),
    "lists": PATTERNS.tolist(),
    "with gradient": PATTERNS.clone().requires_grad_(),
    "a batch": PATTERNS[None],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_attention_takes_tokens_and_an_array(kind):
    view = views.attention(ARRAYS[kind], tokens=TOKENS)
    data = attention_data(view)
    assert data["tokens"] == [*TOKENS[:-1], "\\n"]
    assert data["props"]["attention"][0][3][2] == 1
    assert data["legend"] == [["", "transparent"]]
    assert view.title == "Attention, 3 heads, 6 tokens"
    assert "H0: from pos 1 (When) to pos 0 (<s>) 1.00" in view.alt


def test_arrays_by_layer_without_a_layer_are_a_grid_of_all():
    view = views.attention({1: PATTERNS.numpy(), 0: PATTERNS}, tokens=TOKENS)
    assert (attention_data(view)["kind"], attention_data(view)["layers"]) == ("canvas", [0, 1])
    assert view.title.startswith("Attention, layers 0, 1")
    one = views.attention({1: PATTERNS.numpy(), 0: PATTERNS}, layer=1, tokens=TOKENS)
    assert attention_data(one)["where"] == "Layer 1"


def test_a_list_of_arrays_is_by_layer_and_a_list_of_heads_is_one_array():
    for layers in ([PATTERNS, PATTERNS.flip(0)], (PATTERNS[None].numpy(), PATTERNS.flip(0)[None].numpy())):
        view = views.attention(layers, tokens=TOKENS)
        assert attention_data(view)["layers"] == [0, 1]
        second = views.attention(layers, layer=1, tokens=TOKENS)
        assert (
            attention_data(second)["props"]["attention"]
            == attention_data(views.attention(PATTERNS.flip(0), tokens=TOKENS))["props"]["attention"]
        )
    assert views.attention(list(PATTERNS), tokens=TOKENS).title == "Attention, 3 heads, 6 tokens"


def test_a_capture_without_a_layer_is_a_grid_of_all_its_layers():
    prompts = Prompts(torch.arange(len(TOKENS))[None])
    captured = SimpleNamespace(prompts=prompts, pattern={0: PATTERNS[None], 3: PATTERNS[None]})
    assert attention_data(views.attention(captured))["layers"] == [0, 3]


def test_two_arrays_are_compared():
    view = views.attention(PATTERNS, tokens=TOKENS, against=PATTERNS.flip(0), conditions=("clean", "corrupted"))
    assert attention_data(view)["conditions"] == ["clean", "corrupted"]
    assert "clean against corrupted" in view.title


def test_text_prompts_are_named_by_their_tokens():
    class Words(Prompts):
        def symbol(self, token: int) -> str:
            return TOKENS[token]

    prompts = Words(torch.tensor([[0, 1, 2, 3, 4, 5]]))
    data = attention_data(views.attention(PATTERNS, batch=prompts))
    assert data["tokens"][2] == " Mary"
    assert data["names"][2] == "pos 2"
    columns = data_of(views.effect(np.eye(2, 6), tokens=prompts))["axes"][1]
    assert columns["names"][2:5] == ["Mary (2)", "and (3)", "Mary (4)"]
    assert views.tokens(np.eye(6), prompts, dest=4).title == "From pos 4"


def test_wrong_inputs_get_one_clear_line():
    for call, message in (
        (lambda: views.attention(PATTERNS), "tokens are missing"),
        (lambda: views.attention(PATTERNS, tokens="one string"), "tokens must be a list of strings"),
        (lambda: views.attention(PATTERNS, tokens=TOKENS[:-1]), r"must be \[batch head 5 5\]"),
        (lambda: views.attention("text", tokens=TOKENS), "patterns must be an array of numbers; got str"),
        (lambda: views.attention(-PATTERNS, tokens=TOKENS), "negative weights"),
        (lambda: views.effect("text"), "numbers in an array; got str"),
        (lambda: views.effect(np.zeros((2, 5)), tokens=TOKENS), "5 positions for 6 tokens"),
        (lambda: views.effect(np.zeros((2, 3, 6))), r"got \(2, 3, 6\)"),
        (lambda: views.heads(np.zeros(3)), r"scores must be \[layer head\]"),
        (lambda: views.lens(np.zeros((2, 3)), TOKENS), "with 6 positions"),
        (lambda: views.lens(np.zeros((2, 6))), "tokens are missing"),
        (lambda: views.tokens(np.eye(6), TOKENS), "give dest="),
        (lambda: views.head_table({"a": np.zeros(3)}), r"arrays \[layer head\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_effects_by_layer_and_position_by_head_and_by_both():
    values = np.zeros((2, 3, 6))
    values[1, 2, 4] = -3.0
    by_position = views.effect(values[:, 2], tokens=TOKENS)
    assert "strongest are layer 1, Mary (4): -3" in by_position.alt
    assert "layer 1, head 2: -3" in views.effect(torch.tensor(values[:, :, 4]), unit="logits").alt
    panels = data_of(views.effect(values, tokens=TOKENS))["panels"]
    assert [panel["name"] for panel in panels][1:] == [f"head {k}: layer by position" for k in range(3)]


def test_heads_of_a_logit_attribution_have_a_column_for_mlps():
    names = ("embed", "L0H0", "L0H1", "L0 MLP", "L1H0", "L1H1", "L1 MLP", "bias")
    found = SimpleNamespace(components=names, parts=torch.arange(8.0)[:, None, None].expand(8, 2, 1))
    data = data_of(views.heads(found))
    assert data["axes"][1]["names"] == ["head 0", "head 1", "MLP"]
    assert data["panels"][0]["strongest"][0] == [1, 2]
    assert "embed +0, bias +7" in data["caption"]


def test_head_tables_take_arrays():
    view = views.head_table({"induction": [[0.0, 0.9]], "previous": [[0.5, 0.1]]})
    assert "first: L0H1 0.900; L0H0 0.000" in view.alt


def test_a_lens_has_its_predictions_in_the_cells():
    predictions = [["a"] * 6, [" Paris"] * 6]
    view = views.lens(np.arange(12).reshape(2, 6), TOKENS, predictions)
    assert "layer 1, \\n (5): 11 ( Paris)" in view.alt
    assert view.still.decode().count("> Paris<") == 6
    found = SimpleNamespace(margin=torch.ones(3, 4, 1), names=("output 3",))
    assert data_of(views.lens(found))["axes"][0]["names"] == ["before layer 0", "before layer 1", "output"]
