"""Attention weights for a page: quantised, deflated and in base64. `canvas.js` unpacks them."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Up to this many weights, 16 bits each: 12 heads of 242 tokens take less than 1 MB. Above, 8 bits.
MOST_FINE = 500_000


@dataclass(frozen=True)
class Packed:
    """Weights for the page: codes 0 to 2**bits - 1 of weights from 0 to `limit`.

    With 16 bits a code is proportional to its weight; all high bytes precede all low bytes, which deflates better.
    With 8 bits it is proportional to the square root, so that small weights keep their digits. If `causal`, `data`
    holds only the sources up to each destination, row by row.
    """

    data: str
    bits: int
    limit: float
    causal: bool

    @property
    def error(self) -> float:
        """The largest difference between a weight and what the page shows of it."""
        return self.limit / 65535 / 2 if self.bits == 16 else self.limit / 255


def checked(patterns: Tensor, what: str) -> Float[Tensor, "block dest_pos src_pos"]:
    """Return float32 on the CPU. Raises `ValueError` for NaN, infinity, or a negative weight."""
    values = patterns.detach().to("cpu", torch.float32)
    if not torch.isfinite(values).all():
        raise ValueError(f"{what} have NaN or infinity, which no colour can show")
    if (values < 0).any():
        raise ValueError(f"{what} have negative weights, so they are not attention patterns; show a row with tokens()")
    return values


def pack(values: Float[Tensor, "block dest_pos src_pos"], bits: int | None = None) -> Packed:
    """Pack all blocks on one scale, from 0 to the largest weight.

    >>> pack(torch.ones(1, 1, 1)).limit
    1.0
    """
    n = values.shape[-1]
    lower = torch.tril(torch.ones(n, n, dtype=torch.bool))
    causal = not values[:, ~lower].any()
    flat = (values[:, lower] if causal else values).reshape(-1).double()
    limit = float(flat.max()) or 1.0
    bits = bits or (16 if flat.numel() <= MOST_FINE else 8)
    if bits == 16:
        codes = (flat / limit * 65535).round().to(torch.int32).numpy()
        raw = (codes >> 8).astype("uint8").tobytes() + (codes & 255).astype("uint8").tobytes()
    else:
        raw = ((flat / limit).sqrt() * 255).round().to(torch.uint8).numpy().tobytes()
    return Packed(base64.b64encode(zlib.compress(raw, 6)).decode(), bits, limit, causal)
