"""Checks of steps against the raw model: prompts, tolerances, and what counts as rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

# Largest difference of the steps from the raw logits, relative to the logits' standard deviation.
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1
# How much further from the logits in float64 the steps may be than the raw model in float32.
ROUNDING = 10
# Positions of random prompts; more where a sliding window is short enough to be tested.
POSITIONS, MOST_POSITIONS = 7, 64


def tolerance_of(dtype: torch.dtype) -> float:
    """Return the largest difference that is rounding. Half precision rounds differently in another order."""
    return TOLERANCE if dtype in (torch.float32, torch.float64) else HALF_TOLERANCE


def random_tokens(raw: Any, windows: Sequence[int] = (), longest: int | None = None) -> Int[Tensor, "2 pos"]:
    """Return two random prompts, longer than the sliding windows where these are short."""
    wanted = max([POSITIONS, *(w + 2 for w in windows if w + 2 <= MOST_POSITIONS)])
    limits = (getattr(raw.config, "max_position_embeddings", None) or wanted, longest or wanted)
    gen = torch.Generator().manual_seed(0)
    return torch.randint(raw.config.vocab_size, (2, min(wanted, *limits)), generator=gen).to(raw.device)


def in_double(raw: Any) -> Any:
    """Return a copy of a model in float64."""
    double = copy.deepcopy(raw).double()
    if hasattr(double, "_can_set_experts_implementation") and double._can_set_experts_implementation():
        double.set_experts_implementation("eager")  # the default has no float64
    return double


@torch.no_grad()
def is_rounding(raw: Any, forward: Callable[[Tensor], Tensor], tokens: Int[Tensor, "batch pos"]) -> bool:
    """Return whether `forward` is about as far from the logits in float64 as the raw model is."""
    exact = in_double(raw)(tokens, use_cache=False).logits
    own, other = (float((x - exact).abs().max()) for x in (forward(tokens), raw(tokens, use_cache=False).logits))
    return own <= ROUNDING * other


def first_parameter(raw: Any) -> Tensor | None:
    """Return the first of `raw.parameters()`, at once: their iterator takes as long as a layer of a small model."""
    waiting = [raw]
    while waiting:
        module = waiting.pop()
        for parameter in module._parameters.values():
            if parameter is not None:
                return parameter
        waiting += [child for child in reversed(module._modules.values()) if child is not None]
    return None


def device_of(raw: Any) -> torch.device:
    """Return the device of a model's first parameter, as `raw.device` does."""
    return raw.device if (first := first_parameter(raw)) is None else first.device


def dtype_of(raw: Any) -> torch.dtype:
    """Return the dtype of a model's first floating parameter, as `raw.dtype` does."""
    first = first_parameter(raw)
    return raw.dtype if first is None or not first.is_floating_point() else first.dtype
