"""How far can a planted model's weights and LayerNorms be from tidy before it fails?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.forward import correct
from interp.tasks import Batch, Role
from interp.tasks.layout import generator
from probes.planted.backends import norms_of

# Shares of the noise that are tried on a tensor, in turn. Tables of counts bear far less than the rest does.
TEMPERED = (1.0, 0.25, 0.06, 0.015)
# Accuracy that each of two routes must have by itself, and how far its share may be from what was planned.
WORKS = 0.98
OFF = 0.02


@torch.no_grad()
def disturb(model: PreTrainedModel, noise: float, seed: int, solves: Callable[[], bool]) -> float:
    """Puts each weight off by a random share of itself; gives the noise that was borne, averaged over tensors.

    Tensors take their turn in random order, and each keeps as much of `noise` as leaves the task solved.
    """
    gen = generator(seed)
    norms = {id(weight) for norm in norms_of(model) for weight in norm.parameters()}
    tensors = [weight for weight in model.parameters() if id(weight) not in norms and weight.count_nonzero()]
    borne = []
    for i in torch.randperm(len(tensors), generator=gen).tolist():
        weight, clean = tensors[i], tensors[i].clone()
        random = torch.randn(clean.shape, generator=gen)
        for share in (*TEMPERED, 0.0):
            weight.copy_(clean * (1 + noise * share * random))
            if not share or solves():
                borne.append(noise * share)
                break
    return sum(borne) / len(borne)


@torch.no_grad()
def centre_norms(model: PreTrainedModel, batch: Batch) -> None:
    """Sets each LayerNorm's gain so that its scale is 1 on average over the batch; it still varies around that."""
    for norm in norms_of(model):  # in order: each sees what the ones before it do
        _centre(model, norm, batch)


def shares_hold(
    resid: Float[Tensor, "batch pos d_model"], batch: Batch, routes: Sequence[Float[Tensor, " d_model"]], share: float
) -> bool:
    """Whether each of two routes still answers by itself, and the first one's share of the margin is what was planned.

    Read off the residual stream before the last LayerNorm, where each route has a direction of its own. Noise
    that breaks one route of two would leave the answers right, and make what is called the truth false.
    """
    at = batch.at(Role.OUTPUT)
    right = 2.0 * (batch.tokens[:, at] == batch.vocabulary["1"]) - 1
    signed = torch.stack([right * (2 * resid[:, at - 1] @ route - 1) for route in routes])
    if (signed > 0).float().flatten(1).mean(dim=1).min() < WORKS:
        return False
    gains = signed.flatten(1).mean(dim=1)
    found = share * gains[0] / (share * gains[0] + (1 - share) * gains[1])
    return abs(float(found) - share) <= OFF


@contextmanager
def listening(norm: nn.LayerNorm) -> Iterator[list[Tensor]]:
    """What a LayerNorm reads in the forward passes within, `[batch pos d_model]` each."""
    seen: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        hook.remove()


def _centre(model: PreTrainedModel, norm: nn.LayerNorm, batch: Batch) -> None:
    with listening(norm) as seen:
        correct(model, batch, batch.predicted())
    length = torch.cat(seen).double().norm(dim=-1).mean()
    norm.weight.fill_(float(length) / norm.weight.numel() ** 0.5)
