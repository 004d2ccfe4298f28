"""What an anatomy refuses, and what its checks find."""

from __future__ import annotations

import pytest
import torch

from interp.models.anatomy import anatomy_of, anatomy_or_generic
from tests.interp.models.architecture_cases import EXACT, VOCAB, build, tiny

TOKENS = torch.randint(VOCAB, (2, 12), generator=torch.Generator().manual_seed(1))


def test_a_model_in_training_mode_is_refused():
    model = build("llama").train()
    for take_apart in (anatomy_of, anatomy_or_generic):
        with pytest.raises(ValueError, match="eval"):
            take_apart(model)


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'mamba' is not taken apart.*bloom.*qwen3"):
        anatomy_of(tiny("mamba"))


@pytest.mark.parametrize(
    ("case", "option"),
    [
        ("opt", {"do_layer_norm_before": False}),
        ("bloom", {"apply_residual_connection_post_layernorm": True}),
        ("gemma", {"use_bidirectional_attention": True}),
        ("gpt2", {"reorder_and_upcast_attn": True}),
    ],
)
def test_an_option_that_is_not_supported_is_named(case, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        anatomy_of(build(case, **option))


def test_a_hook_that_acts_late_is_found_on_prompts_that_are_long_enough():
    model = build("llama")
    model.model.layers[0].register_forward_hook(lambda _, __, out: torch.cat([out[:, :9], out[:, 9:] + 3.0], dim=1))
    anatomy = anatomy_of(model)  # the self-test's prompts are shorter
    assert anatomy.check_on(TOKENS[:, :9]) <= 1e-5
    with pytest.raises(RuntimeError, match="differs from the raw model"):
        anatomy.check_on(TOKENS)


def test_a_wrong_window_is_found_by_the_self_test():
    model = build("mistral")
    model.model.config.sliding_window = 3
    anatomy = anatomy_of(model)
    model.model.config.sliding_window = 4
    with pytest.raises(RuntimeError, match="differs from the raw model"):
        anatomy.self_test()


ROPE = {
    "llama": {
        "max_position_embeddings": 10,
        "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    },
    "phi3": {
        "original_max_position_embeddings": 9,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
        },
    },
}


@pytest.mark.parametrize("case", ROPE)
def test_rotation_that_depends_on_the_length_is_exact_up_to_a_length_and_then_refused(case):
    model = build(case, **ROPE[case])
    anatomy = anatomy_of(model)
    long = model(TOKENS).logits  # leaves other frequencies behind
    assert (long[:, :9] - model(TOKENS[:, :9]).logits).abs().max() > 1e-3
    model(TOKENS)
    assert anatomy.difference_on(TOKENS[:, :9]) <= 1e-5
    with pytest.raises(ValueError, match="12 positions; with more than 9 the rotary encoding"):
        anatomy.embed(TOKENS)


@pytest.mark.parametrize("case", ["llama", "qwen3", "falcon"])
def test_fused_attention_keeps_float64(case):
    """Eager attention rounds patterns to float32, fused attention does not."""
    model = build(case, torch.float64, attention="sdpa")
    assert anatomy_of(model).difference_on(TOKENS) <= 1e-12
    eager = build(case, torch.float64)
    if case != "falcon":
        assert (model(TOKENS).logits - eager(TOKENS).logits).abs().max() > 1e-9


@pytest.mark.parametrize("case", EXACT)
def test_weights_give_the_same_steps_where_these_are_linear(case):
    anatomy = anatomy_of(tiny(case, torch.float64)) if case != "xglm" else anatomy_of(tiny(case))
    near = 1e-9 if anatomy.dtype == torch.float64 else 1e-4
    gen = torch.Generator().manual_seed(0)
    for layer, block in enumerate(anatomy.blocks):
        z = torch.randn(2, 3, anatomy.n_heads, anatomy.d_head, generator=gen).to(anatomy.dtype)
        resid = torch.randn(2, 3, anatomy.d_model, generator=gen).to(anatomy.dtype)
        if block.linear_output:
            by_head = torch.einsum("bphe,hed->bpd", z, anatomy.output_weights(layer)) + anatomy.output_bias(layer)
            assert torch.allclose(by_head, block.attn_out(z), atol=near)
        else:
            with pytest.raises(ValueError, match="norms the output of attention"):
                anatomy.output_weights(layer)
        if block.linear_inputs:
            for (weight, bias), x in zip(anatomy.input_weights(layer), block.project(resid), strict=True):
                assert torch.allclose(torch.einsum("bpd,dhe->bphe", block.ln1(resid), weight) + bias, x, atol=near)
        else:
            with pytest.raises(ValueError, match="not linear"):
                anatomy.input_weights(layer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("case", ["gemma2", "gpt_oss", "qwen3_moe", "smollm3"])
def test_half_precision_rounds_where_the_raw_model_does(case, dtype):
    assert anatomy_of(build(case, dtype)).difference_on(TOKENS) <= 0.01
