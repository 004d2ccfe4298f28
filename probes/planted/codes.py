"""Which vectors stand for labels and for places, so that unlike ones never match?"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

LABEL_SIZE = 16
PAIRS = 5
# Dimensions of a GPT-NeoX head that turn, and the base whose four frequencies tell 160 distances apart best.
ROTARY_SIZE = 8
ROTARY_BASE = 2.1942
FARTHEST = 162


def label_codes(count: int, gen: torch.Generator) -> Float[Tensor, "label code"]:
    """Unit vectors that push each other away, harder the nearer: the most alike of 140 have a cosine of about .3.

    Random ones of this size would come to .8, and a match of two labels would be too near to a match of one.
    """
    codes = _unit(torch.randn(count, LABEL_SIZE, generator=gen, dtype=torch.float64))
    for step in torch.linspace(0, 1, 150).tolist():
        alike = codes @ codes.T
        alike.fill_diagonal_(-1)
        push = torch.exp((8 + 24 * step) * (alike - alike.max())) @ codes
        codes = _unit(codes - (0.02 + 0.3 * (1 - step)) * push / push.norm(dim=1).max())
    return codes


def rotary_frequencies() -> Float[Tensor, " pair"]:
    """Radians a position in the turning dimensions of a GPT-NeoX head."""
    return ROTARY_BASE ** (-torch.arange(0, ROTARY_SIZE, 2, dtype=torch.float64) / ROTARY_SIZE)


def place_frequencies(gen: torch.Generator) -> Float[Tensor, " pair"]:
    """Radians a position of a place code: the best of many draws, so that codes of unlike places differ."""
    drawn = 0.02 + 1.5 * torch.rand(300, PAIRS, generator=gen, dtype=torch.float64)
    return max(drawn, key=gap)


def gap(frequencies: Float[Tensor, " pair"]) -> float:
    """One less the largest product of the codes of two unlike places; a code's product with itself is 1."""
    distance = torch.arange(1, FARTHEST, dtype=torch.float64).unsqueeze(1)
    return float((1 - torch.cos(distance * frequencies).mean(dim=1)).min())


def place_code(place: Tensor, frequencies: Float[Tensor, " pair"]) -> Float[Tensor, "... code"]:
    """Cosines, then sines, as a unit vector: a step onward is a rotation of it (`turned`)."""
    angle = place.double().unsqueeze(-1) * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=-1) / math.sqrt(len(frequencies))


def turned(by: float, frequencies: Float[Tensor, " pair"]) -> Float[Tensor, "code code"]:
    """The matrix that takes the code of a place to the code of the place `by` steps on."""
    cos, sin = (torch.diag(f(by * frequencies)) for f in (torch.cos, torch.sin))
    return torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)
