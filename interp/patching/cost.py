"""What does a sweep cost? Counted in floating-point operations, before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.models.anatomy import Anatomy
from interp.patching.cells import LOCAL_SITES, Cell, first


@dataclass(frozen=True)
class Sizes:
    """What the cost of one position depends on; FLOPs are two for each multiply-add."""

    n_layers: int
    n_pos: int
    d_attention: int
    weights: int
    unembed: int
    n_reads: int

    def layer(self, positions: float, keys: float) -> float:
        """One block at some positions, each attending to `keys` keys."""
        return positions * (2 * self.weights + 4 * self.d_attention * keys)

    @property
    def forward(self) -> float:
        """One whole forward pass of one prompt, as the literal loop pays for each patch."""
        return self.n_layers * self.layer(self.n_pos, self.n_pos) + 2 * self.n_pos * self.unembed


def sizes_of(anatomy: Anatomy, n_pos: int, n_reads: int) -> Sizes:
    """Counted from the model's own weights."""
    block = anatomy.blocks[0].module
    weights = sum(p.numel() for p in block.parameters() if p.ndim == 2)
    head = anatomy.raw.get_output_embeddings()
    unembed = sum(p.numel() for p in head.parameters() if p.ndim == 2)  # type: ignore[union-attr]
    return Sizes(len(anatomy.blocks), n_pos, anatomy.n_heads * anatomy.d_head, weights, unembed, n_reads)


def engine_flops(sizes: Sizes, cells: Sequence[Cell], site: str, start: int) -> float:
    """FLOPs for one prompt of patches that are computed together from position `start` on."""
    total = 0.0
    length = sizes.n_pos - start
    for cell in cells:
        after = sizes.n_layers - cell.layer - (0 if site == "resid_pre" else 1)
        total += max(0, after - 1) * sizes.layer(length, sizes.n_pos)
        if after >= 1:
            total += _last_layer(sizes, length)
        if site != "resid_pre":
            own = len(cell.positions) if site in LOCAL_SITES else length
            total += sizes.layer(min(own, sizes.n_reads) if after == 0 else own, sizes.n_pos) * 2 / 3
        total += 2 * sizes.n_reads * sizes.unembed
    return total


def lower_bound_flops(sizes: Sizes, cells: Sequence[Cell], site: str) -> float:
    """What any exact method pays: layers after each patch times positions from it on."""
    total = 0.0
    for cell in cells:
        length = sizes.n_pos - first(cell)
        after = sizes.n_layers - cell.layer - (0 if site == "resid_pre" else 1)
        total += max(0, after - 1) * sizes.layer(length, sizes.n_pos)
        total += _last_layer(sizes, length) if after >= 1 else 0.0
        total += 2 * sizes.n_reads * sizes.unembed
    return total


def _last_layer(sizes: Sizes, length: int) -> float:
    """q, k and v everywhere, the rest only where the metric reads; q, k and v are a quarter of the weights."""
    qkv = 2 * length * sizes.weights * 0.25
    return qkv + sizes.n_reads * (2 * sizes.weights * 0.75 + 4 * sizes.d_attention * sizes.n_pos)


def row_bytes(anatomy: Anatomy, length: int, n_pos: int, n_reads: int) -> int:
    """Peak memory of one stacked row: residuals and MLP, keys and values, scores and pattern, logits."""
    size = anatomy.dtype.itemsize
    d_model = anatomy.blocks[0].ln1.weight.shape[0]  # type: ignore[union-attr]
    hidden = anatomy.blocks[0].mlp_last.weight.numel() // d_model  # type: ignore[operator,union-attr]
    stream = length * (8 * d_model + 2 * hidden)
    scores = 4 * anatomy.n_heads * length * n_pos
    logits = 3 * n_reads * anatomy.raw.config.vocab_size
    return size * (stream + scores + logits)
