"""Code vectors of labels and of places; different ones have a small product."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LABEL_SIZE = 16
PAIRS = 5
# Rotary pairs that find offsets. In GPT-NeoX only they rotate; its base separates 160 distances best.
OFFSET_PAIRS = 4
ROTARY_SIZE = 2 * OFFSET_PAIRS
ROTARY_BASE = 2.1942
# In a Llama head every pair rotates; each turns 0.4 times as fast as the one before. Codes are kept from pair 15 on,
# which turns by less than 2e-4 radians over the longest prompt.
LLAMA_SIZE = 64
LLAMA_RATIO = 0.4
LLAMA_THETA = LLAMA_RATIO ** (-LLAMA_SIZE // 2)
LLAMA_SLOW = 15
HEAD_SIZES = (32, 64)
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


@dataclass(frozen=True)
class HeadLayout:
    """Which dimensions of a head find offsets by rotating with the position, and which hold codes.

    `turning`: pairs of dimensions that rotate at `frequencies`; none with learned positions. `still`: dimensions for
    codes.
    """

    size: int
    turning: tuple[tuple[int, int], ...]
    still: tuple[int, ...]
    frequencies: Float[Tensor, " pair"]


def head_layout(architecture: str, needed: int) -> HeadLayout:
    """Return the layout of a head of the architecture with at least `needed` dimensions for codes.

    GPT-2 has no rotation. GPT-NeoX rotates the first dimensions only. Llama rotates all of them: the fastest pairs
    find offsets, and the slowest ones hold codes, because they turn too little to matter.
    """
    if architecture == "llama":
        half = LLAMA_SIZE // 2
        turning = tuple((i, i + half) for i in range(OFFSET_PAIRS))
        still = (*range(LLAMA_SLOW, half), *range(LLAMA_SLOW + half, LLAMA_SIZE))
        size = LLAMA_SIZE
    else:
        turning = tuple((i, i + OFFSET_PAIRS) for i in range(OFFSET_PAIRS)) if architecture == "gpt_neox" else ()
        size = next(size for size in HEAD_SIZES if size - 2 * len(turning) >= needed)
        still = tuple(range(2 * len(turning), size))
    assert len(still) >= needed, f"{needed} dimensions for codes do not fit into a head of {architecture}"
    return HeadLayout(size, turning, still, rotary_frequencies(architecture))


def rotary_frequencies(architecture: str) -> Float[Tensor, " pair"]:
    """Return radians per position in the dimensions that find offsets."""
    pairs = torch.arange(OFFSET_PAIRS, dtype=torch.float64)
    return LLAMA_RATIO**pairs if architecture == "llama" else ROTARY_BASE ** (-pairs / OFFSET_PAIRS)


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
