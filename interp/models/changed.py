"""Marks of a model whose own passes are changed inside a `with` block, which other ways of running it do not see."""

from __future__ import annotations

from torch import nn

# Attributes of a model: the number of blocks that edit its passes (`interp.hooking`), and an installed circuit's.
EDITED = "mnemoscope_edited"
INSTALLED = "mnemoscope_circuit"
# Modules that compute the same in training mode; a new one, as of `resize_token_embeddings` or fewer blocks, is in it.
ALIKE = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.ModuleList)


def is_edited(model: object) -> bool:
    """Return whether `steered` or `patched` edit this very model, raw or bridge."""
    return bool(getattr(model, "__dict__", {}).get(EDITED))


def is_installed(model: object) -> bool:
    """Return whether a circuit's forward pass is installed in this raw model."""
    return INSTALLED in getattr(model, "__dict__", {})


def require_unchanged(model: object, advice: str = "run the model itself inside it") -> None:
    """Raise `ValueError` for a raw model that is edited, or has a circuit installed."""
    if is_edited(model):
        raise ValueError(
            "this model is edited by `steered` or `patched`, which only its own passes show; leave the block, or "
            f"{advice}"
        )
    if is_installed(model):
        raise ValueError(
            "a circuit is installed in this model, which only its own passes show; leave the `with` block, or run the "
            "model itself inside it"
        )


def require_evaluating(model: nn.Module) -> None:
    """Raise `ValueError` for a model in training mode, or with a part in it that may compute otherwise there."""
    parts = ((name, module) for name, module in model.named_modules() if module.training)
    if training := [name for name, module in parts if type(module) not in ALIKE]:
        part = "the model" if model.training else f"a part of the model, {training[0]},"
        raise ValueError(f"{part} is in training mode; call model.eval() first")
