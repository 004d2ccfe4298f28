"""Attention without a stored pattern is attention with one, changed in the same way."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.models.anatomy import anatomy_of
from interp.patching.attention_changes import AttentionChange, attend_with
from tests.interp.patching.models import prompts, tiny

KINDS = ("alibi", "rotary", "grouped", "alibi_sink")
BATCH, OTHER = prompts(3, 4, 0), prompts(3, 4, 1)
N, HEADS, LAYER = BATCH.n_pos, 4, 1
EVERY = torch.arange(N)
SRC = torch.tensor([1, 3, 6])


def mask(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


# No query loses its own position.
EDGES = mask(0, HEADS, N, N).tril(-1)
CELLS = mask(1, HEADS, N)
CELLS[2] = False
# All heads of some queries, the last of them among these, and one head.
ROWS = (torch.arange(N) % 2 == (N - 1) % 2).expand(HEADS, N)
HEAD = (torch.arange(HEADS) == 1).unsqueeze(1)


class Layer:
    """One layer of a tiny model: q, k and v as attention uses them, and those of other prompts at `SRC`."""

    def __init__(self, kind: str, dtype: torch.dtype = torch.float32) -> None:
        self.anatomy = anatomy = anatomy_of(tiny(kind, dtype))
        self.block = anatomy.blocks[LAYER]
        self.bias = anatomy.bias(self.block, EVERY, EVERY)
        (self.q, self.k, self.v), (_, keys, values) = (self.of(batch) for batch in (BATCH, OTHER))
        self.keys, self.values = keys[:, SRC], values[:, SRC]

    def of(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.block.project(self.anatomy.embed(batch.tokens))
        anatomy, block = self.anatomy, self.block
        keys = anatomy.expand_heads(anatomy.keys(block, k, EVERY))
        return anatomy.queries(block, q, EVERY), keys, anatomy.expand_heads(v)

    def slow(self, k: Tensor, v: Tensor, added: Tensor | None = None) -> Tensor:
        """The pattern, stored."""
        scores = torch.einsum("rdhe,rshe->rhds", self.q, k) * self.block.scale + self.bias
        scores = scores if added is None else scores + added
        pattern = self.anatomy.softmax(scores, self.anatomy.sink(self.block, self.q, EVERY))
        return torch.einsum("rhds,rshe->rdhe", pattern, v)

    def fast(self, change: AttentionChange | None, dest: Tensor = EVERY) -> Tensor:
        bias = self.bias[:, dest]
        return attend_with(self.anatomy, self.block, change, self.q[:, dest], self.k, self.v, bias, dest)


@pytest.fixture(params=KINDS)
def layer(request: pytest.FixtureRequest):
    with torch.no_grad():
        yield Layer(request.param)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_plain_attention(layer: Layer):
    close(layer.fast(None), layer.slow(layer.k, layer.v))


@pytest.mark.parametrize("added", [-torch.inf, math.log(2)])
def test_edges(layer: Layer, added: float):
    expected = layer.slow(layer.k, layer.v, torch.zeros(HEADS, N, N).masked_fill(EDGES, added))
    close(layer.fast(AttentionChange(edges=EDGES, added=added)), expected)
    assert (expected - layer.slow(layer.k, layer.v)).abs().max() > 1e-2


@pytest.mark.parametrize(
    "cells",
    [CELLS, torch.ones_like(CELLS), torch.zeros_like(CELLS), ROWS, ROWS & ~HEAD, ~HEAD.expand(HEADS, N)],
    ids=["some", "all", "no", "queries", "queries of heads", "heads"],
)
@pytest.mark.parametrize("sites", ["keys", "values", "both"])
def test_other_keys_and_values_in_cells(layer: Layer, cells: Tensor, sites: str):
    keys = layer.keys if sites != "values" else None
    values = layer.values if sites != "keys" else None
    k, v = layer.k.clone(), layer.v.clone()
    k[:, SRC], v[:, SRC] = (own[:, SRC] if new is None else new for own, new in ((k, keys), (v, values)))
    expected = torch.where(cells.T[None, :, :, None], layer.slow(k, v), layer.slow(layer.k, layer.v))
    change = AttentionChange(cells=cells, src=SRC, keys=keys, values=values)
    close(layer.fast(change), expected)
    late = torch.tensor([5, 7, N - 1])
    close(layer.fast(change, late), expected[:, late])
    assert ((expected - layer.slow(layer.k, layer.v)).abs().max() > 1e-2) == bool(cells.any())


def test_a_run_that_ends_earlier(layer: Layer):
    """Masks and positions are those of whole prompts; `SRC` has a position after the end."""
    change = AttentionChange(EDGES, -torch.inf, CELLS, SRC, layer.keys, layer.values)
    end = torch.arange(5)
    whole = layer.fast(change)[:, end]
    q, k, v = (x[:, end] for x in (layer.q, layer.k, layer.v))
    close(attend_with(layer.anatomy, layer.block, change, q, k, v, layer.bias[:, :5, :5], end), whole)


def test_double_precision_rounds_as_the_architecture_does():
    """BLOOM's softmax is single precision whatever its weights are, which the kernel's is not."""
    with torch.no_grad():
        layer = Layer("alibi", torch.float64)
        torch.testing.assert_close(layer.fast(None), layer.slow(layer.k, layer.v), rtol=1e-12, atol=1e-12)
