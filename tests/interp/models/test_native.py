"""Models of TransformerLens's own serve as raw models, and what skips work under a causal mask refuses the others."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import boot

from interp.models import raw_of
from interp.models.anatomy import anatomy_of
from interp.patching import logit_diff, patch
from interp.patching.knocking_out import knock_out
from interp.patching.knockouts import Knockout
from interp.patching.nodes import Receiver, Sender
from interp.patching.paths import path_patch
from interp.patching.sweeping import plan
from interp.tasks import counterfactual, default_vocabulary, sample

VOCAB = len(default_vocabulary().ids)
CLEAN = sample("parity-aligned", 3, 3, 0)
CORRUPTED = counterfactual.redraw(CLEAN, 1)
SUPPORTED: tuple[dict[str, Any], ...] = (
    {},
    {"normalization_type": None},
    {"normalization_type": "LNPre"},
    {"normalization_type": "RMS"},
    {"attention_dir": "bidirectional"},
    {"attn_only": True},
    {"n_key_value_heads": 1},
    {"act_fn": "gelu_new"},
    {"d_vocab_out": 3},
    {"n_ctx": 4},
)


def native(**options: Any) -> Any:
    """A random native model; the bridge that TransformerLens gives."""
    common = {
        "n_layers": 2,
        "d_model": 8,
        "d_head": 4,
        "n_heads": 2,
        "n_ctx": 40,
        "d_vocab": VOCAB,
        "d_mlp": 16,
        "act_fn": "relu",
        "normalization_type": "LN",
        "seed": 0,
        "initializer_range": 0.3,
    }
    return boot(TransformerBridgeConfig(**common | options))


@pytest.mark.parametrize("options", SUPPORTED, ids=str)
def test_the_parts_make_the_whole(options):
    bridge = native(**options)
    raw: Any = raw_of(bridge)
    assert raw_of(bridge) is raw
    assert raw_of(raw) is raw
    anatomy = anatomy_of(raw)
    assert anatomy.causal == (options.get("attention_dir") != "bidirectional")
    tokens = torch.randint(VOCAB, (2, 4), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, logits = bridge(tokens), raw(tokens).logits
        assert torch.allclose(logits, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
        assert logits.std() > 0.01
        for keep in (2, torch.tensor([1, 3])):
            at = slice(-2, None) if isinstance(keep, int) else keep
            assert torch.equal(raw(tokens, logits_to_keep=keep).logits, logits[:, at])


def test_weights_are_the_bridges_own_whenever_they_change():
    bridge = native()
    raw: Any = raw_of(bridge)
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        before = raw(tokens).logits
        bridge.unembed.original_component.weight.mul_(2.0)
        assert torch.allclose(raw(tokens).logits, 2 * before)
        bridge.double()
        assert torch.allclose(raw(tokens).logits, bridge(tokens), rtol=0, atol=1e-6)
    assert raw.dtype == torch.float64
    with pytest.raises(ValueError, match="no cache"):
        raw(tokens, use_cache=True)


@pytest.mark.parametrize(
    "options",
    [
        {"positional_embedding_type": "rotary"},
        {"gated_mlp": True, "act_fn": "silu"},
        {"act_fn": "solu_ln"},
        {"output_logits_soft_cap": 3.0},
        {"attn_scores_soft_cap": 3.0},
    ],
    ids=str,
)
def test_other_native_models_are_refused_by_name(options):
    with pytest.raises(ValueError, match="supported with learned positions, plain MLPs"):
        raw_of(native(**options))


def test_a_twin_that_differs_from_its_bridge_is_refused():
    bridge = native()
    bridge.unembed.register_forward_hook(lambda module, args, out: out + 1.0)
    with pytest.raises(ValueError, match=r"its logits are not those of .* .the bridge's logits differ"):
        raw_of(bridge)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "mlp_out", "z", "pattern"])
def test_sweeps_of_native_models_are_held_to_the_literal_loop(site):
    effect = patch(native(), CLEAN, CORRUPTED, site, logit_diff(CLEAN, 2), spot_cells=6)
    assert effect.values.std() > 0


def test_a_model_without_mlps_is_swept_but_for_them():
    effect = patch(native(attn_only=True), CLEAN, CORRUPTED, "z", logit_diff(CLEAN, 2))
    assert effect.values.std() > 0
    with pytest.raises(ValueError, match="no MLPs"):
        patch(native(attn_only=True), CLEAN, CORRUPTED, "mlp_out", logit_diff(CLEAN, 2))


def test_sweeps_refuse_a_model_without_a_causal_mask():
    for function in (patch, plan):
        with pytest.raises(ValueError, match="attends in both directions"):
            function(native(attention_dir="bidirectional"), CLEAN, CORRUPTED, "resid_pre", logit_diff(CLEAN, 2))


def test_knockouts_remove_edges_from_later_positions_where_there_are_any():
    """The literal form: the pattern's entries are set to zero by a hook on the bridge, and the rest renormalised."""
    bridge, metric, dest, src = native(attention_dir="bidirectional"), logit_diff(CLEAN, 1), 2, CLEAN.n_pos - 1

    def edit(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
        pattern = pattern.clone()
        pattern[:, :, dest, src] = 0.0
        return pattern / pattern.sum(dim=-1, keepdim=True)

    with torch.no_grad():
        logits = bridge.run_with_hooks(CLEAN.tokens, fwd_hooks=[("blocks.0.attn.hook_pattern", edit)])
    expected = metric.compute(logits[:, metric.positions], torch.arange(len(CLEAN)))
    effect = knock_out(bridge, CLEAN, Knockout((src,), (dest,), layers=(0,)), metric)
    assert torch.allclose(effect.values[0].float(), expected, atol=1e-5)
    assert not torch.allclose(effect.values[0].float(), effect.base.float(), atol=1e-5)
    with pytest.raises(ValueError, match="every source is after every destination"):
        knock_out(native(), CLEAN, Knockout((src,), (dest,), layers=(0,)), metric)


def test_paths_reach_earlier_positions_where_attention_does():
    """Only the last position differs at the sender; an earlier position's answer hears of it through a key alone."""
    sender, receiver = Sender("embed", at=(CLEAN.n_pos - 1,)), Receiver("v", 1, 0)
    other = CORRUPTED.tokens.clone()
    other[:, :-1] = CLEAN.tokens[:, :-1]
    other[:, -1] = (CLEAN.tokens[:, -1] + 1) % VOCAB
    source, metric = replace(CLEAN, tokens=other), logit_diff(CLEAN, 1)
    for direction, moves in (("bidirectional", True), ("causal", False)):
        effect = path_patch(native(attention_dir=direction), CLEAN, source, sender, receiver, metric)
        assert bool((effect.values[0] - effect.base).abs().max() > 1e-4) == moves
