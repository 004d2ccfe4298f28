"""How does a raw model become a TransformerBridge whose hooks can be trusted?

TransformerLens is imported inside the functions: a cold import takes seconds, and tasks, training and
evaluation do not need it. Facts here hold for TransformerLens 4.3, which `pyproject.toml` pins.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PreTrainedModel

from interp.models.native import NativeRaw, native_of
from interp.models.sink import MODEL_TYPE as KEY_SINK
from interp.support.finite import difference_of_finite

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Largest difference from the raw model's logits, relative to their spread. Measured: 0 to 1.5e-6.
TOLERANCE = 1e-4
_TWIN = "mnemoscope_raw"


def boot_bridge(raw: PreTrainedModel) -> TransformerBridge:
    """A TransformerBridge around a raw model, proved to give the raw model's logits.

    **Takes the raw model over**: booting changes it in place, so that it can no longer be saved; load
    another copy where both are needed. Compatibility mode stays off (it folds weights).

    Raises `ValueError` for an architecture that TransformerLens does not know, and `RuntimeError` when the
    bridge's logits differ from the raw model's.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    if raw.config.model_type == KEY_SINK:
        raise ValueError("TransformerLens knows no key sinks: this model has no bridge; use its `raw`")
    tokens = _self_test_tokens(raw)
    with torch.no_grad():
        expected = raw(tokens).logits
    architecture = type(raw).__name__
    # A twin that shares the weights keeps the modules as they were, for everything that needs no hook.
    twin = copy.deepcopy(raw, memo={id(t): t for t in (*raw.parameters(), *raw.buffers())})
    try:
        bridge = build_bridge_from_module(raw, architecture, hf_config=raw.config)
    except (ValueError, KeyError, NotImplementedError, AttributeError) as error:
        raise ValueError(f"TransformerLens cannot serve {architecture}: {error}") from error
    # Strings would get a BOS that token tensors do not get; this house passes tensors only.
    bridge.cfg.default_prepend_bos = False
    if raw.config.model_type == "bloom":
        _mend_bloom(bridge)
    bridge.eval()
    _self_test(bridge, tokens, expected)
    bridge.__dict__[_TWIN] = twin
    return bridge


def raw_of(model: TransformerBridge | PreTrainedModel) -> PreTrainedModel:
    """The raw model: the model itself, or the twin that shares a bridge's weights.

    For a bridge that `TransformerBridge.boot_native` made, the twin is a `NativeRaw`, which serves as one. Raises
    `ValueError` for another bridge that this package did not boot, and for native models as `native_of`;
    `RuntimeError` where a native twin gives other logits than its bridge.
    """
    if isinstance(model, PreTrainedModel | NativeRaw):
        return cast(PreTrainedModel, model)
    twin = getattr(model, "__dict__", {}).get(_TWIN)
    if twin is None and hasattr(model, "original_model"):
        twin = _native_twin(model)
    if twin is None:
        raise ValueError(
            f"expected a run's `model` or `raw`, or a Hugging Face model; got {type(model).__name__} (a bridge must "
            "be booted by interp.models.boot_bridge, which keeps the raw model, or by TransformerBridge.boot_native)"
        )
    return twin


def _native_twin(bridge: Any) -> Any:
    twin = native_of(bridge)
    if twin is not None:
        config = twin.config
        shape = (2, min(6, config.max_position_embeddings))
        gen = torch.Generator().manual_seed(0)
        tokens = torch.randint(config.vocab_size, shape, generator=gen).to(twin.device)
        with torch.no_grad():
            _require_equal("logits", bridge(tokens), twin(tokens).logits)
        bridge.__dict__[_TWIN] = twin
    return twin


def _mend_bloom(bridge: Any) -> None:
    """Gives BLOOM blocks the three calls that their `forward` skips in TransformerLens 4.3.

    Without them `start_at_layer` gives wrong logits, `hook_mlp_in` never fires, and the inputs of split
    q/k/v are taken after the LayerNorm. The class of each block is replaced, not the library's own class,
    so that other bridges in the process keep their behaviour.
    """
    from transformer_lens.model_bridge.generalized_components.bloom_block import BloomBlockBridge

    class MendedBloomBlock(BloomBlockBridge):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self._maybe_wire_capture_hooks()
            self._clear_attention_capture()
            args, kwargs = self._maybe_inject_start_residual(args, kwargs)
            try:
                return super().forward(*args, **kwargs)
            finally:
                self._clear_attention_capture()

    for block in bridge.blocks:
        assert type(block) is BloomBlockBridge, "TransformerLens builds BLOOM of another block now"
        block.__class__ = MendedBloomBlock


def _self_test_tokens(raw: PreTrainedModel) -> torch.Tensor:
    gen = torch.Generator().manual_seed(0)
    return torch.randint(raw.config.vocab_size, (2, 6), generator=gen).to(raw.device)


def _self_test(bridge: Any, tokens: torch.Tensor, expected: torch.Tensor) -> None:
    with torch.no_grad():
        logits = bridge(tokens)
        _require_equal("logits", logits, expected)
        if len(bridge.blocks) > 1 and bridge.cfg.architecture == "BloomForCausalLM":
            _, cache = bridge.run_with_cache(tokens, names_filter="blocks.1.hook_resid_pre")
            resumed = bridge(cache["blocks.1.hook_resid_pre"], start_at_layer=1)
            _require_equal("logits from start_at_layer=1", resumed, expected)


def _require_equal(what: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    difference = difference_of_finite(got, expected)
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"the bridge's {what} differ from the raw model's by {difference:.1e} of their spread "
            f"(allowed {TOLERANCE:.0e}); is transformer-lens 4.3 installed?"
        )
