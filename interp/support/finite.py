"""Check that tensors are finite, and name the first prompt whose number is not."""

from __future__ import annotations

from math import isfinite
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor


class NotFinite(ValueError):
    """A number is NaN or infinite, and so is every result computed from it."""


class HasText(Protocol):
    """Prompts, as far as messages need them."""

    def text(self, row: int = 0) -> str:
        """Return one prompt as text."""
        ...


def require_finite(
    values: Tensor, what: str, rows: Int[Tensor, " row"] | int = 0, axis: int = -1, batch: HasText | None = None
) -> Tensor:
    """Return the values, or raise a `NotFinite` that names the first prompt in which one is NaN or infinite.

    `axis` is the axis of prompts; `rows` are their numbers, or the number of the first. With `batch` the message
    quotes the prompt.

    >>> require_finite(torch.tensor([1.0, float("nan")]), "the margin", rows=32)
    Traceback (most recent call last):
    interp.support.finite.NotFinite: the margin is NaN or infinite, first in prompt 33
    """
    if not values.numel() or isfinite(values.detach().abs().max().item()):  # the common case
        return values
    bad = (~torch.isfinite(values)).movedim(axis, 0).reshape(values.shape[axis], -1).any(dim=1)
    index = int(bad.nonzero()[0])
    prompt = rows + index if isinstance(rows, int) else int(rows[index])
    quoted = "" if batch is None else f": {batch.text(prompt)}"
    raise NotFinite(f"{what} is NaN or infinite, first in prompt {prompt}{quoted}")


def difference_of_finite(computed: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two computations of the same numbers, relative to the spread of `expected`.

    Where weights overflow on random tokens both are NaN or infinite; those entries are not compared. Raises
    `NotFinite` where only `expected` is not finite.
    """
    finite = expected.isfinite()
    if (computed.isfinite() & ~finite).any():
        raise NotFinite("the model's logits are NaN or infinite on random tokens: its weights overflow")
    difference = (computed - expected)[finite].abs()
    return float(difference.max() / expected[finite].std().clamp_min(1e-6)) if len(difference) > 1 else 0.0
