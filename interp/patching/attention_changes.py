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
        removed = change.added == -torch.inf
        bias = bias.masked_fill(edges, -torch.inf) if removed else torch.where(edges, bias + change.added, bias)
    if change.cells is None:
        return anatomy.attend(block, q, k, v, bias, sink)
    cells = change.cells[:, dest.to(change.cells.device)].to(q.device)
    heads, at = (cells.any(dim=axis).nonzero().flatten() for axis in (1, 0))
    if not len(heads):
        return anatomy.attend(block, q, k, v, bias, sink)
    assert change.src is not None

    def part(at: Tensor, heads: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return z of some queries in some heads."""
        own = bias if len(bias) == 1 else _some(bias, 0, heads)
        own_sink = None if sink is None else sink[:, heads][:, :, at]
        return anatomy.attend(block, _some(_some(q, 1, at), 2, heads), k, v, _some(own, 1, at), own_sink)

    new_k, new_v = (_replaced(own, change.src, new, heads) for own, new in ((k, change.keys), (v, change.values)))
    other = part(at, heads, new_k, new_v)
    if not cells[heads][:, at].all():
        z = anatomy.attend(block, q, k, v, bias, sink)
        where = (slice(None), at.unsqueeze(1), heads)
        z[where] = torch.where(cells[heads][:, at].T[None, :, :, None], other, z[where])
        return z
    if other.shape == q.shape:
        return other
    # What reads the run's own keys and values: all heads of the other queries, and the other heads of these.
    every, z = torch.arange(len(cells), device=q.device), other.new_empty(q.shape)
    rest, others = (~cells.any(dim=0)).nonzero().flatten(), (~cells.any(dim=1)).nonzero().flatten()
    z[:, at.unsqueeze(1), heads] = other
    if len(rest):
        z[:, rest] = part(rest, every, k, v)
    if len(others):
        z[:, at.unsqueeze(1), others] = part(at, others, k[:, :, others], v[:, :, others])
    return z


def _some(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return entries of an axis, without a copy where they are all."""
    return x if len(index) == x.shape[axis] else x.index_select(axis, index)


def _replaced(own: Tensor, src: Tensor, new: Tensor | None, heads: Tensor) -> Tensor:
    """Return keys or values of some heads with those at `src` replaced, as far as the run has these positions."""
    if new is None:
        return _some(own, 2, heads)
    own = own.clone() if len(heads) == own.shape[2] else own.index_select(2, heads)
    src = src[src < own.shape[1]].to(own.device)
    own[:, src] = _some(new, 2, heads)[:, : len(src)].to(own)
    return own
