"""Read the residual at some positions, and erase part of it.

An eraser is a function of activations, such as concept-erasure's `LeaceEraser`. It is applied to resid_pre of a layer
at some positions, and everything downstream is recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import (
    Edit,
    Place,
    chunks,
    difference_from_raw,
    forward_with_edits,
    measure,
)
from interp.patching.metric import Metric, MetricLike, bind_metric
from interp.places import At, positions_at
from interp.support.finite import require_finite
from interp.tasks import Prompts

# Takes `[row place d_model]` on the CPU and returns the same shape.
Eraser = Callable[[Tensor], Tensor]
Where = At | Bool[Tensor, " pos"]


@exclusive
@torch.no_grad()
def residuals(
    model: AnyModel,
    prompts: PromptsLike,
    at: Where,
    layers: Collection[int] | None = None,
    erasers: Mapping[int, Eraser] | None = None,
) -> dict[int, Float[Tensor, "batch place d_model"]]:
    """Return the residual before each layer at some positions, on the CPU; key n_layers is after the last layer.

    `at`: a Role, a (Role, step) pair, a span's name, an index, a tuple of these, or a bool mask of positions.
    `erasers`, by layer, act at the same positions before the values are taken, those of the same layer included.
    Raises `ValueError` for a layer or place that does not exist, and for a residual that is not finite, naming the
    prompt.

    >>> residuals(run, batch, Role.INPUT_LABEL, layers=[1])[1].shape
    torch.Size([64, 20, 128])
    """
    anatomy = anatomy_of(raw_of(model))
    n_layers = len(anatomy.blocks)
    numbers = sorted(range(n_layers + 1) if layers is None else set(layers))
    if not numbers or not set(numbers) <= set(range(n_layers + 1)):
        raise ValueError(f"residuals have layers 0 to {n_layers} (after the last); got {numbers}")
    prompts = prompts_of(model, prompts)
    erasers = _checked(anatomy, erasers or {})
    places = _places(prompts, at)
    *earlier, last = numbers
    keep: list[Place] = [("resid_pre", layer) for layer in earlier]
    edits = _edits({layer: eraser for layer, eraser in erasers.items() if layer <= last}, places)
    edit_of_last = edits.pop(("resid_pre", last), None)
    values: dict[int, list[Tensor]] = {layer: [] for layer in numbers}
    for rows in _chunks(anatomy, prompts):
        tokens = prompts.tokens[rows].to(anatomy.device)
        final, kept = forward_with_edits(anatomy, anatomy.embed(tokens), stop=last, edits=edits, keep=keep)
        final = final if edit_of_last is None else edit_of_last(final, {})
        for layer in numbers:
            resid = final if layer == last else kept["resid_pre", layer]
            what = f"the residual before layer {layer}"
            values[layer].append(require_finite(resid[:, places].cpu(), what, rows, axis=0))
    return {layer: torch.cat(parts) for layer, parts in values.items()}


@exclusive
@torch.no_grad()
def answers_without(
    model: AnyModel,
    prompts: PromptsLike,
    at: Where,
    arms: Mapping[str, Mapping[int, Eraser]],
    metrics: Sequence[MetricLike],
) -> dict[str, Float[Tensor, "metric batch"]]:
    """Return each metric of each prompt under each arm, and under the additional arm "intact".

    An arm is erasers by layer, which act in one run at the positions `at` (as in `residuals`). The intact run is
    compared with the raw model's logits. Raises `ValueError` for a layer or place that does not exist, an arm without
    erasers, and an arm named "intact".

    >>> answers_without(run, batch, Role.INPUT_LABEL, {"layer 1": {1: eraser}}, [accuracy(batch)])
    """
    anatomy = anatomy_of(raw_of(model))
    if "intact" in arms or not all(arms.values()):
        raise ValueError(f"arms need a name other than 'intact' and an eraser each; got {list(arms)}")
    if not metrics:
        raise ValueError("no metric was given: nothing would be measured")
    prompts = prompts_of(model, prompts)
    bound = [bind_metric(metric, model, prompts) for metric in metrics]
    checked = {name: _checked(anatomy, erasers) for name, erasers in arms.items()}
    places = _places(prompts, at)
    keep: list[Place] = [("resid_pre", layer) for layer in range(len(anatomy.blocks))]
    values: dict[str, list[Tensor]] = {name: [] for name in ("intact", *arms)}
    for rows in _chunks(anatomy, prompts):
        tokens = prompts.tokens[rows].to(anatomy.device)
        final, intact = forward_with_edits(anatomy, anatomy.embed(tokens), keep=keep)
        if not values["intact"]:
            difference_from_raw(anatomy, tokens, final, bound[0])
        values["intact"].append(_measures(anatomy, final, bound, rows))
        for name, erasers in checked.items():
            start = min(erasers)
            final, _ = forward_with_edits(anatomy, intact["resid_pre", start], start, edits=_edits(erasers, places))
            values[name].append(_measures(anatomy, final, bound, rows))
    return {name: torch.cat(parts, dim=1) for name, parts in values.items()}


def _measures(anatomy: Anatomy, final: Tensor, metrics: Sequence[Metric], rows: Tensor) -> Tensor:
    return torch.stack([measure(anatomy, final, metric, rows).double() for metric in metrics])


def _edits(erasers: Mapping[int, Eraser], places: Int[Tensor, " place"]) -> dict[Place, Edit]:
    def edit(eraser: Eraser) -> Edit:
        def erased(resid: Tensor, _: Mapping) -> Tensor:
            before = resid[:, places].cpu()
            after = eraser(before)
            assert after.shape == before.shape, "an eraser changed the shape"
            edited = resid.clone()
            edited[:, places] = after.to(resid)
            return edited

        return erased

    return {("resid_pre", layer): edit(eraser) for layer, eraser in erasers.items()}


def _checked(anatomy: Anatomy, erasers: Mapping[int, Eraser]) -> dict[int, Eraser]:
    last = len(anatomy.blocks) - 1
    if bad := [layer for layer in erasers if layer not in range(last + 1)]:
        raise ValueError(f"erasers act before layers 0 to {last}; got {bad}")
    return dict(erasers)


def _places(prompts: Prompts, at: Where) -> Int[Tensor, " place"]:
    if not isinstance(at, Tensor):
        return positions_at(prompts, at)
    if at.dtype != torch.bool or at.shape != (prompts.n_pos,) or not at.any():
        raise ValueError(f"a mask of positions is bool [pos]={prompts.n_pos} with one or more of them; got {at}")
    return at.nonzero().flatten()


def _chunks(anatomy: Anatomy, prompts: Prompts) -> Iterator[Int[Tensor, " row"]]:
    smallest = Metric("size of a chunk", torch.arange(min(2, prompts.n_pos)), lambda logits, rows: logits)
    yield from chunks(anatomy, prompts, smallest, copies=4 + len(anatomy.blocks))
