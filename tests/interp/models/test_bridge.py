"""The bridge is the raw model with hooks, and the traps of TransformerLens 4.3 that we avoid are there.

Where a "before" half fails, TransformerLens has changed: read `interp/models/bridge.py` again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge.generalized_components.bloom_block import BloomBlockBridge
from transformer_lens.model_bridge.sources import _bridge_builder
from transformers import CTRLConfig, CTRLLMHeadModel, PreTrainedModel

from interp.models import BRIDGED, FAMILIES, ModelConfig, Run, build_model, load_raw, load_run, load_tokenizer
from interp.models.bridge import boot_bridge
from tests.interp.models.architecture_cases import build

FOREIGN = ("llama-default", "llama-foreign", "opt-default", "opt-foreign")
TOKENS = torch.tensor([[1, 5, 9, 17, 3, 28], [2, 29, 8, 8, 20, 11]])


def tiny(family: str, n_layers: int = 2) -> PreTrainedModel:
    return build_model(ModelConfig(family, n_layers, d_model=16, n_heads=2), vocab_size=30, seed=0).eval()


def unmended(raw: PreTrainedModel) -> Any:
    """The bridge that TransformerLens builds, without our mends."""
    return _bridge_builder.build_bridge_from_module(raw, type(raw).__name__, hf_config=raw.config)


@torch.no_grad()
def raw_logits(raw: PreTrainedModel) -> torch.Tensor:
    return raw(TOKENS).logits


@pytest.fixture(params=[*BRIDGED, *FOREIGN], scope="module")
def run(request: pytest.FixtureRequest, saved_families: Path, saved_foreign: Path) -> Run:
    """A run of each family and of each folder of other origin: the same call for all."""
    if request.param in BRIDGED:
        return load_run(saved_families / request.param, "parity-aligned")
    return load_run(saved_foreign / request.param, "parity-aligned")


# Any model


def test_bridge_gives_the_raw_logits(run: Run):
    batch = run.sample(batch_size=3, length=4, seed=0)
    with torch.no_grad():
        raw, bridge = run.raw(batch.tokens).logits, run.model(batch.tokens)
    assert raw.std() > 1e-3
    assert torch.allclose(bridge, raw, rtol=0, atol=1e-5)


def test_patterns_are_there_and_sum_to_1(run: Run):
    batch = run.sample(batch_size=3, length=4, seed=0)
    _, cache = run.model.run_with_cache(batch.tokens)
    for layer in range(2):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        assert pattern.shape == (3, 2, batch.n_pos, batch.n_pos)
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-6)
        assert (pattern.triu(1) == 0).all()


def test_bridge_is_in_evaluation_mode_and_prepends_nothing(run: Run):
    assert not any(module.training for module in run.model.modules())
    assert run.model.cfg.default_prepend_bos is False  # none of these tokenizers adds a start token
    batch = run.sample(batch_size=1, length=2, seed=0)
    assert run.model(batch.tokens).shape[1] == batch.n_pos


def test_booting_leaves_the_raw_model_as_it_is(run: Run, tmp_path: Path):
    assert run.model is run.model
    assert run.raw is run.raw
    run.raw.save_pretrained(tmp_path)
    saved = load_raw(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(run.raw.parameters(), saved.parameters(), strict=True))
    shared = {p.data_ptr() for p in run.raw.parameters()} & {
        p.data_ptr() for p in run.model.original_model.parameters()
    }
    assert len(shared) == len(list(run.raw.parameters()))


def test_booting_changes_no_token_id(run: Run):
    before = load_tokenizer(run.source).get_vocab()
    assert run.model.cfg.d_vocab == run.raw.config.vocab_size == len(before)
    assert load_tokenizer(run.source).get_vocab() == before
    assert set(run.vocabulary.ids.values()) <= set(before.values())


# The four families


@pytest.mark.parametrize("family", BRIDGED)
def test_a_booted_model_can_no_longer_be_saved(family: str, tmp_path: Path):
    raw = tiny(family)
    raw.save_pretrained(tmp_path / "before")
    bridge = boot_bridge(raw)
    assert bridge.original_model is raw
    with pytest.raises(RuntimeError, match=r"shared tensors|view size is not compatible"):
        raw.save_pretrained(tmp_path / "after")


@pytest.mark.parametrize("family", BRIDGED)
def test_a_model_in_training_mode_is_booted_in_evaluation_mode(family: str):
    assert not any(module.training for module in boot_bridge(tiny(family).train()).modules())


@pytest.mark.parametrize("family", BRIDGED)
def test_one_layer_is_enough(family: str):
    raw = tiny(family, n_layers=1)
    expected = raw_logits(raw)
    with torch.no_grad():
        assert torch.allclose(boot_bridge(raw)(TOKENS), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("family", BRIDGED)
def test_other_dtypes_boot(family: str, dtype: torch.dtype):
    assert boot_bridge(tiny(family).to(dtype=dtype)).cfg.dtype == dtype  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def start_error(bridge: Any, expected: torch.Tensor) -> float:
    """How far logits resumed from layer 1 are from those of the whole model."""
    _, cache = bridge.run_with_cache(TOKENS)
    resumed = bridge(cache["blocks.1.hook_resid_pre"], start_at_layer=1)
    return float((resumed - expected).abs().max())


@torch.no_grad()
def mlp_in_error(bridge: Any) -> float:
    """How far the MLP's split input is from the residual it should be; infinity where it never fires."""
    bridge.set_use_hook_mlp_in(True)
    try:
        _, cache = bridge.run_with_cache(TOKENS)
    finally:
        bridge.set_use_hook_mlp_in(False)
    if "blocks.1.hook_mlp_in" not in cache:
        return float("inf")
    mid = cache["blocks.1.hook_resid_pre"] + cache["blocks.1.hook_attn_out"]
    return float((cache["blocks.1.hook_mlp_in"] - mid).abs().max())


@torch.no_grad()
def split_error(bridge: Any) -> float:
    """How far the split inputs of q, k and v are from the residual before the LayerNorm."""
    bridge.set_use_split_qkv_input(True)
    try:
        _, cache = bridge.run_with_cache(TOKENS)
    finally:
        bridge.set_use_split_qkv_input(False)
    pre = cache["blocks.1.hook_resid_pre"].unsqueeze(2)
    return max(float((cache[f"blocks.1.attn.hook_{x}_input"] - pre).abs().max()) for x in "qkv")


@pytest.mark.parametrize("family", BRIDGED)
def test_what_the_mend_restores_holds_for_every_family(family: str):
    raw = tiny(family)
    expected = raw_logits(raw)
    bridge = boot_bridge(raw)
    assert start_error(bridge, expected) < 1e-5
    assert mlp_in_error(bridge) < 1e-5
    assert split_error(bridge) < 1e-5


def test_without_the_mend_bloom_is_wrong():
    raw = tiny("alibi")
    expected = raw_logits(raw)
    bridge = unmended(raw)
    assert torch.allclose(bridge(TOKENS), expected, atol=1e-5)
    assert start_error(bridge, expected) > 1e-2
    assert mlp_in_error(bridge) == float("inf")
    assert split_error(bridge) > 1e-2


def test_without_our_care_gpt2_would_get_a_bos():
    assert unmended(tiny("absolute")).cfg.default_prepend_bos is True


def test_the_mend_leaves_the_library_alone():
    forward = BloomBlockBridge.forward
    before = unmended(tiny("alibi"))
    mended = boot_bridge(tiny("alibi"))
    assert BloomBlockBridge.forward is forward
    for block in mended.blocks:
        assert isinstance(block, BloomBlockBridge)
        assert type(block) is not BloomBlockBridge
    for bridge in (before, unmended(tiny("alibi"))):
        assert {type(block) for block in bridge.blocks} == {BloomBlockBridge}


def test_mended_blooms_hooks_fire_once_and_edits_act():
    raw = tiny("alibi")
    expected = raw_logits(raw)
    bridge = boot_bridge(raw)
    names = [f"blocks.1.{h}" for h in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z")]
    for name in names:
        fired = []

        def zero(value: torch.Tensor, hook: Any, fired: list = fired) -> torch.Tensor:
            fired.append(hook.name)
            return torch.zeros_like(value)

        with torch.no_grad():
            edited = bridge.run_with_hooks(TOKENS, fwd_hooks=[(name, zero)])
        assert len(fired) == 1, name
        assert (edited - expected).abs().max() > 1e-3, name
    with torch.no_grad():
        assert torch.allclose(bridge(TOKENS), expected, atol=1e-5)


# The self-test


def boot_with(monkeypatch: pytest.MonkeyPatch, raw: PreTrainedModel, spoil: Any) -> None:
    """Boots a bridge that TransformerLens builds and `spoil` then damages."""
    build = _bridge_builder.build_bridge_from_module

    def spoiled(*args: Any, **kwargs: Any) -> Any:
        bridge = build(*args, **kwargs)
        spoil(bridge)
        return bridge

    monkeypatch.setattr(_bridge_builder, "build_bridge_from_module", spoiled)
    boot_bridge(raw)


def other_weight(bridge: Any) -> None:
    with torch.no_grad():
        bridge.blocks[1].mlp.out.original_component.weight.mul_(1.01)


def not_a_number(bridge: Any) -> None:
    with torch.no_grad():
        bridge.blocks[1].mlp.out.original_component.weight[0, 0] = torch.nan


def stray_hook(bridge: Any) -> None:
    bridge.add_hook("blocks.0.hook_resid_pre", lambda value, hook: value.roll(1, dims=1), is_permanent=True)


@pytest.mark.parametrize("spoil", [other_weight, not_a_number, stray_hook])
@pytest.mark.parametrize("family", BRIDGED)
def test_a_bridge_that_differs_is_refused(family: str, spoil: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RuntimeError, match="the bridge's logits differ from the raw model's by"):
        boot_with(monkeypatch, tiny(family), spoil)


@pytest.mark.parametrize("family", BRIDGED)
def test_a_bridge_that_does_not_differ_is_not(family: str, monkeypatch: pytest.MonkeyPatch):
    boot_with(monkeypatch, tiny(family), lambda bridge: None)


def test_an_unmended_bloom_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("interp.models.bridge.mend_bloom", lambda bridge: False)
    with pytest.raises(RuntimeError, match="logits from start_at_layer=1 differ"):
        boot_bridge(tiny("alibi"))


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(BRIDGED)))
def test_a_family_without_a_bridge_is_refused_in_one_line(family: str, saved_families: Path):
    run = load_run(saved_families / family)
    with pytest.raises(ValueError, match=r"^TransformerLens knows no key sinks: this model has no bridge; .*\Z"):
        _ = run.model
    assert run.raw(TOKENS).logits.isfinite().all()


def test_an_unknown_architecture_is_named():
    raw = CTRLLMHeadModel(CTRLConfig(n_embd=16, n_layer=1, n_head=2, dff=16, vocab_size=30)).eval()
    with pytest.raises(ValueError, match="TransformerLens cannot serve CTRLLMHeadModel: Unsupported"):
        boot_bridge(raw)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("falcon, new_decoder_architecture", "FalconForCausalLM"),  # fails while it is built
        ("opt, do_layer_norm_before=False", "OPTForCausalLM"),  # fails when it runs
        ("phi, qk_layernorm", "PhiForCausalLM"),
    ],
)
def test_an_option_that_transformer_lens_cannot_serve_is_one_line_with_the_architecture(case: str, name: str):
    with pytest.raises(ValueError, match=rf"^TransformerLens cannot serve {name}: [^\n]+\Z"):
        boot_bridge(build(case))
