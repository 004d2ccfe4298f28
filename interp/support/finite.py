"""Which prompt has a number that is none?"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import Batch


class NotFinite(ValueError):
    """A number is NaN or infinite, and with it whatever would be made of it."""


def require_finite(
    values: Tensor, what: str, rows: Int[Tensor, " row"] | int = 0, axis: int = -1, batch: Batch | None = None
) -> Tensor:
    """The values, or a `NotFinite` that names the first prompt in which one is NaN or infinite.

    `axis` runs over prompts; `rows` are their numbers, or that of the first. With `batch` the prompt is shown, too.

    >>> require_finite(torch.tensor([1.0, float("nan")]), "the margin", rows=32)
    Traceback (most recent call last):
    interp.support.finite.NotFinite: the margin is NaN or infinite, first in prompt 33
    """
    if torch.isfinite(values).all():  # the common case, without a mask of the size of the values
        return values
    bad = (~torch.isfinite(values)).movedim(axis, 0).reshape(values.shape[axis], -1).any(dim=1)
    index = int(bad.nonzero()[0])
    prompt = rows + index if isinstance(rows, int) else int(rows[index])
    shown = "" if batch is None else f": {batch.text(prompt)}"
    raise NotFinite(f"{what} is NaN or infinite, first in prompt {prompt}{shown}")


def difference_of_finite(found: Tensor, expected: Tensor) -> float:
    """Largest difference of two computations of one thing, in the spread of what is expected.

    Where weights overflow on random tokens both are NaN or infinite, and nothing is compared: prompts that do so are
    named when it is their turn. Raises `NotFinite` where only what is expected is, which would be hidden.
    """
    there = expected.isfinite()
    if (found.isfinite() & ~there).any():
        raise NotFinite("the model's logits are NaN or infinite on random tokens: its weights overflow")
    off = (found - expected)[there].abs()
    return float(off.max() / expected[there].std().clamp_min(1e-6)) if len(off) > 1 else 0.0
