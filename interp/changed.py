"""Attention to keys and values that are those of a base run except at a few positions of each row.

Gradients are those of the products in `Anatomy`, to the last digit, but are computed at these positions only: no
gradient of a base run's keys and values is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Changed:
    """Keys or values of some rows, with `new` at the positions `at`.

    Shapes:
        all: keys `[row head d_head pos]` or values `[row head pos d_head]`, the new ones among them, without gradient.
        at:  `[row place]` positions.
        new: `[row place head d_head]`, with a gradient.
    """

    all: Tensor
    at: Int[Tensor, "row place"]
    new: Float[Tensor, "row place head d_head"]


def scores_of(q: Float[Tensor, "row dest head d_head"], keys: Changed) -> Float[Tensor, "row head dest pos"]:
    """Return the products of queries and keys, with gradients of both."""
    return _Scores.apply(q, keys.new, keys.all, keys.at)  # pyright: ignore[reportReturnType]


def mixed(pattern: Float[Tensor, "row head dest pos"], values: Changed) -> Float[Tensor, "row dest head d_head"]:
    """Return the values weighted by a pattern, with gradients of both."""
    return _Mixed.apply(pattern, values.new, values.all, values.at)  # pyright: ignore[reportReturnType]


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, new: Tensor, keys: Tensor, at: Tensor) -> Tensor:
        left = q.transpose(1, 2).flatten(0, 1)
        ctx.save_for_backward(left, keys, at)
        return torch.bmm(left, keys.flatten(0, 1)).unflatten(0, keys.shape[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        left, keys, at = ctx.saved_tensors
        grad = grads[0].flatten(0, 1)
        of_q = torch.bmm(grad, keys.flatten(0, 1).mT).unflatten(0, keys.shape[:2]).transpose(1, 2)
        return of_q, _outer_at(grad, left, at), None, None


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: Tensor, new: Tensor, values: Tensor, at: Tensor) -> Tensor:
        left = pattern.flatten(0, 1)
        ctx.save_for_backward(left, values, at)
        return torch.bmm(left, values.flatten(0, 1)).unflatten(0, values.shape[:2]).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        left, values, at = ctx.saved_tensors
        grad = grads[0].transpose(1, 2).flatten(0, 1)
        of_pattern = torch.bmm(grad, values.flatten(0, 1).mT).unflatten(0, values.shape[:2])
        return of_pattern, _outer_at(left, grad, at), None, None


def _outer_at(
    by_pos: Float[Tensor, "row_head dest pos"], vectors: Float[Tensor, "row_head dest d_head"], at: Tensor
) -> Float[Tensor, "row place head d_head"]:
    """Return the sum over destinations of a number per position times a vector, at the positions `at` of each row."""
    rows = len(at)
    if by_pos.shape[1] == 1:  # nothing is summed
        columns = by_pos.view(rows, -1, by_pos.shape[2]).gather(2, at.unsqueeze(1).expand(-1, len(by_pos) // rows, -1))
        return columns.transpose(1, 2).unsqueeze(3) * vectors.view(rows, 1, -1, vectors.shape[2])
    summed = torch.bmm(by_pos.mT, vectors).unflatten(0, (rows, -1))
    return summed.transpose(1, 2)[torch.arange(rows, device=at.device).unsqueeze(1), at]
