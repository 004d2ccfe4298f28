"""Code vectors of labels and of places; different ones have a small product."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

LABEL_SIZE = 16
PAIRS = 5
# Rotary dimensions of a GPT-NeoX head, and the base whose four frequencies separate 160 distances best.
ROTARY_SIZE = 8
ROTARY_BASE = 2.1942
FARTHEST = 162


def label_codes(count: int, gen: torch.Generator) -> Float[Tensor, "label code"]:
    """Return unit vectors that repel each other: the largest cosine among 140 is about .3.

    For random vectors of this size it is about .8, and a match of two labels would be too close to a match of one.
    """
    codes = _unit(torch.randn(count, LABEL_SIZE, generator=gen, dtype=torch.float64))
    for step in torch.linspace(0, 1, 150).tolist():
        cosines = codes @ codes.T
        cosines.fill_diagonal_(-1)
        push = torch.exp((8 + 24 * step) * (cosines - cosines.max())) @ codes
        codes = _unit(codes - (0.02 + 0.3 * (1 - step)) * push / push.norm(dim=1).max())
    return codes


def rotary_frequencies() -> Float[Tensor, " pair"]:
    """Return radians per position in the rotary dimensions of a GPT-NeoX head."""
    return ROTARY_BASE ** (-torch.arange(0, ROTARY_SIZE, 2, dtype=torch.float64) / ROTARY_SIZE)


def place_frequencies(gen: torch.Generator) -> Float[Tensor, " pair"]:
    """Return radians per position of a place code: the best of 300 draws by `gap`."""
    drawn = 0.02 + 1.5 * torch.rand(300, PAIRS, generator=gen, dtype=torch.float64)
    return max(drawn, key=gap)


def gap(frequencies: Float[Tensor, " pair"]) -> float:
    """Return 1 minus the largest product of the codes of two different places; a code has product 1 with itself."""
    distance = torch.arange(1, FARTHEST, dtype=torch.float64).unsqueeze(1)
    return float((1 - torch.cos(distance * frequencies).mean(dim=1)).min())


def place_code(place: Tensor, frequencies: Float[Tensor, " pair"]) -> Float[Tensor, "... code"]:
    """Return cosines, then sines, as a unit vector; the next place is a rotation of it (`turned`)."""
    angle = place.double().unsqueeze(-1) * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=-1) / math.sqrt(len(frequencies))


def turned(by: float, frequencies: Float[Tensor, " pair"]) -> Float[Tensor, "code code"]:
    """Return the matrix that maps the code of a place to the code of the place `by` steps later."""
    cos, sin = (torch.diag(f(by * frequencies)) for f in (torch.cos, torch.sin))
    return torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)
