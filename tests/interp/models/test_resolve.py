"""`raw_of` and `bridge_of` find the same weights behind a run, a raw model and a bridge, however it was booted."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.bloom_block import BloomBlockBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import PreTrainedModel

from interp.models import BRIDGED, ModelConfig, boot_bridge, bridge_of, build_model, load, raw_of

TOKENS = torch.tensor([[1, 5, 9, 17, 3, 28], [2, 29, 8, 8, 20, 11]])
EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 1e-5}


def tiny(family: str) -> PreTrainedModel:
    return build_model(ModelConfig(family, 2, 16, 2), vocab_size=30, seed=0).eval()


def booted_by_user(raw: PreTrainedModel) -> Any:
    """A bridge around a copy, as TransformerLens gives it."""
    return build_bridge_from_module(copy.deepcopy(raw), type(raw).__name__, hf_config=raw.config)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    out = model(TOKENS)
    return out if isinstance(out, torch.Tensor) else out.logits


@torch.no_grad()
def edit(raw: PreTrainedModel, part: str) -> None:
    """Doubles a weight of layer 0 in place."""
    next(p for name, p in raw.named_parameters() if part in name and ".0." in name and p.ndim == 2).mul_(2)


# Raw models


@pytest.mark.parametrize("family", BRIDGED)
def test_a_raw_model_has_one_bridge_on_the_same_weights_and_stays_as_it_is(family: str, tmp_path: Path):
    raw = tiny(family)
    bridge = bridge_of(raw)
    assert bridge_of(raw) is bridge
    assert raw_of(raw) is raw
    assert torch.allclose(logits(bridge), logits(raw), **EXACT)
    assert {p.data_ptr() for p in raw.parameters()} <= {p.data_ptr() for p in bridge.original_model.parameters()}
    raw.save_pretrained(tmp_path)  # a booted model could not be


@pytest.mark.parametrize("part", ["mlp", "attn", "query_key_value"])
@pytest.mark.parametrize("family", BRIDGED)
def test_a_bridge_follows_edited_weights(family: str, part: str):
    raw = tiny(family)
    before = logits(bridge_of(raw))
    try:
        edit(raw, part)
    except StopIteration:
        pytest.skip("the architecture has no such weight")
    assert torch.allclose(logits(bridge_of(raw)), logits(raw), **EXACT)
    assert not torch.allclose(before, logits(raw), **EXACT)


def test_a_bridge_follows_replaced_weights_and_types():
    raw = tiny("rotary")
    raw.lm_head.weight = torch.nn.Parameter(raw.lm_head.weight * 2)
    assert torch.allclose(logits(bridge_of(raw)), logits(raw), **EXACT)
    assert bridge_of(raw.double()).cfg.dtype == torch.float64


def test_bridges_end_with_their_raw_models():
    raw = tiny("absolute")
    kept = weakref.ref(bridge_of(raw))
    del raw
    gc.collect()
    assert kept() is None


# Bridges


@pytest.mark.parametrize("family", BRIDGED)
def test_our_bridge_gives_a_raw_model_on_the_same_weights(family: str):
    raw = tiny(family)
    expected = logits(raw)
    bridge = boot_bridge(raw)
    assert bridge_of(bridge) is bridge
    assert raw_of(bridge) is raw_of(bridge)
    assert torch.allclose(logits(raw_of(bridge)), expected, **EXACT)


@pytest.mark.filterwarnings("ignore:BLOOM blocks of this bridge were mended")
@pytest.mark.parametrize("family", BRIDGED)
def test_a_users_bridge_is_adopted(family: str, tmp_path: Path):
    raw = tiny(family)
    bridge = booted_by_user(raw)
    twin = raw_of(bridge)
    assert raw_of(bridge) is twin
    assert bridge_of(bridge) is bridge
    assert type(twin) is type(raw)
    assert torch.allclose(logits(twin), logits(raw), **EXACT)
    assert {p.data_ptr() for p in twin.parameters()} <= {p.data_ptr() for p in bridge.original_model.parameters()}
    twin.save_pretrained(tmp_path)


def test_a_bridge_that_transformer_lens_booted_from_a_folder(saved_families: Path):
    bridge = TransformerBridge.boot_transformers(str(saved_families / "absolute"), device="cpu")
    run = load(saved_families / "absolute", device="cpu")
    assert torch.allclose(logits(raw_of(bridge)), logits(run.raw), **EXACT)
    assert load(bridge).tokenizer is bridge.tokenizer


def test_bloom_blocks_are_mended_and_the_user_is_told():
    bridge = booted_by_user(tiny("alibi"))
    with pytest.warns(UserWarning, match="BLOOM blocks of this bridge were mended"):
        raw_of(bridge)
    assert not any(type(block) is BloomBlockBridge for block in bridge.blocks)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(TOKENS)
        resumed = bridge(cache["blocks.1.hook_resid_pre"], start_at_layer=1)
    assert torch.allclose(resumed, logits(raw_of(bridge)), **EXACT)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b.train(), r"the bridge is in training mode; call bridge\.eval\(\) first"),
        (lambda b: b.blocks[0].attn.q.original_component.weight.mul_(2), "whose weights may have been edited since"),
        (lambda b: b.add_hook("blocks.0.hook_resid_pre", lambda x, hook: x.roll(1, 1)), "hooks change its logits"),
    ],
    ids=["training", "fused weight edited", "hook"],
)
def test_a_users_bridge_that_differs_is_refused_with_the_reason(spoil: Any, message: str):
    bridge = booted_by_user(tiny("rotary"))
    with torch.no_grad():
        spoil(bridge)
    with pytest.raises(ValueError, match=message) as caught:
        raw_of(bridge)
    assert "\n" not in str(caught.value)


def test_a_bridge_whose_copied_weights_are_edited_later_is_refused():
    bridge = boot_bridge(tiny("rotary"))
    raw_of(bridge)
    with torch.no_grad():
        bridge.blocks[0].attn.q.original_component.weight.mul_(2)
    with pytest.raises(RuntimeError, match="the bridge's logits differ from the raw model's"):
        raw_of(bridge)


def test_a_run_is_its_raw_model_and_its_bridge(saved_families: Path):
    run = load(saved_families / "rotary", device="cpu")
    assert raw_of(run) is run.raw
    assert bridge_of(run) is run.model is bridge_of(run.raw)


@pytest.mark.parametrize("resolve", [raw_of, bridge_of])
@pytest.mark.parametrize("model", ["gpt2", None, torch.nn.Linear(2, 2)], ids=["name", "None", "module"])
def test_other_things_are_refused(resolve: Any, model: Any):
    with pytest.raises(ValueError, match=r"^model must be a run from interp\.load, a Hugging Face .*; got \w+$"):
        resolve(model)
