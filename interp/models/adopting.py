"""Raw models for bridges that this package did not boot: TransformerLens's native models, and the user's own bridges.

Booting replaces modules of the Hugging Face model in place. The weights are still there under longer names, so a
clean model of the same class can be built around them.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import PreTrainedModel

from interp.models.bridge import mend_bloom, require_equal_to_twin, set_twin
from interp.models.native import native_of

# What TransformerLens puts between a module's name and the names of its weights.
WRAPPER = "._original_component"


def adopt(bridge: Any) -> Any:
    """Return a raw model that shares the weights of a bridge that the user booted, and record it as the bridge's twin.

    A native bridge (`TransformerBridge.boot_native`) gives a `NativeRaw`. BLOOM blocks are mended, with a warning.
    Raises `ValueError` where no raw model gives the same logits: training mode, compatibility mode, edited copies of
    weights, hooks that were left, or a model that cannot be built from its configuration.
    """
    twin = native_of(bridge)
    if twin is None:
        if bridge.training or bridge.original_model.training:
            raise ValueError("the bridge is in training mode; call bridge.eval() first")
        twin = _clean_twin(bridge.original_model)
    try:
        require_equal_to_twin(bridge, twin)
    except RuntimeError as error:
        raise ValueError(f"this bridge cannot be used: {_why_unequal(bridge)} ({error})") from error
    if mend_bloom(bridge):
        warnings.warn(
            "BLOOM blocks of this bridge were mended: in TransformerLens 4.3 their start_at_layer, hook_mlp_in and "
            "split q/k/v inputs are wrong",
            stacklevel=4,
        )
    set_twin(bridge, twin)
    return twin


def _clean_twin(wrapped: nn.Module) -> PreTrainedModel:
    """Return a model of the class that was wrapped, around the weights of `wrapped`."""
    name = type(wrapped).__name__
    if not isinstance(wrapped, PreTrainedModel):
        raise ValueError(f"this bridge cannot be used: it wraps a {name}, which is not a Hugging Face model")
    config = copy.deepcopy(wrapped.config)
    config._attn_implementation = "eager"
    try:
        with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
            clean = type(wrapped)(config)
    except Exception as error:  # whatever a class with another signature, or one of remote code, raises
        raise ValueError(f"this bridge cannot be used: {name} cannot be built from its configuration") from error
    tensors = {n.replace(WRAPPER, ""): p for n, p in wrapped.named_parameters(remove_duplicate=False)}
    tensors |= {n.replace(WRAPPER, ""): b for n, b in wrapped.named_buffers(remove_duplicate=False)}
    parameters = list(clean.named_parameters(remove_duplicate=False))
    buffers = [(n, b) for n, b in clean.named_buffers(remove_duplicate=False) if n in tensors]
    for path, empty in parameters + buffers:
        if path not in tensors or tensors[path].shape != empty.shape:
            raise ValueError(f"this bridge cannot be used: booting {name} changed {path}")
        owner, _, last = path.rpartition(".")
        setattr(clean.get_submodule(owner), last, tensors[path])
    placed: Any = clean
    return placed.to(wrapped.device).eval()  # buffers that booting removed are new, on the CPU


def _why_unequal(bridge: Any) -> str:
    if bridge.compatibility_mode:
        return "compatibility mode folds weights; boot another without it"
    if any(point.fwd_hooks for point in bridge.hook_dict.values()):
        return "hooks change its logits; call bridge.reset_hooks(including_permanent=True) first"
    return "its logits are not those of the Hugging Face model under it, whose weights may have been edited since"
