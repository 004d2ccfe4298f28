"""Add noise to a planted model's weights and centre its LayerNorms, as far as it still solves its task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.forward import readout
from interp.tasks import Batch, Role
from interp.tasks.layout import generator
from probes.planted.backends import norms_of
from probes.planted.plan import Dirt

# The length of the constant of a clean model, and those that are tried, in lengths of a usual residual.
CLEAN_CONSTANT = 30.0
LOOSE_CONSTANTS = (1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 12.0, CLEAN_CONSTANT)
# Dimensions that remain under superposition, as a share of those that the features need.
KEPT = (0.75, 0.8, 0.85, 0.9, 0.94, 0.97, 1.0)
# Shares of the noise that are tried on a tensor, in this order. Tables of counts tolerate little noise.
TEMPERED = (1.0, 0.25, 0.06, 0.015)
# Accuracy that each of two routes must have by itself, and the largest error of its planned share.
WORKS = 0.98
OFF = 0.02
# The largest mean error of margins after trades of labels, in mean margins of ordinary prompts.
OFF_TRADED = 0.1


def loosest(dirt: Dirt, solved: Callable[[float, float], bool]) -> tuple[float, float]:
    """Return the constant and the share of kept dimensions: the dirtiest with which the task is still solved.

    `solved`: whether it is with a constant and a share.
    """
    kept, constant = 1.0, CLEAN_CONSTANT
    if dirt.superposition:
        kept = next((k for k in KEPT if solved(CLEAN_CONSTANT, k)), 1.0)
    if dirt.layernorm:
        constant = next((c for c in LOOSE_CONSTANTS if solved(c, kept)), CLEAN_CONSTANT)
    return constant, kept


@torch.no_grad()
def disturb(model: PreTrainedModel, noise: float, seed: int, solves: Callable[[], bool]) -> float:
    """Add relative noise to each weight and return the noise that was kept, as the mean over tensors.

    Tensors are treated in random order; each keeps the largest share of `noise` with which the task is still solved.
    """
    gen = generator(seed)
    norms = {id(weight) for norm in norms_of(model) for weight in norm.parameters()}
    tensors = [weight for weight in model.parameters() if id(weight) not in norms and weight.count_nonzero()]
    kept = []
    for i in torch.randperm(len(tensors), generator=gen).tolist():
        weight, clean = tensors[i], tensors[i].clone()
        random = torch.randn(clean.shape, generator=gen)
        for share in (*TEMPERED, 0.0):
            weight.copy_(clean * (1 + noise * share * random))
            if not share or solves():
                kept.append(noise * share)
                break
    return sum(kept) / len(kept)


@torch.no_grad()
def centre_norms(model: PreTrainedModel, forward: Callable[[], object]) -> None:
    """Set each norm's gain so that its mean scale is 1 over what `forward` runs; single positions still vary."""
    for norm in norms_of(model):  # in order, because each depends on the earlier ones
        with listening(norm) as seen:
            forward()
        length = torch.cat(seen).double().norm(dim=-1).mean()
        gain = norm.get_parameter("weight")
        gain.fill_(float(length) / gain.numel() ** 0.5)


def shares_hold(
    resid: Float[Tensor, "batch pos d_model"], batch: Batch, routes: Sequence[Float[Tensor, " d_model"]], share: float
) -> bool:
    """Return whether each of two routes still answers by itself, and the first one's share of the margin is as planned.

    Measured in the residual stream before the last LayerNorm, where each route has its own direction. Noise that
    breaks one route of two can keep the answers right while the declared truth becomes false.
    """
    at = batch.at(Role.OUTPUT)
    right = 2.0 * (batch.tokens[:, at] == batch.vocabulary["1"]) - 1
    signed = torch.stack([right * (2 * resid[:, at - 1] @ route - 1) for route in routes])
    if (signed > 0).float().flatten(1).mean(dim=1).min() < WORKS:
        return False
    gains = signed.flatten(1).mean(dim=1)
    actual = share * gains[0] / (share * gains[0] + (1 - share) * gains[1])
    return abs(float(actual) - share) <= OFF


def margins_traded(model: PreTrainedModel, batches: Sequence[Batch]) -> Float[Tensor, "batch prompt step"]:
    """Return logit(1) - logit(0) at all steps of some prompts and edited copies, in mean margins of the first batch.

    Noise that leaves ordinary answers right can still change which label is followed.
    """
    logits = torch.stack([readout(model, batch, batch.at(Role.OUTPUT)).logits for batch in batches])
    margins = logits[..., 1] - logits[..., 0]  # of the two answers
    return margins / margins[0].abs().mean()


@contextmanager
def listening(norm: nn.Module) -> Iterator[list[Tensor]]:
    """Record the inputs `[batch pos d_model]` of a norm in the forward passes inside the context."""
    seen: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        hook.remove()
