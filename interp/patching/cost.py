"""The cost of a sweep: floating-point operations (FLOPs) and bytes, counted before it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.cells import LOCAL_SITES, Cell, first
from interp.patching.effect import Cost

if TYPE_CHECKING:
    from interp.patching.units import WorkUnit


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model and its prompts on which cost depends. FLOPs are two per multiply-add."""

    n_layers: int
    n_pos: int
    d_attention: int
    weights: int
    unembed: int
    unembed_read: int
    n_reads: int
    generic: bool = False

    def layer(self, positions: float, keys: float) -> float:
        """Return the FLOPs of one block at some positions, each attending to `keys` keys."""
        return positions * (2 * self.weights + 4 * self.d_attention * keys)

    @property
    def forward(self) -> float:
        """FLOPs of one whole forward pass of one prompt, which the literal loop pays per patch."""
        return self.n_layers * self.layer(self.n_pos, self.n_pos) + 2 * self.n_pos * self.unembed


def sizes_of(anatomy: Anatomy | GenericAnatomy, n_pos: int, n_reads: int, n_tokens: int | None = None) -> Sizes:
    """Return the sizes, counted from the model's own weights. `n_tokens`: tokens that a metric reads; None for all."""
    block, n_layers = _first_block(anatomy)
    head: Any = anatomy.raw.get_output_embeddings() if isinstance(anatomy, GenericAnatomy) else anatomy.head
    unembed = _matrix_numbers(head)
    return Sizes(
        n_layers=n_layers,
        n_pos=n_pos,
        d_attention=_attention_width(anatomy),
        weights=_matrix_numbers(block),
        unembed=unembed,
        unembed_read=unembed if anatomy.generic or n_tokens is None else n_tokens * anatomy.d_model,
        n_reads=n_reads,
        generic=anatomy.generic,
    )


def _matrix_numbers(module: nn.Module) -> int:
    """Return how many numbers the matrices of a module have; `parameters()` takes several times as long."""
    waiting, matrices = [module], dict[int, Tensor]()
    while waiting:
        one = waiting.pop()
        matrices |= {id(p): p for p in one._parameters.values() if p is not None and p.ndim == 2}
        waiting += [child for child in one._modules.values() if child is not None]
    return sum(p.numel() for p in matrices.values())


def engine_flops(sizes: Sizes, cells: Sequence[Cell], site: str, start: int) -> float:
    """Return the FLOPs for one prompt of patches that are computed together from position `start` on."""
    alike = Counter([(cell.layer, len(cell.positions)) for cell in cells])
    return sum(n * _patch_flops(sizes, *of, site, sizes.n_pos - start) for of, n in alike.items())


def _patch_flops(sizes: Sizes, layer: int, positions: int, site: str, length: int) -> float:
    """Return the FLOPs of one patch of some positions, of which the last `length` are computed."""
    after = sizes.n_layers - layer - (site == "resid_post" if sizes.generic else site != "resid_pre")
    total = 2.0 * sizes.n_reads * sizes.unembed_read
    if sizes.generic:
        return total + after * sizes.layer(sizes.n_pos, sizes.n_pos)
    total += max(0, after - 1) * sizes.layer(length, sizes.n_pos)
    if after >= 1:
        total += _last_layer(sizes, length)
    if site != "resid_pre":
        own = positions if site in LOCAL_SITES else length
        total += sizes.layer(min(own, sizes.n_reads) if after == 0 else own, sizes.n_pos) * 2 / 3
    return total


def cost_of(
    sizes: Sizes, cells: Sequence[Cell], alive: Sequence[bool], units: Sequence[WorkUnit], site: str, n_prompts: int
) -> Cost:
    """Return the cost of a sweep, before it runs."""
    flops = 2 * n_prompts * sizes.forward  # the two unpatched runs
    for unit in units:
        flops += len(unit.prompts) * engine_flops(sizes, [cells[i] for i in unit.cells], site, unit.start)
    computed = [c for c, a in zip(cells, alive, strict=True) if a]
    return Cost(
        patches=len(cells),
        skipped=len(cells) - len(computed),
        flops=flops,
        loop_flops=(len(cells) + 2) * n_prompts * sizes.forward,
        lower_bound_flops=n_prompts * (2 * sizes.forward + lower_bound_flops(sizes, computed, site)),
        chunk_rows=0,
    )


def lower_bound_flops(sizes: Sizes, cells: Sequence[Cell], site: str) -> float:
    """Return the FLOPs that any exact method pays: layers after each patch times positions from it on."""
    total = 0.0
    lengths: dict[int, list[int]] = {}
    for cell in cells:
        lengths.setdefault(cell.layer, []).append(sizes.n_pos - first(cell))
    for layer, own in lengths.items():
        after, n = sizes.n_layers - layer - (0 if site == "resid_pre" else 1), len(own)
        total += max(0, after - 1) * sizes.layer(sum(own), sizes.n_pos)
        total += _last_layer(sizes, sum(own), n) if after >= 1 else 0.0
        total += 2 * n * sizes.n_reads * sizes.unembed_read
    return total


def _last_layer(sizes: Sizes, length: int, patches: int = 1) -> float:
    """Return the FLOPs of the last layer of some patches: q, k and v (a quarter of the weights) at `length` positions
    in all, and the rest where the metric reads."""
    qkv = 2 * length * sizes.weights * 0.25
    return qkv + patches * sizes.n_reads * (2 * sizes.weights * 0.75 + 4 * sizes.d_attention * sizes.n_pos)


def row_bytes(
    anatomy: Anatomy | GenericAnatomy, length: int, n_pos: int, n_reads: int, n_tokens: int | None = None
) -> int:
    """Return the peak memory of one stacked row: residuals and MLP, keys and values, scores and pattern, logits."""
    stream = length * (8 * anatomy.d_model + 2 * _mlp_width(anatomy))
    scores = 4 * _heads(anatomy) * length * n_pos
    logits = 3 * n_reads * (anatomy.raw.config.vocab_size if anatomy.generic or n_tokens is None else n_tokens)
    return anatomy.dtype.itemsize * (stream + scores + logits)


def trace_bytes(anatomy: Anatomy | GenericAnatomy, n_pos: int, site: str, cache: bool) -> int:
    """Return the memory per prompt of two traces, and of keys, values and cached activations as attention uses them."""
    _, n_layers = _first_block(anatomy)
    if anatomy.generic:
        numbers = 2 * n_layers * n_pos * 4 * anatomy.d_model
    else:
        numbers = 18 * n_layers * n_pos * max(anatomy.d_model, _attention_width(anatomy))
        copies = n_layers if cache else 1
        if site == "pattern":
            numbers += copies * _heads(anatomy) * n_pos**2
        elif site in ("q", "k", "v"):
            numbers += 2 * copies * n_pos * _attention_width(anatomy)
    return numbers * anatomy.dtype.itemsize


def _first_block(anatomy: Anatomy | GenericAnatomy):  # type: ignore[no-untyped-def]
    if isinstance(anatomy, GenericAnatomy):
        return anatomy.layers[0], len(anatomy.layers)
    return anatomy.blocks[0].module, len(anatomy.blocks)


def _mlp_width(anatomy: Anatomy | GenericAnatomy) -> int:
    """Return the width inside the MLP; four times d_model where it is not one matrix (experts)."""
    last = None if isinstance(anatomy, GenericAnatomy) else anatomy.blocks[0].mlp_last
    weight = getattr(last, "weight", None)
    return 4 * anatomy.d_model if weight is None else weight.numel() // anatomy.d_model


def _attention_width(anatomy: Anatomy | GenericAnatomy) -> int:
    return anatomy.d_model if isinstance(anatomy, GenericAnatomy) else anatomy.n_heads * anatomy.d_head


def _heads(anatomy: Anatomy | GenericAnatomy) -> int:
    if isinstance(anatomy, GenericAnatomy):
        return getattr(anatomy.raw.config, "num_attention_heads", 1)
    return anatomy.n_heads
