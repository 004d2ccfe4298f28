"""Constant buffers that older versions of transformers saved with the weights, and that are not weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

MASKS = (".bias", ".masked_bias", ".mask")
# Numbers of the largest causal mask that is compared: 8,192 positions.
LARGEST_MASK = 2**26


def stray_tensors(model: PreTrainedModel, folder: Path, unexpected: Iterable[str]) -> list[str]:
    """Return the names, among tensors that a model did not expect, that are neither masks nor buffers it has itself.

    A mask is a causal mask of zeros and ones, or the one number that older versions put at masked scores. A buffer
    counts when its values are the model's own.
    """
    names, strays = set(unexpected), []
    buffers = dict(model.named_buffers())
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in sorted(names & set(weights.keys())):
                names.discard(name)
                if not _is_constant(name, weights, buffers):
                    strays.append(name)
    return sorted([*strays, *names])


def _is_constant(name: str, weights: safe_open, buffers: dict[str, Tensor]) -> bool:
    shape = weights.get_slice(name).get_shape()
    own = buffers.get(name)
    if own is not None:
        return tuple(shape) == tuple(own.shape) and torch.allclose(weights.get_tensor(name).to(own), own, rtol=1e-3)
    if not name.endswith(MASKS):
        return False
    if not shape or shape == [1]:
        return float(weights.get_tensor(name)) <= -1e3
    if len(shape) != 4 or shape[-1] != shape[-2] or shape[0] * shape[1] != 1 or shape[-1] ** 2 > LARGEST_MASK:
        return False
    mask = weights.get_tensor(name)
    return bool((mask == torch.ones_like(mask).tril()).all())
