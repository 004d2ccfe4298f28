"""Hooks on the raw Hugging Face model, without the battery or the patching engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from interp.tasks import Batch, Role, parity

Edit = Callable[[int, Tensor], Tensor]


def blocks(model: nn.Module) -> list[nn.Module]:
    raw: Any = model
    body = {"gpt2": "transformer", "gpt_neox": "gpt_neox", "llama": "model"}[raw.config.model_type]
    inner = getattr(raw, body)
    return list(inner.h if body == "transformer" else inner.layers)


@torch.no_grad()
def run(model: nn.Module, tokens: Tensor, edit: Edit | None = None, hidden: Tensor | None = None) -> Tensor:
    """Return the logits. `edit(layer, x)` changes a block's input; `hidden [query key]` is removed from attention."""
    n_pos = tokens.shape[1]
    allowed = torch.ones(n_pos, n_pos, dtype=torch.bool).tril()
    if hidden is not None:
        allowed &= ~hidden
    mask = torch.zeros(len(tokens), 1, n_pos, n_pos).masked_fill(~allowed, torch.finfo(torch.float32).min)
    with ExitStack() as stack:
        for layer, block in enumerate(blocks(model) if edit else ()):

            def before(_, args, kwargs, layer=layer):
                assert edit
                return (edit(layer, args[0]), *args[1:]), kwargs

            stack.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
        return model(input_ids=tokens, attention_mask=mask, use_cache=False).logits


def margins(logits: Tensor, batch: Batch) -> Tensor:
    """Return the logit of each step's right answer minus that of the other, `[batch step]`."""
    zero, one = batch.vocabulary.tokens(batch.format.outputs).tolist()
    at = batch.at(Role.OUTPUT) - 1
    sign = 2.0 * parity.read(batch).parities - 1
    return sign * (logits[:, at, one] - logits[:, at, zero])


def inputs_of_blocks(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    kept: list[Tensor] = []

    def keep(_: int, x: Tensor) -> Tensor:
        kept.append(x.clone())
        return x

    run(model, tokens, keep)
    return kept
