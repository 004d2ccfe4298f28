"""Checks of the truth on the raw model, without the battery: attention to labels, and answers without labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.forced.models import LENGTH, N_LAYERS, NOISY
from interp.models import Run
from interp.tasks import Batch, Role, sample

LABELS = torch.tensor([Role.INPUT_LABEL, Role.OUTPUT_LABEL])
CHECK_PROMPTS, CHECK_SEED = 256, 5


def check_batch(run: Run) -> Batch:
    """Return the prompts on which the truth is checked; no verdict reads them."""
    return sample(run.format, CHECK_PROMPTS, LENGTH, CHECK_SEED, run.vocabulary)


@torch.no_grad()
def attention_to(raw: Any, batch: Batch, keys: Tensor) -> Float[Tensor, "layer batch head dest"]:
    """Return the attention of each query on some positions, summed. `keys`: `[pos]`, which of them."""
    patterns = torch.stack(raw(batch.tokens, output_attentions=True, use_cache=False).attentions)
    return patterns[..., keys].sum(dim=-1)


@torch.no_grad()
def answers_right(
    raw: Any, batch: Batch, barred: Tensor | None = None, layers: Sequence[int] = range(N_LAYERS)
) -> Float[Tensor, " step"]:
    """Return the share of prompts with the right answer at each step.

    `barred`: `[pos]`, keys whose attention is removed in all heads of some layers; the other keys share it.
    """
    at = batch.predicted(forced=True)
    with ExitStack() as hooks:
        keys = torch.zeros(batch.n_pos, dtype=torch.bool) if barred is None else barred
        visible = torch.ones(batch.n_pos, batch.n_pos, dtype=torch.bool).tril() & ~keys
        mask = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
        for layer in () if barred is None else layers:
            attention = raw.transformer.h[layer].attn
            hook = attention.register_forward_pre_hook(partial(_with_mask, mask), with_kwargs=True)
            hooks.callback(hook.remove)
        logits = raw(batch.tokens, use_cache=False).logits[:, at - 1]
    return (logits.argmax(dim=-1) == batch.tokens[:, at]).float().mean(dim=0)


def _with_mask(mask: Tensor, module: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    assert "attention_mask" in kwargs, "GPT-2 hands the mask to its attention by name"
    return args, {**kwargs, "attention_mask": mask}


def measure_truth(run: Run) -> dict[str, float]:
    """Return what the weights of a model with barred attention do, as plain numbers.

    "attention on labels" is the largest of any query; that of the noisy head is the mean over output labels.
    "answers without labels" are those with attention to labels removed everywhere, by the mask of the raw model. In the
    first layer labels hold nothing but their embedding: with one embedding for all, what is lost without attention to
    them there is neither identity nor content.
    """
    batch = check_batch(run)
    label = torch.isin(batch.role, LABELS)
    every = attention_to(run.raw, batch, label)
    answering = batch.predicted(forced=True) - 1
    layer, head = NOISY
    noisy = every[layer, :, head][:, answering]
    right, without = answers_right(run.raw, batch), answers_right(run.raw, batch, label)
    return {
        "attention on labels": float(every.max()),
        "attention on labels, last head": float(noisy.mean()),
        "answers": float(right.mean()),
        "answers without labels": float(without.mean()),
        "answers without labels, from step 2": float(without[1:].mean()),
        "answers without labels in the first layer": float(answers_right(run.raw, batch, label, [0]).mean()),
    }
