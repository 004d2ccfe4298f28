from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from interp.models import FAMILIES, ModelConfig, build_model, load_raw
from interp.models.bridge import boot_bridge
from interp.models.families import family_of

CLASSES = {
    "alibi": "BloomForCausalLM",
    "rotary": "GPTNeoXForCausalLM",
    "none": "GPTNeoXForCausalLM",
    "absolute": "GPT2LMHeadModel",
    "alibi_sink": "SinkBloomForCausalLM",
}


def tiny(family: str, seed: int = 0) -> PreTrainedModel:
    return build_model(ModelConfig(family, n_layers=2, d_model=16, n_heads=2), vocab_size=30, seed=seed)


def order_effect(model: PreTrainedModel) -> float:
    """How far the last query's layer-0 attention to a token changes when the tokens before it permute."""
    tokens = torch.tensor([[3, 8, 21, 5, 17, 11, 29]])
    order = torch.tensor([4, 0, 5, 2, 1, 3, 6])

    @torch.no_grad()
    def attention(tokens: torch.Tensor) -> torch.Tensor:
        return model.eval()(tokens, output_attentions=True).attentions[0][0, :, -1]

    return float((attention(tokens)[:, order] - attention(tokens[:, order])).abs().max())


def test_every_family_has_a_class_here():
    assert set(CLASSES) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_build_model_gives_the_family_in_the_size_asked_for(family: str):
    model = tiny(family)
    assert type(model).__name__ == CLASSES[family]
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "eager"
    sizes = (model.config.num_hidden_layers, model.config.hidden_size, model.config.num_attention_heads)
    assert sizes == (2, 16, 2)
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 30)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_mode_drops_nothing(family: str):
    model, tokens = tiny(family), torch.tensor([[1, 2, 3]])
    assert torch.equal(model.train()(tokens).logits, model.eval()(tokens).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_decides_the_weights_and_the_global_state_is_left_alone(family: str):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = tiny(family, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again, other = tiny(family, seed=1), tiny(family, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_none_and_rotary_have_the_same_weights_and_differ_in_what_they_compute():
    rotary, none = tiny("rotary"), tiny("none")
    assert all(torch.equal(a, b) for a, b in zip(rotary.parameters(), none.parameters(), strict=True))
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    assert not torch.allclose(rotary.eval()(tokens).logits, none.eval()(tokens).logits, atol=1e-4)


def test_only_none_is_blind_to_order_at_layer_0():
    effect = {family: order_effect(tiny(family)) for family in FAMILIES}
    assert effect.pop("none") < 1e-6
    assert min(effect.values()) > 1e-4, effect


@pytest.mark.parametrize("family", FAMILIES)
def test_the_positional_encoding_survives_save_and_reload(family: str, tmp_path):
    model = tiny(family)
    model.save_pretrained(tmp_path)
    assert (order_effect(load_raw(str(tmp_path))) < 1e-6) == (family == "none")


@pytest.mark.parametrize(("rotary_pct", "rotary_base"), [(0.5, 10_000.0), (1.0, 100.0)])
def test_rotary_settings_reach_the_model(rotary_pct: float, rotary_base: float):
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    config = ModelConfig("rotary", 2, 16, 2, rotary_pct=rotary_pct, rotary_base=rotary_base)
    model = build_model(config, vocab_size=30, seed=0)
    rope = model.config.rope_parameters
    assert (rope["partial_rotary_factor"], rope["rope_theta"]) == (rotary_pct, rotary_base)
    assert not torch.allclose(model.eval()(tokens).logits, tiny("rotary").eval()(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("family", ["rotary", "none"])
def test_neox_blocks_are_sequential_so_the_bridge_has_a_resid_mid(family: str):
    raw = tiny(family)
    assert raw.config.use_parallel_residual is False
    _, cache = boot_bridge(raw).run_with_cache(torch.tensor([[1, 2, 3]]))
    mid = cache["blocks.0.hook_resid_pre"] + cache["blocks.0.hook_attn_out"]
    assert torch.allclose(cache["blocks.0.hook_resid_mid"], mid, atol=1e-6)


def test_initializer_range_is_the_spread_of_the_weights():
    config = ModelConfig("alibi", 2, 32, 2, initializer_range=0.5)
    model = build_model(config, vocab_size=500, seed=0)
    weight = model.get_parameter("transformer.word_embeddings.weight").detach()
    assert float(weight[1:].std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "sinusoidal"}, "unknown family 'sinusoidal'; families are alibi, rotary, none, absolute"),
        ({"family": "Alibi"}, "unknown family"),
        ({"d_model": 17}, "d_model 17 is not a multiple of n_heads 2"),
        ({"n_layers": 0}, "n_layers must be from 1 to 65536; got 0"),
        ({"n_layers": -1}, "n_layers must be"),
        ({"n_heads": 0}, "n_heads must be"),
        ({"d_model": 0}, "d_model must be"),
        ({"d_model": 2**40}, "d_model must be"),
        ({"n_ctx": 0}, "n_ctx must be"),
        ({"n_ctx": 10**9}, "n_ctx must be"),
    ],
)
def test_model_config_errors(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"family": "alibi", "n_layers": 2, "d_model": 16, "n_heads": 2, **change})


def test_model_config_round_trip():
    config = ModelConfig("rotary", 2, 16, 2, rotary_pct=0.5)
    assert ModelConfig(**config.to_json()) == config


@pytest.mark.parametrize(
    ("arguments", "family"),
    [
        (("bloom",), "alibi"),
        (("bloom_key_sink",), "alibi_sink"),
        (("gpt2",), "absolute"),
        (("gpt_neox", 1.0), "rotary"),
        (("gpt_neox", 0.25), "rotary"),
        (("gpt_neox", 0.0), "none"),
        (("llama",), "llama"),
    ],
)
def test_family_of(arguments: tuple, family: str):
    assert family_of(*arguments) == family
