"""Attention to changed columns is attention to the whole, in its values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp.changed import Changed, mixed, scores_of

ROWS, HEADS, POS, WIDTH = 5, 3, 9, 4


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def whole(kept: Tensor, at: Tensor, new: Tensor) -> Tensor:
    """The slow reference: `[row pos head d_head]` with the new columns, through which gradients flow."""
    return kept.detach().clone().index_put((torch.arange(ROWS).unsqueeze(1), at), new)


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("queries", [1, 2])
def test_values_and_gradients_are_those_of_the_whole_product(places, queries):
    kept, at = drawn(ROWS, POS, HEADS, WIDTH, seed=0), torch.stack([torch.randperm(POS)[:places] for _ in range(ROWS)])
    new, q, pattern = (
        drawn(ROWS, places, HEADS, WIDTH, seed=1),
        drawn(ROWS, queries, HEADS, WIDTH, seed=2),
        drawn(ROWS, HEADS, queries, POS, seed=3),
    )
    columns = whole(kept, at, new)
    keys = Changed(columns.detach().permute(0, 2, 3, 1).contiguous(), at, new)
    values = Changed(columns.detach().transpose(1, 2).contiguous(), at, new)
    for found, expected, inputs in (
        (scores_of(q, keys), torch.einsum("rdhe,rshe->rhds", q, columns), (q, new)),
        (mixed(pattern, values), torch.einsum("rhds,rshe->rdhe", pattern, columns), (pattern, new)),
    ):
        assert torch.equal(found, expected)
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4))
        own, theirs = (torch.autograd.grad(x, inputs, weights, retain_graph=True) for x in (found, expected))
        for one, other in zip(own, theirs, strict=True):
            assert float(one.abs().max()) > 0.1
            assert torch.equal(one, other)
