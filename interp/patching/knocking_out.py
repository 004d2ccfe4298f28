"""Attention knockout: remove attention edges and measure the metric.

An edge runs from a source position (key) to a destination (query) in one head. The three modes separate what a
removed edge carried (probes/README.md, Battery): "renormalise" minus "null" is the effect of the softmax denominator,
"null" minus "mean" that of a constant value, and "mean" that of the part of the value which depends on the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import Edit, Place, chunks, difference_from_raw, forward_with_edits, measure
from interp.patching.effect import PatchEffect
from interp.patching.knockouts import Entry, Masks, masks_of, mean_by_of, named
from interp.patching.metric import Metric, MetricLike, bind_metric
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
    masks = {name: masks_of(anatomy, prompts, entry) for name, entry in entries.items()}
    n_layers = len(anatomy.blocks)
    sites: tuple[Site, ...] = ("resid_pre", "attn_scores") if freeze_later else ("resid_pre",)
    keep: list[Place] = [(site, layer) for site in sites for layer in range(n_layers)]
    widest = max(bound, key=lambda m: len(m.positions))
    means = _value_means(anatomy, prompts, widest, {mean_by_of(entry) for entry in entries.values()})
    base: list[list[Tensor]] = [[] for _ in bound]
    values: list[list[Tensor]] = [[] for _ in bound]
    raw_difference = 0.0
    for rows in chunks(anatomy, prompts, widest, copies=4 + (n_layers if freeze_later else 0)):
        tokens = prompts.tokens[rows].to(anatomy.device)
        final, intact = forward_with_edits(anatomy, anatomy.embed(tokens), keep=keep)
        if not base[0]:
            raw_difference = difference_from_raw(anatomy, tokens, final, widest)
        for parts, metric in zip(base, bound, strict=True):
            parts.append(measure(anatomy, final, metric, rows))
        cells: list[list[Tensor]] = [[] for _ in bound]
        for name, entry in entries.items():
            start = min(layer for by_layer in masks[name].values() for layer in by_layer)
            edits = _edits(anatomy, masks[name], means.get(mean_by_of(entry) or "", {}), intact, start)
            edited, _ = forward_with_edits(anatomy, intact["resid_pre", start], start, edits=edits)
            for cell, metric in zip(cells, bound, strict=True):
                cell.append(measure(anatomy, edited, metric, rows))
        for parts, cell in zip(values, cells, strict=True):
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
    places: list[Place] = [("v", layer) for layer in range(len(anatomy.blocks))]
    total: dict[int, Tensor] = {}
    for rows in chunks(anatomy, prompts, metric, copies=4):
        _, kept = forward_with_edits(anatomy, anatomy.embed(prompts.tokens[rows].to(anatomy.device)), keep=places)
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


def _edits(
    anatomy: Anatomy, masks: Masks, means: Mapping[int, Tensor], intact: Mapping[Place, Tensor], start: int
) -> dict[Place, Edit]:
    """Return the edits of an entry. Scores that `intact` holds replace those of layers from `start` on."""
    edits: dict[Place, Edit] = {}
    for layer in range(start, len(anatomy.blocks)):
        removed, saved = masks.get("renormalise", {}).get(layer), intact.get(("attn_scores", layer))
        if removed is not None or saved is not None:
            edits["attn_scores", layer] = lambda x, _, removed=removed, saved=saved: _without(
                x if saved is None else saved, removed
            )
        if (nulled := masks.get("null", {}).get(layer)) is not None:
            edits["pattern", layer] = lambda x, _, nulled=nulled: x.masked_fill(nulled.to(x.device), 0.0)
        if (averaged := masks.get("mean", {}).get(layer)) is not None:

            def replaced(z: Tensor, computed: Mapping, mask: Tensor = averaged, mean: Tensor = means[layer]) -> Tensor:
                difference = anatomy.expand_heads(mean - computed["v"])
                return z + torch.einsum("rhds,rshe->rdhe", computed["pattern"] * mask.to(z.device), difference)

            edits["z", layer] = replaced
    return edits


def _without(scores: Tensor, removed: Tensor | None) -> Tensor:
    return scores.clone() if removed is None else scores.masked_fill(removed.to(scores.device), -torch.inf)
