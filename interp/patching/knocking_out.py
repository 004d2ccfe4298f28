"""Attention knockout: remove attention edges and measure the metric.

An edge runs from a source position (key) to a destination (query) in one head. The three modes separate what a
removed edge carried (probes/README.md, Battery): "renormalise" minus "null" is the effect of the softmax denominator,
"null" minus "mean" that of a constant value, and "mean" that of the part of the value which depends on the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import Place, chunks, forward_with_edits
from interp.patching.effect import PatchEffect
from interp.patching.knockouts import MODES, Entry, Masks, Mode, masks_of, mean_by_of, named
from interp.patching.metric import Metric, MetricLike, bind_metric
from interp.patching.rerunning import (
    Changes,
    Unpatched,
    Where,
    WhereEdit,
    copies_of,
    measure_patched,
    measure_unpatched,
    pattern_from_scores,
    reused_places,
    rows_of,
    unpatched_runs,
)
from interp.sites import Site
from interp.support.finite import require_finite
from interp.tasks import Prompts


def knock_out(
    model: AnyModel,
    prompts: PromptsLike,
    knockouts: Entry | list[Entry] | Mapping[str, Entry],
    metric: MetricLike,
    freeze_later: bool = False,
) -> PatchEffect:
    """Return the metric of each prompt under each knockout. A tuple of knockouts is one entry, applied in one run.

    The only axis is "knockout", named by the mapping's keys or by the knockouts themselves. A knockout has no source
    run, so `source` is the base and `recovered` raises; use `change`. In a joint entry edges are masked first, then
    nulled, and values are replaced last.

    `freeze_later=True`: every layer uses the scores of the intact run, without the entry's own edges. Later heads
    then cannot compensate (probes/README.md, Battery).

    Raises `ValueError` for a role, step, position, layer or head that does not exist, for a knockout without an
    edge, and for a row that "renormalise" leaves without a key.

    >>> effect = knock_out(run, batch, [Knockout(Role.INPUT_LABEL, Role.OUTPUT, mode="null")], logit_diff(batch))
    """
    (effect,) = knock_out_for(model, prompts, knockouts, [metric], freeze_later)
    return effect


@exclusive
@torch.no_grad()
def knock_out_for(
    model: AnyModel,
    prompts: PromptsLike,
    knockouts: Entry | list[Entry] | Mapping[str, Entry],
    metrics: Sequence[MetricLike],
    freeze_later: bool = False,
) -> list[PatchEffect]:
    """Return the effects of `knock_out` for several metrics of the same runs, in their order."""
    anatomy = anatomy_of(raw_of(model))
    prompts = prompts_of(model, prompts)
    bound = [bind_metric(metric, model, prompts) for metric in metrics]
    entries = named(knockouts)
    if not bound:
        raise ValueError("give at least one metric")
    plans = [_Plan(anatomy, masks_of(anatomy, prompts, entry), mean_by_of(entry)) for entry in entries.values()]
    places = _places(anatomy, plans, freeze_later)
    widest = max(bound, key=lambda m: len(m.positions))
    means = _value_means(anatomy, prompts, widest, {plan.mean_by for plan in plans})
    base: list[list[Tensor]] = [[] for _ in bound]
    values: list[list[Tensor]] = [[] for _ in bound]
    raw_difference = 0.0
    for run in unpatched_runs(anatomy, prompts, bound, places, 4 + copies_of(places)):
        raw_difference = run.raw_difference
        for parts, intact in zip(base, measure_unpatched(anatomy, run, bound), strict=True):
            parts.append(intact)
        cells = [measure_patched(anatomy, run, plan.changes(run, means, freeze_later), bound) for plan in plans]
        for parts, cell in zip(values, zip(*cells, strict=True), strict=True):
            parts.append(torch.stack(cell))
    details = {"freeze_later": freeze_later, "raw_difference": raw_difference}
    return [
        _effect(metric, tuple(entries), torch.cat(before), torch.cat(after, dim=-1), details)
        for metric, before, after in zip(bound, base, values, strict=True)
    ]


def _effect(metric: Metric, names: tuple[str, ...], base: Tensor, values: Tensor, details: dict) -> PatchEffect:
    return PatchEffect(
        site="attention edges",
        metric=metric.name,
        direction="knockout",
        axes=("knockout",),
        labels={"knockout": names},
        values=values,
        base=base,
        source=base,
        details=details,
    )


def _value_means(anatomy: Anatomy, prompts: Prompts, metric: Metric, by: set[str | None]) -> dict[str, dict]:
    """Return the intact run's values by layer, `[pos kv_head d_head]`, averaged over prompts and like positions."""
    groupings = [name for name in by if name is not None]
    if not groupings:
        return {}
    last = len(anatomy.blocks) - 1
    places: list[Place] = [("v", layer) for layer in range(last)]
    total: dict[int, Tensor] = {}
    for rows in chunks(anatomy, prompts, metric, copies=4):
        resid = anatomy.embed(prompts.tokens[rows].to(anatomy.device))
        resid, kept = forward_with_edits(anatomy, resid, stop=last, keep=places)
        kept["v", last] = anatomy.blocks[last].project(resid)[2]
        for (_, layer), v in kept.items():
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
    """Return which positions are averaged together, `[pos pos]`; only each with itself where there are no roles."""
    alike = torch.eye(prompts.n_pos, dtype=torch.bool)
    if by == "pos" or prompts.role is None:
        return alike
    role = prompts.role.cpu()
    alike = role.unsqueeze(1) == role
    if by == "step" and prompts.step is not None:
        step = prompts.step.cpu()
        alike = alike & (step.unsqueeze(1) == step)
    return alike


class _Plan:
    """One checked entry: the edges that it removes, and where its run begins to differ."""

    def __init__(self, anatomy: Anatomy, masks: Masks, mean_by: str | None) -> None:
        self.anatomy, self.masks, self.mean_by = anatomy, masks, mean_by
        self.start = min(layer for by_layer in masks.values() for layer in by_layer)
        dest = [mask.any(dim=-1).any(dim=0) for by_layer in masks.values() for mask in by_layer.values()]
        self.first = min(int(x.nonzero()[0]) for x in dest) if anatomy.causal else 0

    @property
    def sites(self) -> set[Site]:
        """The sites that are edited in the first layer."""
        by_mode: dict[Mode, Site] = {"renormalise": "attn_scores", "null": "pattern", "mean": "z"}
        return {site for mode, site in by_mode.items() if self.start in self.masks.get(mode, {})}

    def changes(self, run: Unpatched, means: Mapping[str, Mapping[int, Tensor]], freeze_later: bool) -> Changes:
        """Return the changes of the entry; with `freeze_later` all layers attend as in the unpatched run."""
        edits: dict[Place, WhereEdit] = {}
        patterns: dict[int, Callable[[Where], Tensor]] = {}
        for layer in range(self.start, len(self.anatomy.blocks)):
            removed, nulled, averaged = (self.masks.get(mode, {}).get(layer) for mode in MODES)
            if freeze_later:
                patterns[layer] = partial(_frozen_pattern, self.anatomy, run.kept, layer, removed)
            elif removed is not None:
                edits["attn_scores", layer] = partial(_masked, removed, -torch.inf)
            if nulled is not None and averaged is None and 2 * int(nulled.any(dim=(1, 2)).sum()) <= len(nulled):
                edits["z", layer] = partial(_replaced, self.anatomy, nulled, None)  # of few heads: the cheaper form
            elif nulled is not None:
                edits["pattern", layer] = partial(_masked, nulled, 0.0)
            if averaged is not None:
                edits["z", layer] = partial(_replaced, self.anatomy, averaged, means[self.mean_by or ""][layer])
        return Changes(self.start, self.first, edits, patterns)


def _places(anatomy: Anatomy, plans: Sequence[_Plan], freeze_later: bool) -> set[Place]:
    """Return what is kept of the unpatched run."""
    starts: dict[int, set[Site]] = {}
    for plan in plans:
        starts.setdefault(plan.start, set()).update({"z"} if freeze_later else plan.sites)
    places = reused_places(anatomy, starts, max(plan.first for plan in plans))
    if freeze_later:
        layers = range(min(starts), len(anatomy.blocks))
        places |= {("pattern", layer) for layer in layers}
        removed = {layer for plan in plans for layer in plan.masks.get("renormalise", {})}
        places |= {("attn_scores", layer) for layer in removed}
    return places


def _frozen_pattern(
    anatomy: Anatomy, kept: Mapping[Place, Tensor], layer: int, removed: Tensor | None, where: Where
) -> Tensor:
    """Return the unpatched run's pattern, without the edges that are removed."""
    if removed is None:
        return kept["pattern", layer][:, :, where]
    scores = kept["attn_scores", layer][:, :, where]
    return pattern_from_scores(anatomy, layer, _masked(removed, -torch.inf, scores, {}, where))


def _masked(mask: Tensor, value: float, x: Tensor, _: Mapping[Site, Tensor], where: Where) -> Tensor:
    return x.masked_fill(rows_of(mask, where).to(x.device), value)


def _replaced(
    anatomy: Anatomy, mask: Tensor, mean: Tensor | None, z: Tensor, computed: Mapping[Site, Tensor], where: Where
) -> Tensor:
    """Return z with the values at masked edges replaced by their mean; None for zero, which deletes numerators."""
    here = rows_of(mask, where)
    heads, dest, src = (here.any(dim=other).nonzero().flatten() for other in ((1, 2), (0, 2), (0, 1)))
    edges = (heads[:, None, None], dest[:, None], src)
    weights = computed["pattern"][:, *(x.to(z.device) for x in edges)] * here[edges].to(z.device)
    heads, dest, src = (x.to(z.device) for x in (heads, dest, src))
    v = computed["v"][:, src]
    difference = anatomy.expand_heads(-v if mean is None else mean[src] - v)[:, :, heads]
    z = z.clone()
    z[:, dest.unsqueeze(1), heads] += torch.einsum("rhds,rshe->rdhe", weights, difference)
    return z
