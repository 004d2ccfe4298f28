"""What stands in the residual at some positions, and what is answered when part of it is taken out?

An eraser is a function of activations, such as concept-erasure's `LeaceEraser`. It is applied to the residual
before a layer, at the positions named, and everything downstream is recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.bridge import raw_of
from interp.patching.editing import (
    Edit,
    Place,
    chunks,
    difference_from_raw,
    forward_with_edits,
    measure,
)
from interp.patching.metric import Metric
from interp.places import At, positions_at
from interp.support.finite import require_finite
from interp.tasks import Batch

# Takes `[row place d_model]` on the CPU, gives the same shape.
Eraser = Callable[[Tensor], Tensor]
Where = At | Bool[Tensor, " pos"]


@torch.no_grad()
def residuals(
    model: PreTrainedModel,
    batch: Batch,
    at: Where,
    layers: Collection[int] | None = None,
    erasers: Mapping[int, Eraser] | None = None,
) -> dict[int, Float[Tensor, "batch place d_model"]]:
    """The residual before each layer at some positions, on the CPU; number n_layers is after the last.

    `at`: a Role, a (Role, step) pair, a tuple of these or of positions, or a bool mask of positions. `erasers`,
    by layer, act at the same positions before what is returned is taken, so that a layer's own acts on it too.
    Raises `ValueError` for a layer or place that is not there, and for a residual that is not finite, naming the
    prompt.

    >>> residuals(run.raw, batch, Role.INPUT_LABEL, layers=[1])[1].shape
    torch.Size([64, 20, 128])
    """
    anatomy = anatomy_of(raw_of(model))
    n_layers = len(anatomy.blocks)
    wanted = sorted(range(n_layers + 1) if layers is None else set(layers))
    if not wanted or not set(wanted) <= set(range(n_layers + 1)):
        raise ValueError(f"residuals have layers 0 to {n_layers} (after the last); got {wanted}")
    erasers = _checked(anatomy, erasers or {})
    places = _places(batch, at)
    keep: list[Place] = [("resid_pre", layer) for layer in wanted if layer < n_layers]
    found: dict[int, list[Tensor]] = {layer: [] for layer in wanted}
    for rows in _chunks(anatomy, batch):
        tokens = batch.tokens[rows].to(anatomy.device)
        final, kept = forward_with_edits(anatomy, anatomy.embed(tokens), edits=_edits(erasers, places), keep=keep)
        for layer in wanted:
            value = final if layer == n_layers else kept["resid_pre", layer]
            here = require_finite(value[:, places].cpu(), f"the residual before layer {layer}", rows, axis=0)
            found[layer].append(here)
    return {layer: torch.cat(parts) for layer, parts in found.items()}


@torch.no_grad()
def answers_without(
    model: PreTrainedModel,
    batch: Batch,
    at: Where,
    arms: Mapping[str, Mapping[int, Eraser]],
    metrics: Sequence[Metric],
) -> dict[str, Float[Tensor, "metric batch"]]:
    """Each metric of each prompt under each arm, and under the arm "intact", which is always there.

    An arm is erasers by layer, which act in one run at the positions `at` (as in `residuals`). The intact run is
    held to the raw model's logits. Raises `ValueError` for a layer or place that is not there, an arm without
    erasers, and an arm of the name "intact".

    >>> answers_without(run.raw, batch, Role.INPUT_LABEL, {"layer 1": {1: eraser}}, [accuracy(batch)])
    """
    anatomy = anatomy_of(raw_of(model))
    if "intact" in arms or not all(arms.values()):
        raise ValueError(f"arms need a name other than 'intact' and an eraser each; got {list(arms)}")
    if not metrics:
        raise ValueError("no metric was given: nothing would be measured")
    checked = {name: _checked(anatomy, erasers) for name, erasers in arms.items()}
    places = _places(batch, at)
    keep: list[Place] = [("resid_pre", layer) for layer in range(len(anatomy.blocks))]
    found: dict[str, list[Tensor]] = {name: [] for name in ("intact", *arms)}
    for rows in _chunks(anatomy, batch):
        tokens = batch.tokens[rows].to(anatomy.device)
        final, intact = forward_with_edits(anatomy, anatomy.embed(tokens), keep=keep)
        if not found["intact"]:
            difference_from_raw(anatomy, tokens, final, metrics[0])
        found["intact"].append(_measures(anatomy, final, metrics, rows))
        for name, erasers in checked.items():
            start = min(erasers)
            final, _ = forward_with_edits(anatomy, intact["resid_pre", start], start, edits=_edits(erasers, places))
            found[name].append(_measures(anatomy, final, metrics, rows))
    return {name: torch.cat(parts, dim=1) for name, parts in found.items()}


def _measures(anatomy: Anatomy, final: Tensor, metrics: Sequence[Metric], rows: Tensor) -> Tensor:
    return torch.stack([measure(anatomy, final, metric, rows).double() for metric in metrics])


def _edits(erasers: Mapping[int, Eraser], places: Int[Tensor, " place"]) -> dict[Place, Edit]:
    def edit(eraser: Eraser) -> Edit:
        def erased(resid: Tensor, _: Mapping) -> Tensor:
            here = resid[:, places].cpu()
            instead = eraser(here)
            assert instead.shape == here.shape, "an eraser changed the shape"
            edited = resid.clone()
            edited[:, places] = instead.to(resid)
            return edited

        return erased

    return {("resid_pre", layer): edit(eraser) for layer, eraser in erasers.items()}


def _checked(anatomy: Anatomy, erasers: Mapping[int, Eraser]) -> dict[int, Eraser]:
    last = len(anatomy.blocks) - 1
    if odd := [layer for layer in erasers if layer not in range(last + 1)]:
        raise ValueError(f"erasers act before layers 0 to {last}; got {odd}")
    return dict(erasers)


def _places(batch: Batch, at: Where) -> Int[Tensor, " place"]:
    if not isinstance(at, Tensor):
        return positions_at(batch, at)
    if at.dtype != torch.bool or at.shape != (batch.n_pos,) or not at.any():
        raise ValueError(f"a mask of positions is bool [pos]={batch.n_pos} with one or more of them; got {at}")
    return at.nonzero().flatten()


def _chunks(anatomy: Anatomy, batch: Batch) -> Iterator[Int[Tensor, " row"]]:
    everywhere = Metric("size of a chunk", torch.arange(min(2, batch.n_pos)), lambda logits, rows: logits)
    yield from chunks(anatomy, batch, everywhere, copies=4 + len(anatomy.blocks))
