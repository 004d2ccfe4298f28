"""Find the raw Hugging Face model, or the TransformerBridge, behind whatever a caller passes as `model`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from torch import nn
from transformers import PreTrainedModel

from interp.models.adopting import adopt
from interp.models.bridge import shared_bridge, twin_of
from interp.models.changed import require_evaluating, require_unchanged
from interp.models.native import NativeRaw
from interp.models.run import Run
from interp.support.locks import lock_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    # What the public functions of `interp` take as `model`.
    AnyModel: TypeAlias = Run | PreTrainedModel | NativeRaw | TransformerBridge
else:
    AnyModel = Any


_CHECKED: ContextVar[object] = ContextVar("checked", default=None)


def raw_of(model: AnyModel) -> PreTrainedModel:
    """Return the raw model: of a `Run`, of a bridge, or the Hugging Face model itself.

    A bridge that the user booted gets a raw model that shares its weights (see `interp.models.adopting.adopt`); a
    native bridge gives a `NativeRaw`, which serves as one. Raises `ValueError` for anything else, for a bridge that
    no raw model is equal to, and for a model that cannot run here (without weights, or quantised).
    """
    if isinstance(model, Run):
        return model.raw
    if isinstance(model, PreTrainedModel | NativeRaw):
        if _CHECKED.get() is not model:
            require_weights(model)
        return cast(PreTrainedModel, model)
    if not _is_bridge(model):
        raise ValueError(_expected(model))
    if (twin := twin_of(model)) is not None:
        return twin
    with lock_of(model):  # two threads must not adopt one bridge twice: each raw model would have a lock of its own
        twin = twin_of(model)
        return adopt(model) if twin is None else twin


@contextmanager
def checked_once(raw: object) -> Iterator[None]:
    """Inside the block, `raw_of` does not check the weights of this raw model again: it looks at every module."""
    token = _CHECKED.set(raw)
    try:
        yield
    finally:
        _CHECKED.reset(token)


def bridge_of(model: AnyModel) -> TransformerBridge:
    """Return a TransformerBridge: of a `Run`, the bridge itself, or one that shares a raw model's weights.

    The bridge of a raw model is kept and reused until the weights change. Raises `ValueError` for an architecture
    that TransformerLens does not know, inside a block that changes the raw model's passes, and as `raw_of`.
    """
    if not _is_bridge(model):
        raw = model.raw if isinstance(model, Run) else model
        require_unchanged(raw, "pass the bridge (run.model) to the block")
        if isinstance(raw, PreTrainedModel):
            require_evaluating(raw)
    if isinstance(model, Run):
        return model.model
    if isinstance(model, NativeRaw):
        raise ValueError("a native model without its bridge: pass the bridge that TransformerBridge.boot_native made")
    if isinstance(model, PreTrainedModel):
        require_weights(model)
        with lock_of(model):  # building a bridge runs the model, which must not be in another thread's hooks
            return shared_bridge(model)
    if not _is_bridge(model):
        raise ValueError(_expected(model))
    raw_of(model)
    return model


def require_weights(raw: Any) -> None:
    """Raise `ValueError` for a model without logits or weights in memory, int8 modules, or tuples for outputs."""
    name = type(raw).__name__
    if getattr(raw.config, "is_encoder_decoder", False):
        raise ValueError(f"{name} is not a causal language model: it has an encoder and a decoder")
    if isinstance(raw, PreTrainedModel) and _has_no_logits(raw):
        raise ValueError(
            f"{name} is not a causal language model: it has no logits of next tokens; load it by AutoModelForCausalLM"
        )
    offloaded = getattr(raw, "hf_device_map", None)  # accelerate loads weights as modules are called
    modules = _modules_of(raw)
    if not offloaded and any(p is not None and p.is_meta for m in modules for p in m._parameters.values()):
        raise ValueError(f"this {name} has no weights in memory (device 'meta'); load them first")
    if any(t.__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")) for t in set(map(type, modules))):
        raise ValueError(f"this {name} has int8 modules (dynamic quantisation); pass the model before quantisation")
    if getattr(raw.config, "return_dict", True) is False:
        raise ValueError(f"the configuration of this {name} says return_dict=False; set it to True")


def _has_no_logits(raw: PreTrainedModel) -> bool:
    """Return whether a model is one without a head, or has a head of another task."""
    other = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
    # A class with a head holds the bare model under its prefix; classes of one's own may have neither.
    bare = bool(raw.base_model_prefix) and raw.base_model is raw and raw.get_output_embeddings() is None
    return bare or type(raw).__name__.endswith(other)


def _modules_of(raw: nn.Module) -> list[nn.Module]:
    """Return what `raw.modules()` does, in a fifth of the time, which a small sweep notices. Order differs."""
    found, waiting = {id(raw): raw}, [raw]
    while waiting:
        for child in waiting.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                waiting.append(child)
    return list(found.values())


def _is_bridge(model: object) -> bool:
    return hasattr(model, "original_model") and hasattr(model, "cfg")


def _expected(model: object) -> str:
    return (
        "model must be a run from interp.load, a Hugging Face causal language model or a TransformerBridge; "
        f"got {type(model).__name__}"
    )
