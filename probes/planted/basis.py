"""The directions of the residual stream that store the features of a mechanism."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probes.planted.parts import EXACT, SIZES


@dataclass(frozen=True)
class FeatureBasis:
    """Directions that write features into the residual stream and read them; the last one is the constant.

    With `centred`, every direction is orthogonal to all ones, so LayerNorm's mean is zero; RMSNorm subtracts no mean.
    The constant is written with length `constant`, which keeps the norm's scale nearly fixed, and read as 1.

    Shapes:
        write: `[feature d_model]`; read: `[d_model feature]`.
    """

    slices: dict[str, slice]
    write: Float[Tensor, "feature d_model"]
    read: Float[Tensor, "d_model feature"]

    @property
    def size(self) -> int:
        """The number of feature dimensions, with the constant."""
        return self.write.shape[0]


def slices_of(names: tuple[str, ...]) -> dict[str, slice]:
    """Return the dimensions of each feature, one feature after the other."""
    slices, start = {}, 0
    for name in names:
        slices[name] = slice(start, start + SIZES.get(name, 1))
        start = slices[name].stop
    return slices


def width(names: tuple[str, ...], mirrored: bool, kept: float = 1.0, centred: bool = True) -> int:
    """Return the residual dimensions needed. `kept` < 1 stores inexact features in that share of their dimensions."""
    sizes = {name: SIZES.get(name, 1) for name in names}
    exact = sum(size for name, size in sizes.items() if name in EXACT)
    stored = exact + math.ceil(kept * (sum(sizes.values()) - exact)) + 1
    if not centred:
        return stored
    return 2 * stored if mirrored else stored + 1


def build_basis(
    names: tuple[str, ...],
    d_model: int,
    constant: float,
    gen: torch.Generator,
    rotated: bool,
    kept: float = 1.0,
    centred: bool = True,
) -> FeatureBasis:
    """Return directions for features: pairs (f, -f) of dimensions, or with `rotated` a random rotation of them.

    A rotation that keeps the all-ones direction commutes with a LayerNorm of uniform gain. Without `centred` (RMSNorm)
    a feature is one dimension, and any rotation commutes.
    """
    slices = slices_of(names)
    count = max(place.stop for place in slices.values())
    mirrored = not rotated and d_model >= width(names, True, kept)
    if centred:
        frame = _mirrored(d_model) if mirrored else _hyperplane(d_model, gen)
    else:
        frame = _rotation(d_model, gen) if rotated else torch.eye(d_model, dtype=torch.float64)
    exact = torch.zeros(count, dtype=torch.bool)
    for name in EXACT:
        if name in slices:
            exact[slices[name]] = True
    n_exact = int(exact.sum())
    n_loose = math.ceil(kept * (count - n_exact))
    mix = torch.zeros(count, n_exact + n_loose, dtype=torch.float64)
    mix[exact, :n_exact] = torch.eye(n_exact, dtype=torch.float64)
    if kept < 1:  # rows of unit length, nearly orthogonal: more rows than dimensions
        drawn = torch.randn(count - n_exact, n_loose, generator=gen, dtype=torch.float64)
        spread = torch.linalg.qr(drawn).Q
        mix[~exact, n_exact:] = torch.nn.functional.normalize(spread, dim=1)
    else:
        mix[~exact, n_exact:] = torch.eye(n_loose, dtype=torch.float64)
    features, one = mix @ frame[: mix.shape[1]], frame[mix.shape[1]]
    return FeatureBasis(
        slices=slices,
        write=torch.cat([features, constant * one[None]]),
        read=torch.cat([features, one[None] / constant]).T.contiguous(),
    )


def _mirrored(d_model: int) -> Float[Tensor, "direction d_model"]:
    half = d_model // 2
    frame = torch.zeros(half, d_model, dtype=torch.float64)
    which = torch.arange(half)
    frame[which, which], frame[which, which + half] = math.sqrt(0.5), -math.sqrt(0.5)
    return frame


def _rotation(d_model: int, gen: torch.Generator) -> Float[Tensor, "direction d_model"]:
    return torch.linalg.qr(torch.randn(d_model, d_model, generator=gen, dtype=torch.float64)).Q


def _hyperplane(d_model: int, gen: torch.Generator) -> Float[Tensor, "direction d_model"]:
    """Return a random orthonormal basis of the space orthogonal to the all-ones direction."""
    drawn = torch.randn(d_model, d_model, generator=gen, dtype=torch.float64)
    drawn[:, 0] = 1.0
    return torch.linalg.qr(drawn).Q[:, 1:].T
