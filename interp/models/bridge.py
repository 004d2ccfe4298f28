"""Boot a TransformerBridge around a raw model, mend its known defects, and check that it gives the same logits.

TransformerLens is imported inside the functions: a cold import takes seconds, and tasks, training and
evaluation do not need it. The defects are those of TransformerLens 4.3, which `pyproject.toml` pins.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from interp.models.changed import is_edited
from interp.models.checking import one_line
from interp.models.sink import MODEL_TYPE as KEY_SINK
from interp.models.weights import fingerprint, share_weights
from interp.support.finite import difference_of_finite
from interp.support.locks import lock_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Largest difference from the raw model's logits, relative to their spread. Measured: 0 to 1.5e-6.
TOLERANCE = 1e-4
# The same in float16 and bfloat16, where another order of operations rounds differently.
TOLERANCE_HALF = 0.1
_TWIN = "mnemoscope_raw"
_BRIDGES: WeakKeyDictionary[nn.Module, tuple[Hashable, Any]] = WeakKeyDictionary()


def boot_bridge(raw: PreTrainedModel, tokenizer: Tokenizer | None = None) -> TransformerBridge:
    """Return a TransformerBridge around a raw model, checked to give the raw model's logits.

    **Takes the raw model over**: booting changes it in place, so that it can no longer be saved; `shared_bridge`
    does not. Compatibility mode stays off (it folds weights). With a tokenizer, `bridge.to_tokens` works.

    Raises `ValueError`, in one line that names it, for an architecture that TransformerLens cannot build or run, and
    `RuntimeError` when the bridge's logits differ from the raw model's.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    if raw.config.model_type == KEY_SINK:
        raise ValueError("TransformerLens knows no key sinks: this model has no bridge; use its `raw`")
    tokens = sample_tokens(raw)
    with torch.no_grad():
        expected = raw(tokens).logits
    architecture = type(raw).__name__
    twin = share_weights(raw)
    with _one_line_errors(architecture):
        bridge = build_bridge_from_module(raw, architecture, hf_config=raw.config)
    # Strings would get a BOS that token tensors do not get.
    bridge.cfg.default_prepend_bos = False
    if tokenizer is not None:
        set_tokenizer(bridge, tokenizer)
    mend_bloom(bridge)
    bridge.eval()
    _self_test(bridge, tokens, expected)
    set_twin(bridge, twin)
    return bridge


def shared_bridge(raw: PreTrainedModel, tokenizer: Tokenizer | None = None) -> TransformerBridge:
    """Return a bridge that shares a raw model's weights and leaves the raw model as it is.

    The bridge is kept as long as the raw model is, and booted again when the weights changed since (except through
    `weight.data`): on BLOOM and GPT-NeoX the bridge's q, k and v are copies. Raises as `boot_bridge`.
    """
    state = fingerprint(raw)
    kept = _BRIDGES.get(raw)
    if kept is None or kept[0] != state:
        _BRIDGES[raw] = kept = (state, boot_bridge(share_weights(raw), tokenizer))
    elif tokenizer is not None and kept[1].tokenizer is None:
        set_tokenizer(kept[1], tokenizer)
    return kept[1]


def set_tokenizer(bridge: Any, tokenizer: Tokenizer) -> None:
    """Give a bridge a copy of a tokenizer, so that its `to_tokens` gives what the tokenizer's own encoding gives.

    TransformerLens adds missing special tokens to the tokenizer it is given; the copy keeps the caller's unchanged.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import configure_tokenizer

    tokenizer = copy.deepcopy(tokenizer)
    # Without these TransformerLens loads the tokenizer anew from its name, with a BOS.
    tokenizer.init_kwargs.update(name_or_path="in memory", add_bos_token=True)
    bridge.tokenizer = configure_tokenizer(tokenizer, bridge.cfg)
    bridge.cfg.default_prepend_bos = bridge.cfg.tokenizer_prepends_bos


def twin_of(bridge: Any) -> Any:
    """Return the raw model that shares a bridge's weights; None for a bridge that has none yet.

    Raises `RuntimeError` when the weights of either were edited since and the logits differ now.
    """
    kept = getattr(bridge, "__dict__", {}).get(_TWIN)
    if kept is None:
        return None
    twin, state = kept
    if is_edited(bridge):
        return twin  # its hooks change the state, and the logits
    if state != _state(bridge, twin):
        with lock_of(twin):  # hooks of another thread's block change the state too, until the block ends
            if state != _state(bridge, twin):
                require_equal_to_twin(bridge, twin)
                set_twin(bridge, twin)
    return twin


def set_twin(bridge: Any, twin: Any) -> None:
    """Record the raw model that shares a bridge's weights, with the state of the weights at which they are equal."""
    bridge.__dict__[_TWIN] = (twin, _state(bridge, twin))


def require_equal_to_twin(bridge: Any, twin: Any) -> None:
    """Raise `RuntimeError` when a bridge and its raw twin give different logits on random tokens."""
    tokens = sample_tokens(twin)
    with torch.no_grad():
        require_equal("logits", bridge(tokens), twin(tokens).logits)


def mend_bloom(bridge: Any) -> bool:
    """Give BLOOM blocks the three calls that their `forward` skips in TransformerLens 4.3; return whether any did.

    Without them `start_at_layer` gives wrong logits, `hook_mlp_in` never fires, and the inputs of split
    q/k/v are taken after the LayerNorm. The class of each block is replaced, not the library's own class,
    so that other bridges in the process keep their behaviour.
    """
    if bridge.cfg.architecture != "BloomForCausalLM":
        return False
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

    unmended = [block for block in bridge.blocks if type(block).__name__ != MendedBloomBlock.__name__]
    for block in unmended:
        assert type(block) is BloomBlockBridge, "this TransformerLens builds BLOOM from another block class"
        block.__class__ = MendedBloomBlock
    return bool(unmended)


def sample_tokens(raw: Any) -> torch.Tensor:
    """Return the random tokens `[2 pos]` of the self-tests: at most 6 positions."""
    gen = torch.Generator().manual_seed(0)
    n_pos = min(6, getattr(raw.config, "max_position_embeddings", None) or 6)
    return torch.randint(raw.config.vocab_size, (2, n_pos), generator=gen).to(raw.device)


def require_equal(what: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    """Raise `RuntimeError` when a bridge's numbers differ from the raw model's by more than rounding."""
    difference = difference_of_finite(got, expected)
    allowed = TOLERANCE if expected.dtype in (torch.float32, torch.float64) else TOLERANCE_HALF
    if not difference <= allowed:
        raise RuntimeError(
            f"the bridge's {what} differ from the raw model's by {difference:.1e} of their spread "
            f"(allowed {allowed:.0e}); is transformer-lens 4.3 installed?"
        )


def _state(bridge: Any, twin: nn.Module) -> Hashable:
    return fingerprint(bridge.original_model), fingerprint(twin)


@contextmanager
def _one_line_errors(architecture: str) -> Iterator[None]:
    """Turn TransformerLens's errors inside the block into a one-line `ValueError`, except those about memory."""
    try:
        yield
    except (ValueError, KeyError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        raise ValueError(f"TransformerLens cannot serve {architecture}: {one_line(error)}") from error


def _self_test(bridge: Any, tokens: torch.Tensor, expected: torch.Tensor) -> None:
    with torch.no_grad():
        with _one_line_errors(type(bridge.original_model).__name__):
            logits = bridge(tokens)
        require_equal("logits", logits, expected)
        if len(bridge.blocks) > 1 and bridge.cfg.architecture == "BloomForCausalLM":
            _, cache = bridge.run_with_cache(tokens, names_filter="blocks.1.hook_resid_pre")
            resumed = bridge(cache["blocks.1.hook_resid_pre"], start_at_layer=1)
            require_equal("logits from start_at_layer=1", resumed, expected)
