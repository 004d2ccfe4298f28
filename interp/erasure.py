"""Read the residual at some positions, and erase part of it.

An eraser is a function of activations, such as concept-erasure's `LeaceEraser`. It is applied to resid_pre of a layer
at some positions, and everything downstream is recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.changes import Changes, Where, WhereEdit
from interp.patching.editing import Place, chunks
from interp.patching.metric import Metric, MetricLike, bind_metric
from interp.patching.patched_runs import PROJECTED
from interp.patching.rerunning import measure_patched, measure_unpatched, reads_of
from interp.patching.unpatched import compare_with_raw, run_unpatched
from interp.places import At, positions_at
from interp.support.finite import require_finite
from interp.tasks import Prompts
from interp.tasks.limits import is_index

# Takes `[row place d_model]` on the CPU and returns the same shape.
Eraser = Callable[[Tensor], Tensor]
AtOrMask = At | Bool[Tensor, " pos"]


@exclusive
@torch.no_grad()
def residuals(
    model: AnyModel,
    prompts: PromptsLike,
    at: AtOrMask,
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
    values: dict[int, list[Tensor]] = {layer: [] for layer in numbers}
    for rows in _chunks(anatomy, prompts):
        found = _residuals(anatomy, prompts.tokens[rows].to(anatomy.device), places, numbers, erasers)
        for layer, parts in values.items():
            parts.append(require_finite(found[layer].cpu(), f"the residual before layer {layer}", rows, axis=0))
    return {layer: torch.cat(parts) for layer, parts in values.items()}


def _residuals(
    anatomy: Anatomy, tokens: Tensor, places: Tensor, numbers: Sequence[int], erasers: Mapping[int, Eraser]
) -> dict[int, Float[Tensor, "row place d_model"]]:
    """Return the residuals of some prompts; the layer before the last of them is computed at the places only.

    Under a causal mask nothing after the last place is computed.
    """
    last, found = numbers[-1], dict[int, Tensor]()
    here = torch.arange(len(places), device=tokens.device)  # the places among the positions that are computed
    tokens = tokens[:, : int(places.max()) + 1] if anatomy.causal else tokens
    resid, places = anatomy.embed(tokens), places.to(tokens.device)
    for layer in range(last + 1):
        at = here if 0 < layer == last else places
        if layer in erasers:
            resid = _erased(erasers[layer], resid, at)
        if layer in numbers:
            found[layer] = resid[:, at]
        if layer < last:
            resid = anatomy.block_at(anatomy.blocks[layer], resid, places if layer == last - 1 else None)
    return found


@exclusive
@torch.no_grad()
def answers_without(
    model: AnyModel,
    prompts: PromptsLike,
    at: AtOrMask,
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
    keep: list[Place] = [(site, layer) for layer in range(len(anatomy.blocks)) for site in PROJECTED]
    here, first = places.sort().values.to(anatomy.device), int(places.min()) if anatomy.causal else 0
    values: dict[str, list[Tensor]] = {name: [] for name in ("intact", *arms)}
    for rows in _chunks(anatomy, prompts):
        tokens = prompts.tokens[rows].to(anatomy.device)
        run = run_unpatched(anatomy, rows, tokens, reads_of(bound), keep)
        if not values["intact"]:
            compare_with_raw(anatomy, tokens, run, bound[0])
        values["intact"].append(torch.stack(measure_unpatched(anatomy, run, bound)).double())
        for name, erasers in checked.items():
            edits: dict[Place, WhereEdit] = {
                ("resid_pre", layer): partial(_erase, eraser, here) for layer, eraser in erasers.items()
            }
            measured = measure_patched(anatomy, run, Changes(min(erasers), first, edits, at=here), bound)
            values[name].append(torch.stack(measured).double())
    return {name: torch.cat(parts, dim=1) for name, parts in values.items()}


def _erase(eraser: Eraser, places: Tensor, resid: Tensor, computed: Mapping, where: Where) -> Tensor:
    """Erase from the residual at the places, or at all positions from one before them on."""
    del computed
    if isinstance(where, slice):
        return _erased(eraser, resid, places - where.start)
    assert torch.equal(where, places), "the residual enters a layer at the places, or at all positions"
    return _erased(eraser, resid, torch.arange(len(places), device=places.device))


def _erased(eraser: Eraser, resid: Tensor, places: Int[Tensor, " place"]) -> Tensor:
    before = resid[:, places].cpu()
    after = eraser(before)
    assert after.shape == before.shape, "an eraser changed the shape"
    edited = resid.clone()
    edited[:, places] = after.to(resid)
    return edited


def _checked(anatomy: Anatomy, erasers: Mapping[int, Eraser]) -> dict[int, Eraser]:
    last = len(anatomy.blocks) - 1
    if bad := [layer for layer in erasers if not is_index(layer, last + 1)]:
        raise ValueError(f"erasers act before layers 0 to {last}; got {bad}")
    return dict(erasers)


def _places(prompts: Prompts, at: AtOrMask) -> Int[Tensor, " place"]:
    if not isinstance(at, Tensor):
        return positions_at(prompts, at)
    if at.dtype != torch.bool or at.shape != (prompts.n_pos,) or not at.any():
        raise ValueError(f"a mask of positions is bool [pos]={prompts.n_pos} with one or more of them; got {at}")
    return at.nonzero().flatten()


def _chunks(anatomy: Anatomy, prompts: Prompts) -> Iterator[Int[Tensor, " row"]]:
    smallest = Metric("size of a chunk", torch.arange(min(2, prompts.n_pos)), lambda logits, rows: logits)
    yield from chunks(anatomy, prompts, smallest, copies=4 + 3 * len(anatomy.blocks))
