"""Attention without a stored pattern is attention with one, changed in the same way."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.models.anatomy import anatomy_of
from interp.patching import attention_changes
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


def test_blocks_of_queries_without_later_keys(layer: Layer, monkeypatch: pytest.MonkeyPatch):
    """Blocks of two queries, and of more where there would be too many."""
    change = AttentionChange(EDGES, math.log(2), CELLS, SRC, layer.keys, layer.values)
    late = torch.tensor([1, 5, 7, N - 1])
    expected = layer.fast(change), layer.fast(change, late), layer.fast(None)
    lengths, attend = list[tuple[int, int]](), type(layer.anatomy).attend

    def watched(self, block, q, k, *others):
        lengths.append((q.shape[1], k.shape[1]))
        return attend(self, block, q, k, *others)

    monkeypatch.setattr(type(layer.anatomy), "attend", watched)
    monkeypatch.setattr(attention_changes, "BLOCK", 2)
    for most in (100, 2):
        monkeypatch.setattr(attention_changes, "MOST_BLOCKS", most)
        lengths.clear()
        for found, whole in zip(
            (layer.fast(change), layer.fast(change, late), layer.fast(None)), expected, strict=True
        ):
            close(found, whole)
        if layer.anatomy.sink(layer.block, layer.q, EVERY) is None:  # a sink needs the pattern, which is not split
            assert any(keys < N for _, keys in lengths)
            assert max(queries for queries, _ in lengths) == (2 if most == 100 else 2 * -(-N // 4))


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_in_half_precision(kind: str, monkeypatch: pytest.MonkeyPatch):
    """Of more than twice a block's queries, without gradients."""
    keys, attend = list[int](), type(anatomy_of(tiny(kind))).attend

    def watched(self, block, q, k, *others):
        keys.append(k.shape[1])
        return attend(self, block, q, k, *others)

    with torch.no_grad():
        layer = Layer(kind, torch.bfloat16)
        change = AttentionChange(EDGES, math.log(2), CELLS, SRC, layer.keys, layer.values)
        expected = layer.fast(change), layer.fast(None)
        monkeypatch.setattr(type(layer.anatomy), "attend", watched)
        for size in (N // 2, N // 2 - 1):
            monkeypatch.setattr(attention_changes, "HALF_BLOCK", size)
            keys.clear()
            for found, whole in zip((layer.fast(change), layer.fast(None)), expected, strict=True):
                torch.testing.assert_close(found, whole, rtol=1e-2, atol=1e-3)
            is_split = size < N // 2 and layer.anatomy.sink(layer.block, layer.q, EVERY) is None
            assert (min(keys) < N) == is_split
    keys.clear()
    layer.fast(None)
    assert min(keys) == N


def test_a_change_keeps_the_bias_of_its_edges_for_other_prompts(layer: Layer):
    """At the same queries it is the same tensor; at others, or in a block of another kind, it is not."""
    change, late = AttentionChange(edges=EDGES, reused=True), torch.tensor([5, N - 1])
    kept = change.bias_of(layer.block, layer.bias, EVERY)
    assert change.bias_of(layer.block, layer.bias.clone(), EVERY) is kept
    assert torch.equal(change.bias_of(layer.block, layer.bias[:, late], late), kept[:, late])
    windowed = dataclasses.replace(layer.block, window=2)
    bias = layer.anatomy.bias(windowed, EVERY, EVERY)
    assert torch.equal(change.bias_of(windowed, bias, EVERY), bias.masked_fill(EDGES, -torch.inf))
    assert AttentionChange(edges=EDGES).bias_of(layer.block, layer.bias, EVERY) is not kept
    assert not AttentionChange(edges=EDGES)._kept


def test_queries_that_change_come_after_what_they_read_less_or_otherwise():
    edges = torch.zeros(HEADS, N, N, dtype=torch.bool)
    edges[1, 2, 4] = edges[2, 5, 4] = edges[0, 6, 6] = True
    assert AttentionChange(edges=edges).queries(causal=True).tolist() == [5, 6]
    assert AttentionChange(edges=edges).queries(causal=False).tolist() == [2, 5, 6]
    cells = torch.zeros(HEADS, N, dtype=torch.bool)
    cells[0, [2, 3, 7]] = True
    change = AttentionChange(cells=cells, src=torch.tensor([3, 6]))
    assert change.queries(causal=True).tolist() == [3, 7]
    assert change.queries(causal=False).tolist() == [2, 3, 7]
    both = AttentionChange(edges=edges, cells=cells, src=torch.tensor([3, 6]))
    assert both.queries(causal=True).tolist() == [3, 5, 6, 7]


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
