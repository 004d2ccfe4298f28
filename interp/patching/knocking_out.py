"""Attention knockout: remove attention edges and measure the metric.

An edge runs from a source position (key) to a destination (query) in one head. The three modes separate what a
removed edge carried (probes/README.md, Battery): "renormalise" minus "null" is the effect of the softmax denominator,
"null" minus "mean" that of a constant value, and "mean" that of the part of the value which depends on the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import torch
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import SHARE, Place, chunks
from interp.patching.effect import PatchEffect
from interp.patching.knockout_plans import KnockoutPlan
from interp.patching.knockouts import Entry, Knockout, masks_of, mean_by_of, named
from interp.patching.metric import Metric, MetricLike, bind_metrics
from interp.patching.patched_runs import reused_places
from interp.patching.rerunning import Measured, measure_patched, measure_unpatched, unpatched_runs
from interp.patching.unpatched import Unpatched, trace
from interp.sites import Site
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import Prompts


def knock_out(
    model: AnyModel,
    prompts: PromptsLike,
    knockouts: Entry | list[Entry] | Mapping[str, Entry | list[Knockout]],
    metric: MetricLike,
    freeze_later: bool = False,
) -> PatchEffect:
    """Return the metric of each prompt under each knockout.

    A tuple of knockouts, or a list under a name, is one entry, applied in one run. In a joint entry edges are masked
    first, then nulled, and values are replaced last. The only axis is "knockout", named by the mapping's keys or by the
    knockouts themselves. A knockout has no source run, so `source` is the base and `recovered` raises; use `change`.

    `freeze_later=True`: every layer uses the scores of the intact run, without the entry's own edges. Later heads
    then cannot compensate (probes/README.md, Battery).

    Raises `ValueError` for a role, step, position, layer or head that does not exist, for a knockout without an
    edge, and for a row that "renormalise" leaves without a key; `TypeError` for entries that are no knockouts.

    >>> effect = knock_out(run, batch, [Knockout(Role.INPUT_LABEL, Role.OUTPUT, mode="null")], logit_diff(batch))
    """
    (effect,) = knock_out_for(model, prompts, knockouts, [metric], freeze_later)
    return effect


@exclusive
@torch.no_grad()
def knock_out_for(
    model: AnyModel,
    prompts: PromptsLike,
    knockouts: Entry | list[Entry] | Mapping[str, Entry | list[Knockout]],
    metrics: Sequence[MetricLike],
    freeze_later: bool = False,
) -> list[PatchEffect]:
    """Return the effects of `knock_out` for several metrics of the same runs, in their order."""
    anatomy = anatomy_of(raw_of(model))
    prompts = prompts_of(model, prompts)
    bound, entries = bind_metrics(metrics, model, prompts), named(knockouts)
    plans = [KnockoutPlan(anatomy, masks_of(anatomy, prompts, entry), mean_by_of(entry)) for entry in entries.values()]
    places = _places(anatomy, plans, freeze_later)
    runs, means = _runs_and_means(anatomy, prompts, bound, places, {plan.mean_by for plan in plans} - {None})
    measured, raw_difference = Measured(bound, entries), 0.0
    for run in runs:
        raw_difference = run.raw_difference
        changes = [plan.changes(run, means, freeze_later) for plan in plans]
        cells = [measure_patched(anatomy, run, change, run.metrics) for change in changes]
        measured.add(run, measure_unpatched(anatomy, run, run.metrics), cells)
    details = {"freeze_later": freeze_later, "raw_difference": raw_difference}
    return measured.effects("attention edges", "knockout", "knockout", details)


def _runs_and_means(
    anatomy: Anatomy, prompts: Prompts, metrics: Sequence[Metric], places: set[Place], groupings: Set[str | None]
) -> tuple[Iterable[Unpatched], dict[str, dict[int, Tensor]]]:
    """Return the unpatched runs, and their values by layer, `[pos kv_head d_head]`, averaged over prompts and like
    positions. Where all runs fit the budget they are kept, so that prompts run once.
    """
    if not groupings:
        return unpatched_runs(anatomy, prompts, metrics, places), {}
    of_values: set[Place] = {("v", layer) for layer in range(len(anatomy.blocks))}
    kept = _all_fit(anatomy, prompts, metrics, places | of_values)
    places = places | of_values if kept else places
    runs: Iterable[Unpatched] = unpatched_runs(anatomy, prompts, metrics, places)
    if kept:
        runs = list(runs)
        found = ((run.rows, run.kept) for run in runs)
    else:
        found = _values(anatomy, prompts, max(metrics, key=lambda m: len(m.positions)), of_values)
    return runs, _value_means(anatomy, prompts, {name for name in groupings if name is not None}, found)


def _all_fit(anatomy: Anatomy, prompts: Prompts, metrics: Sequence[Metric], places: Set[Place]) -> bool:
    """Return whether the unpatched runs of all prompts fit the budget at once, and have all positions."""
    if len(metrics) == 1 and metrics[0].own is not None:
        return False
    wide = sum(site in ("attn_scores", "pattern") for site, _ in places)
    by_position = wide * anatomy.n_heads * prompts.n_pos + (len(places) - wide + 1) * anatomy.n_heads * anatomy.d_head
    return len(prompts) * prompts.n_pos * by_position <= numbers(SHARE, anatomy.device, anatomy.dtype.itemsize)


def _values(
    anatomy: Anatomy, prompts: Prompts, metric: Metric, places: Set[Place]
) -> Iterator[tuple[Tensor, Mapping[Place, Tensor]]]:
    """Yield the numbers of some prompts and the values of their unpatched run."""
    for rows in chunks(anatomy, prompts, metric, copies=4):
        tokens = prompts.tokens[rows].to(anatomy.device)
        yield rows, trace(anatomy, tokens, metric.positions.to(anatomy.device), places, final=False)[1]


def _value_means(
    anatomy: Anatomy,
    prompts: Prompts,
    groupings: Set[str],
    found: Iterable[tuple[Tensor, Mapping[Place, Tensor]]],
) -> dict[str, dict[int, Tensor]]:
    total: dict[int, Tensor] = {}
    for rows, kept in found:
        for layer in range(len(anatomy.blocks)):
            v = kept["v", layer]
            require_finite(v, f"a value of layer {layer}", rows, axis=0)  # a NaN would reach all prompts by the mean
            total[layer] = total.get(layer, 0) + v.double().sum(dim=0)
    means = {}
    for name in groupings:
        alike = _alike(prompts, name)
        weights = alike.double() / (alike.sum(dim=1, keepdim=True) * len(prompts))
        means[name] = {
            layer: torch.einsum("ps,she->phe", weights.to(summed.device), summed).to(anatomy.dtype)
            for layer, summed in total.items()
        }
    return means


def _alike(prompts: Prompts, by: str) -> Tensor:
    """Return which positions are averaged together, `[pos pos]`; by role, each with itself where there are no roles."""
    alike = torch.eye(prompts.n_pos, dtype=torch.bool)
    if by == "token":
        first = prompts.tokens[0]
        same = (prompts.tokens == first).all(dim=0)
        return alike | ((first.unsqueeze(1) == first) & same.unsqueeze(1) & same)
    if by == "pos" or prompts.role is None:
        return alike
    role = prompts.role.cpu()
    alike = role.unsqueeze(1) == role
    if by == "step" and prompts.step is not None:
        step = prompts.step.cpu()
        alike = alike & (step.unsqueeze(1) == step)
    return alike


def _places(anatomy: Anatomy, plans: Sequence[KnockoutPlan], freeze_later: bool) -> set[Place]:
    """Return what is kept of the unpatched run."""
    starts: dict[int, set[Site]] = {}
    for plan in plans:
        starts.setdefault(plan.start, set()).update({"z"} if freeze_later else plan.sites)
    places = reused_places(anatomy, starts, max(plan.first for plan in plans), narrow=starts)
    if freeze_later:
        layers = range(min(starts), len(anatomy.blocks))
        places |= {("pattern", layer) for layer in layers}
        removed = {layer for plan in plans for layer in plan.masks.get("renormalise", {})}
        places |= {("attn_scores", layer) for layer in removed}
    return places
