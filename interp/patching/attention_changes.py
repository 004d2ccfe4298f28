"""Attention in which some queries read other keys, values or scores, computed without storing a pattern.

An edit of scores or patterns needs them in memory, which takes most of the time of attention. What verdicts change is
simpler: edges are removed or counted twice, or keys and values at some positions come from elsewhere. That is attention
with another bias, or a second attention for the queries that read these keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy, Block


@dataclass(frozen=True, eq=False)
class AttentionChange:
    """The change of one layer's attention. Masks and positions are those of whole prompts.

    edges: edges to whose score `added` is added; minus infinity removes them.
    cells: queries that read other keys or values at the positions `src`, in rising order. Of keys, which are as
        attention uses them, and values None is the run's own.
    """

    edges: Bool[Tensor, "head dest src"] | None = None
    added: float = -torch.inf
    cells: Bool[Tensor, "head dest"] | None = None
    src: Int[Tensor, " src"] | None = None
    keys: Float[Tensor, "#row src head d_head"] | None = None
    values: Float[Tensor, "#row src head d_head"] | None = None


def attend_with(
    anatomy: Anatomy,
    block: Block,
    change: AttentionChange | None,
    q: Float[Tensor, "row dest head d_head"],
    k: Float[Tensor, "row src head d_head"],
    v: Float[Tensor, "row src head d_head"],
    bias: Float[Tensor, "#head dest src"],
    dest: Int[Tensor, " dest"],
) -> Float[Tensor, "row dest head d_head"]:
    """Return z of queries at the positions `dest` of a patched run, from its own q, k and v as attention uses them."""
    sink = anatomy.sink(block, q, dest)
    if change is None:
        return anatomy.attend(block, q, k, v, bias, sink)
    if change.edges is not None:
        edges = change.edges[:, dest.to(change.edges.device), : k.shape[1]].to(bias.device)
        bias = torch.where(edges, bias + change.added, bias)
    if change.cells is None:
        return anatomy.attend(block, q, k, v, bias, sink)
    cells = change.cells[:, dest.to(change.cells.device)].to(q.device)
    heads, at = (cells.any(dim=axis).nonzero().flatten() for axis in (1, 0))
    if not len(heads):
        return anatomy.attend(block, q, k, v, bias, sink)
    cells = cells[heads][:, at]
    assert change.src is not None
    other = anatomy.attend(
        block,
        q[:, at][:, :, heads],
        _replaced(k[:, :, heads], change.src, change.keys, heads),
        _replaced(v[:, :, heads], change.src, change.values, heads),
        (bias if len(bias) == 1 else bias[heads])[:, at],
        None if sink is None else sink[:, heads][:, :, at],
    )
    if cells.all() and other.shape == q.shape:
        return other
    z = anatomy.attend(block, q, k, v, bias, sink)
    where = (slice(None), at.unsqueeze(1), heads)
    z[where] = torch.where(cells.T[None, :, :, None], other, z[where])
    return z


def _replaced(own: Tensor, src: Tensor, new: Tensor | None, heads: Tensor) -> Tensor:
    """Return keys or values of some heads with those at `src` replaced, as far as the run has these positions."""
    if new is None:
        return own
    src = src[src < own.shape[1]].to(own.device)
    own[:, src] = new[:, : len(src), heads].to(own)
    return own
