"""Which directions of the residual does anything downstream read?

An interchange inside a learned subspace can work through a part that no weight reads, which lends its spread to a
part that never varies (the subspace illusion, Makelov et al. 2311.17030). The readers' row space tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.models.anatomy import Block, anatomy_of
from interp.models.bridge import raw_of

READERS = ("q", "k", "v", "mlp")


@torch.no_grad()
def read_directions(
    model: PreTrainedModel,
    layers: Sequence[int] | None = None,
    readers: Sequence[str] = READERS,
    heads: Sequence[tuple[int, int]] | None = None,
    threshold: float = 1e-3,
    answers: Int[Tensor, " symbol"] | None = None,
) -> Float[Tensor, "d_model rank"]:
    """Orthonormal directions of the residual that anything downstream reads: their complement is read by nobody.

    The row space of W_Q, W_K, W_V of each head and of the MLP's in-weights, behind the LayerNorm (its gain, and the
    mean that it takes away), of `layers` (None: all); with `answers` (token ids) also the differences of their logits,
    which are read where the answer is. `heads` restricts q, k and v to (layer, head) pairs.

    Every reader counts alike, so that a sharp one does not hide a faint one: each is scaled to 1, and directions
    read with less than `threshold` of the strongest are left out. In a trained model whose heads together have
    d_model dimensions or more this is everything, unless `heads` or the threshold narrow it.
    Raises `ValueError` for a reader, layer or head that is not there.

    >>> read_directions(run.raw, layers=[1], readers=["q"], heads=[(1, 3)]).shape
    torch.Size([128, 16])
    """
    anatomy = anatomy_of(raw_of(model))
    if not readers or not set(readers) <= set(READERS):
        raise ValueError(f"readers are {', '.join(READERS)}; got {list(readers)}")
    n_layers = len(anatomy.blocks)
    for layer, head in (*((i, 0) for i in layers or ()), *(heads or ())):
        if layer not in range(n_layers) or head not in range(anatomy.n_heads):
            raise ValueError(
                f"no layer {layer}, head {head}; layers are 0 to {n_layers - 1}, heads 0 to {anatomy.n_heads - 1}"
            )
    rows: list[Tensor] = []
    for layer in range(n_layers) if layers is None else layers:
        block = anatomy.blocks[layer]
        for site, out in zip(("q", "k", "v"), _linear(block), strict=True):
            if site in readers:
                # A key-value head that several query heads share is that of any of them.
                group = anatomy.n_heads // out.shape[0]
                chosen = (
                    range(out.shape[0])
                    if heads is None
                    else {h if site == "q" else h // group for i, h in heads if i == layer}
                )
                rows += [_scaled(out[h]) for h in chosen]
        if "mlp" in readers:
            rows.append(_scaled(_mlp_in(block)))
    if answers is not None:
        head: Any = anatomy.raw.get_output_embeddings()
        weight = head.weight[answers.to(head.weight.device)].float()
        rows.append(_scaled((weight - weight.mean(dim=0)) @ _centred(anatomy.final_norm)))
    if not rows:
        raise ValueError(f"no reader is left: heads {heads} are in none of the layers {layers}")
    _, strength, directions = torch.linalg.svd(torch.cat(rows).double(), full_matrices=False)
    return directions[strength > threshold * strength[0]].T.float().cpu()


def part_of(
    basis: Float[Tensor, "site rank"], read: Float[Tensor, "d_model read"], inside: bool, least: float = 0.05
) -> Float[Tensor, "site part"]:
    """The learned directions' part that is read (`inside`), or the part that is not, as orthonormal directions.

    A site of several places has the same readers at each. Directions whose part is shorter than `least` are left
    out, so that rounding is not blown up to a direction; there may be none.
    """
    blocks = basis.unflatten(0, (-1, len(read)))
    here = torch.einsum("mr,nr,knb->kmb", read, read, blocks)
    kept = (here if inside else blocks - here).flatten(0, 1)
    directions, length, _ = torch.linalg.svd(kept, full_matrices=False)
    return directions[:, length > least]


def _scaled(rows: Tensor) -> Tensor:
    return rows / torch.linalg.matrix_norm(rows, ord=2).clamp_min(1e-12)


def _centred(norm: nn.Module) -> Float[Tensor, "d_model d_model"]:
    """The linear part of a norm but for its scale: its gain times, for a LayerNorm, what takes the mean away."""
    weight: Any = norm.weight
    eye = torch.eye(len(weight), device=weight.device)
    mean = 0 if "rms" in type(norm).__name__.lower() else 1 / len(weight)
    return weight.float().unsqueeze(1) * (eye - mean)


def _linear(block: Block) -> tuple[Tensor, ...]:
    """Rows of q, k and v by head, `[head d_head d_model]`: the projections' answers to each unit vector."""
    matrix = _centred(block.ln1)
    weight: Any = block.qkv[0].weight
    dtype = weight.dtype
    zero = torch.zeros(1, len(matrix), dtype=dtype, device=matrix.device)

    def split(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return block.split(*(projection(x) for projection in block.qkv))

    units, none = split(matrix.T.to(dtype)), split(zero)
    return tuple((unit - base).float().permute(1, 2, 0) for unit, base in zip(units, none, strict=True))


def _mlp_in(block: Block) -> Float[Tensor, "d_mlp d_model"]:
    """The MLP's in-weights behind its LayerNorm: those modules before its last whose input is d_model."""
    matrix = _centred(block.ln2)
    d_model = len(matrix)
    found = [
        _weight(module)
        for name, module in block.module.named_modules()
        if "mlp" in name.split(".") and module is not block.mlp_last and _weight(module) is not None
    ]
    rows = [w for w in found if w is not None and w.shape[1] == d_model]
    assert rows, "no MLP in-weights were found"
    return torch.cat([_unit_rows(w.float() @ matrix) for w in rows])


def _unit_rows(rows: Tensor) -> Tensor:
    """Each neuron is a reader of its own; those that read nothing stay zero."""
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, rows / norms.clamp_min(1e-12), rows)


def _weight(module: nn.Module) -> Tensor | None:
    """`[out in]` of a projection; GPT-2's Conv1D keeps it the other way round."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        return None
    return weight if isinstance(module, nn.Linear) else weight.T
