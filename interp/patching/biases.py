"""What is added to attention scores: masks and the encoding of positions, which blocks of one kind share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy, Block

# Most biases that are kept for some destinations, and the numbers from which on they are not.
MOST_BIASES, LARGE = 16, 2**18


class Biases:
    """What is added to scores, kept while runs have one length: blocks of one kind share it."""

    def __init__(self) -> None:
        self._kept: dict[tuple, Tensor] = {}
        self._n_pos = 0

    def of(
        self, anatomy: Anatomy, block: Block, where: slice | Int[Tensor, " dest"], n_pos: int
    ) -> Float[Tensor, "head dest src"]:
        """Return the bias of a block at some destinations, for prompts of `n_pos` positions."""
        if isinstance(where, slice) and 2 * len(range(n_pos)[where]) >= n_pos:  # a view of the whole
            return self.whole(anatomy, block, n_pos)[:, where]
        src = torch.arange(n_pos, device=anatomy.device)
        dest = src[where]
        # On another device a look-up waits for it; a large bias takes little of its run's time, and much memory.
        if dest.device.type != "cpu" or anatomy.n_heads * len(dest) * n_pos > LARGE:
            return anatomy.bias(block, dest, src)
        kind = (block.window, block.key_bias, tuple(dest.tolist()))
        return self._recall(kind, n_pos, lambda: anatomy.bias(block, dest, src))

    def whole(self, anatomy: Anatomy, block: Block, n_pos: int) -> Float[Tensor, "head pos pos"]:
        """Return the bias of a block at all positions, for prompts of `n_pos` positions."""

        return self._recall((block.window, block.key_bias), n_pos, lambda: whole_bias(anatomy, block, n_pos))

    def _recall(self, key: tuple, n_pos: int, compute: Callable[[], Tensor]) -> Tensor:
        if n_pos != self._n_pos or len(self._kept) > MOST_BIASES:
            self._kept, self._n_pos = {}, n_pos
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]


def whole_bias(anatomy: Anatomy, block: Block, n_pos: int) -> Float[Tensor, "head pos pos"]:
    """Return `anatomy.bias` at all positions; a causal mask without a window takes a third of its operators."""
    positions = torch.arange(n_pos, device=anatomy.device)
    if block.window is not None or not anatomy.causal:
        return anatomy.bias(block, positions, positions)
    masked = torch.finfo(anatomy.dtype).min
    mask = torch.full((n_pos, n_pos), masked, dtype=anatomy.dtype, device=anatomy.device).triu_(1)
    return (
        mask.unsqueeze(0)
        if block.key_bias is None
        else mask + block.key_bias(positions).to(anatomy.dtype).T.unsqueeze(1)
    )
