"""Attention in which some queries read other keys, values or scores, computed without storing a pattern.

An edit of scores or patterns needs them in memory, which takes most of the time of attention. What verdicts change is
simpler: edges are removed or counted twice, or keys and values at some positions come from elsewhere. That is attention
with another bias, or a second attention for the queries that read these keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy, Block

# Queries that one call computes on a CPU: under a causal mask earlier ones need no later keys. Long prompts have larger
# blocks, so that there are at most `MOST_BLOCKS` calls.
BLOCK, MOST_BLOCKS = 32, 8
# In half precision, where no kernel does it all, blocks are larger, and runs are split from twice as many queries on.
HALF_BLOCK = 64
# The numbers of a bias from which on it is computed again for each chunk of prompts.
LARGE = 2**19


@dataclass(frozen=True, eq=False)
class AttentionChange:
    """The change of one layer's attention. Masks and positions are those of whole prompts.

    edges: edges to whose score `added` is added; minus infinity removes them.
    cells: queries that read other keys or values at the positions `src`, in rising order. Of keys, which are as
        attention uses them, and values None is the run's own.
    reused: whether several chunks of prompts have this change, so that it keeps what follows from its masks.
    """

    edges: Bool[Tensor, "head dest src"] | None = None
    added: float = -torch.inf
    cells: Bool[Tensor, "head dest"] | None = None
    src: Int[Tensor, " src"] | None = None
    keys: Float[Tensor, "#row src head d_head"] | None = None
    values: Float[Tensor, "#row src head d_head"] | None = None
    reused: bool = False
    _kept: dict[tuple, Tensor] = field(default_factory=dict, repr=False)

    def queries(self, causal: bool) -> Int[Tensor, " dest"]:
        """Return the queries that read anything else, in rising order; under a causal mask none before its source."""
        return self._recall(("queries", causal), lambda: self._queries(causal))

    def _queries(self, causal: bool) -> Int[Tensor, " dest"]:
        changed = list[Tensor]()
        if self.edges is not None:
            allowed = self.edges.any(dim=0)
            changed.append((allowed.tril() if causal else allowed).any(dim=-1))
        if self.cells is not None and self.src is not None and len(self.src):
            after = torch.arange(self.cells.shape[-1], device=self.cells.device) >= (self.src[0] if causal else 0)
            changed.append(self.cells.any(dim=0) & after)
        return torch.stack(changed).any(dim=0).nonzero().flatten() if changed else torch.empty(0, dtype=torch.long)

    def bias_of(
        self, block: Block, bias: Float[Tensor, "#head dest src"], dest: Int[Tensor, " dest"]
    ) -> Float[Tensor, "#head dest src"]:
        """Return what is added to scores with the change of edges, from a block's own bias at the queries `dest`."""
        if self.edges is None:
            return bias
        # On another device a look-up waits for it; a large bias takes little of its run's time, and much memory.
        if not self.reused or bias.device.type != "cpu" or bias.shape[-1] * len(dest) * len(self.edges) > LARGE:
            return self._with_edges(bias, dest)
        key = ("bias", block.window, block.key_bias, bias.shape[-1], tuple(dest.tolist()))
        return self._recall(key, lambda: self._with_edges(bias, dest))

    def _recall(self, key: tuple, compute: Callable[[], Tensor]) -> Tensor:
        if not self.reused:
            return compute()
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    def _with_edges(self, bias: Tensor, dest: Tensor) -> Tensor:
        assert self.edges is not None
        edges = self.edges[:, dest.to(self.edges.device), : bias.shape[-1]].to(bias.device)
        removed = self.added == -torch.inf
        return bias.masked_fill(edges, -torch.inf) if removed else torch.where(edges, bias + self.added, bias)


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
    """Return z of queries at the positions `dest`, in rising order, of a patched run, from its own q, k and v as
    attention uses them, at all of its positions."""
    sink = anatomy.sink(block, q, dest)
    if change is not None:
        bias = change.bias_of(block, bias, dest)
    if change is None or change.cells is None:
        return _attend(anatomy, block, q, k, v, bias, sink, dest)
    assert change.src is not None
    cells = change.cells[:, dest.to(change.cells.device)].to(q.device)
    if not cells.any():
        return _attend(anatomy, block, q, k, v, bias, sink, dest)

    def part(at: Tensor, heads: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return z of some queries in some heads, whose keys and values are given."""
        own = bias if len(bias) == 1 else _some(bias, 0, heads)
        own_sink = None if sink is None else sink[:, heads][:, :, at]
        here = _some(_some(q, 1, at), 2, heads)
        return _attend(anatomy, block, here, k, v, _some(own, 1, at), own_sink, _some(dest, 0, at))

    # Each head and query is computed once: heads that read other keys or values at the same queries go together.
    z = torch.empty_like(q)
    rows, group = cells.unique(dim=0, return_inverse=True)
    for number, row in enumerate(rows):
        heads = (group == number).nonzero().flatten()
        for read, at in ((True, row.nonzero().flatten()), (False, (~row).nonzero().flatten())):
            if not len(at):
                continue
            news = (change.keys, change.values) if read else (None, None)
            own = (_replaced(x, change.src, new, heads) for x, new in zip((k, v), news, strict=True))
            found = part(at, heads, *own)
            if found.shape == z.shape:
                return found
            z[:, at.unsqueeze(1), heads] = found
    return z


def _attend(
    anatomy: Anatomy,
    block: Block,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Float[Tensor, "#head dest src"],
    sink: Float[Tensor, "row head dest 1"] | None,
    dest: Int[Tensor, " dest"],
) -> Tensor:
    """Return `Anatomy.attend`, on a CPU without the keys that come after a block of queries."""
    n = len(dest)
    block_size = _block_size(anatomy, block, q)
    if sink is not None or block_size is None or n <= block_size or not anatomy.causal:
        return anatomy.attend(block, q, k, v, bias, sink)
    size, parts = block_size * -(-n // (block_size * MOST_BLOCKS)), list[Tensor]()
    for start in range(0, n, size):
        some, end = slice(start, start + size), int(dest[min(start + size, n) - 1]) + 1
        parts.append(anatomy.attend(block, q[:, some], k[:, :end], v[:, :end], bias[:, some, :end]))
    return torch.cat(parts, dim=1)


def _block_size(anatomy: Anatomy, block: Block, q: Float[Tensor, "row dest head d_head"]) -> int | None:
    """Return how many queries one call computes at least; None for all of them."""
    if anatomy.is_fused(block, q):
        return BLOCK
    is_half = q.dtype in (torch.float16, torch.bfloat16) and q.device.type == "cpu" and not torch.is_grad_enabled()
    return HALF_BLOCK if is_half and q.shape[1] > 2 * HALF_BLOCK else None


def _some(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return entries of an axis, without a copy where they are all."""
    return x if len(index) == x.shape[axis] else x.index_select(axis, index)


def _replaced(own: Tensor, src: Tensor, new: Tensor | None, heads: Tensor) -> Tensor:
    """Return keys or values of some heads with those at `src` replaced, as far as the run has these positions."""
    if new is None:
        return _some(own, 2, heads)
    own = own.clone() if len(heads) == own.shape[2] else own.index_select(2, heads)
    src = src[src < own.shape[1]].to(own.device)
    new = _some(new.to(own), 2, heads)[:, : len(src)]
    return own.index_copy_(1, src, new.expand(len(own), -1, -1, -1))
