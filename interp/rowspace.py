"""Directions of the residual stream that downstream weights read: the row space of the readers.

An interchange inside a learned subspace can act through directions that no weight reads (the subspace illusion,
Makelov et al. 2311.17030). The row space of the readers separates the two parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.architectures.norms import norm_parts
from interp.models.resolve import AnyModel, raw_of
from interp.patching.knockouts import require_in_layers
from interp.tasks.limits import is_index

READERS = ("q", "k", "v", "mlp")


@torch.no_grad()
def read_directions(
    model: AnyModel,
    layers: Sequence[int] | None = None,
    readers: Sequence[str] = READERS,
    heads: Sequence[tuple[int, int]] | None = None,
    threshold: float = 1e-3,
    answers: Int[Tensor, " symbol"] | None = None,
) -> Float[Tensor, "d_model rank"]:
    """Return orthonormal directions of the residual that downstream weights read; nothing reads their complement.

    They span the row space of W_Q, W_K and W_V of each head and of the MLP's input weights, after the LayerNorm's gain
    and centring, of `layers` (None: all). With `answers` (token ids) also the differences of their logits. `heads`
    restricts q, k and v to (layer, head) pairs.

    Each reader is scaled to norm 1, so that a strong one does not hide a weak one. Directions read with less than
    `threshold` of the strongest are dropped. In a trained model whose heads together have d_model dimensions or more
    this is the whole space, unless `heads` or the threshold restrict it.
    Raises `ValueError` for a reader, layer or head that does not exist, and for a head outside `layers`.

    >>> read_directions(run, layers=[1], readers=["q"], heads=[(1, 3)]).shape
    torch.Size([128, 16])
    """
    anatomy = anatomy_of(raw_of(model))
    if not readers or not set(readers) <= set(READERS):
        raise ValueError(f"readers are {', '.join(READERS)}; got {list(readers)}")
    n_layers = len(anatomy.blocks)
    for layer, head in (*((i, 0) for i in layers or ()), *(heads or ())):
        if not is_index(layer, n_layers) or not is_index(head, anatomy.n_heads):
            raise ValueError(
                f"no layer {layer}, head {head}; layers are 0 to {n_layers - 1}, heads 0 to {anatomy.n_heads - 1}"
            )
    require_in_layers(heads, layers)
    rows: list[Tensor] = []
    for layer in range(n_layers) if layers is None else layers:
        for site, out in zip(("q", "k", "v"), _linear(anatomy, layer), strict=True):
            if site in readers:
                # With grouped queries several query heads share a key-value head.
                group = anatomy.n_heads // out.shape[0]
                chosen = (
                    range(out.shape[0])
                    if heads is None
                    else {h if site == "q" else h // group for i, h in heads if i == layer}
                )
                rows += [_scaled(out[h]) for h in chosen]
        if "mlp" in readers:
            rows.append(_scaled(_mlp_in(anatomy, layer)))
    if answers is not None:
        head: Any = anatomy.raw.get_output_embeddings()
        weight = head.weight[answers.to(head.weight.device)].float()
        rows.append(_scaled((weight - weight.mean(dim=0)) @ _centred(anatomy, anatomy.final_norm)))
    if not rows:
        raise ValueError(f"no reader is left: heads {heads} are not in the layers {layers}")
    _, strength, directions = torch.linalg.svd(torch.cat(rows).double(), full_matrices=False)
    return directions[strength > threshold * strength[0]].T.float().cpu()


def part_of(
    basis: Float[Tensor, "site rank"], read: Float[Tensor, "d_model read"], inside: bool, least: float = 0.05
) -> Float[Tensor, "site part"]:
    """Return the part of learned directions that is read (`inside`), or the other part, as orthonormal directions.

    A site of several places has the same readers at each. Parts shorter than `least` are dropped, since they may be
    rounding; there may be none left.
    """
    blocks = basis.unflatten(0, (-1, len(read)))
    projected = torch.einsum("mr,nr,knb->kmb", read, read, blocks)
    kept = (projected if inside else blocks - projected).flatten(0, 1)
    directions, length, _ = torch.linalg.svd(kept, full_matrices=False)
    return directions[:, length > least]


def _scaled(rows: Tensor) -> Tensor:
    return rows / torch.linalg.matrix_norm(rows, ord=2).clamp_min(1e-12)


def _centred(anatomy: Anatomy, norm: nn.Module) -> Float[Tensor, "d_model d_model"]:
    """Return the linear part of a norm without its scale: its gain and, for a LayerNorm, the centring."""
    parts = norm_parts(norm, anatomy.d_model, anatomy.dtype, anatomy.device)
    mean = 1 / anatomy.d_model if parts.centres else 0
    return parts.gain.float().unsqueeze(1) * (torch.eye(anatomy.d_model, device=anatomy.device) - mean)


def _linear(anatomy: Anatomy, layer: int) -> tuple[Tensor, ...]:
    """Return the rows of q, k and v by head, `[head d_head d_model]`."""
    matrix = _centred(anatomy, anatomy.blocks[layer].ln1)
    return tuple(torch.einsum("dhe,di->hei", w.float(), matrix) for w, _ in anatomy.input_weights(layer))


def _mlp_in(anatomy: Anatomy, layer: int) -> Float[Tensor, "d_mlp d_model"]:
    """Return the MLP's input weights after its norm: of the modules before its last projection that read d_model.

    Raises `ValueError` for an MLP of experts, which read by a router.
    """
    block, rows = anatomy.blocks[layer], []
    if block.mlp_last is None:
        raise ValueError(f"the MLP of {anatomy.raw.config.model_type} has experts; leave 'mlp' out of the readers")

    def keep(module: nn.Module, args: tuple, _: object) -> None:
        weight = _weight(module)
        if weight is not None and args[0].shape[-1] == anatomy.d_model:
            rows.append(weight)

    handles = [module.register_forward_hook(keep) for module in block.module.modules()]
    try:
        block.mlp_body(torch.zeros(1, anatomy.d_model, dtype=anatomy.dtype, device=anatomy.device))
    finally:
        for handle in handles:
            handle.remove()
    matrix = _centred(anatomy, block.ln2)
    return torch.cat([_unit_rows(w.float() @ matrix) for w in rows])


def _unit_rows(rows: Tensor) -> Tensor:
    """Return rows scaled to norm 1, since each neuron is one reader; zero rows stay zero."""
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, rows / norms.clamp_min(1e-12), rows)


def _weight(module: nn.Module) -> Tensor | None:
    """Return a projection's weight as `[out in]`; GPT-2's Conv1D stores it as `[in out]`."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        return None
    return weight if isinstance(module, nn.Linear) else weight.T
