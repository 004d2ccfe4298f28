"""Ablate heads, MLPs and neurons by name: their outputs set to zero, to a mean, or to those on other prompts.

Names are "L1H3" (head 3 of layer 1), "L1 MLP" and "L1N17" (neuron 17 of that MLP). `interp.circuits.Ablation` does the
same to the edges outside a circuit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of, require_same_layout
from interp.circuits.ablation import partners
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import Edit, Place, chunks, difference_from_raw, forward_with_edits, measure
from interp.patching.effect import PatchEffect
from interp.patching.metric import MetricLike, bind_metric
from interp.places import At, positions_at
from interp.tasks import Prompts

Kind = Literal["zero", "mean", "resample", "corrupted"]
# One component, several that are ablated together ("L0H1+L1 MLP", or a list of names), or a name for these.
Components = str | Sequence[str] | Mapping[str, str | Sequence[str]]
_NAME = re.compile(r"L(\d{1,4})(?:H(\d{1,6})| ?(MLP)|N(\d{1,7}))")


@exclusive
@torch.no_grad()
def ablate(
    model: AnyModel,
    prompts: PromptsLike,
    components: Components,
    metric: MetricLike,
    kind: Kind = "mean",
    source: PromptsLike | None = None,
    positions: At | None = None,
    mean_over: Literal["pos", "all"] = "pos",
    seed: int = 0,
) -> PatchEffect:
    """Return the metric of each prompt with each component ablated; later components are recomputed.

    Args:
        components: a name; a list of names, each ablated alone; a mapping from a name of your own to the names that are
            ablated together. "L0H1+L1 MLP" is two components together.
        kind: what the output is replaced by. "zero"; "mean", over the prompts of `source`; "resample", that on another
            prompt of `source`, drawn with `seed`; "corrupted", that on the prompt of `source` with the same index.
        source: prompts of the same length; by default the prompts themselves.
        positions: where the output is replaced: indices, spans, roles; None for all.
        mean_over: "pos" takes the mean at each position, "all" one mean over all positions.

    The only axis is "component". There is no single source run, so `source` is the base and `recovered` raises; use
    `change`. Raises `ValueError` for a name that is no component of this model, prompts of another length, and a kind
    without the prompts that it needs.

    >>> ablate(run, texts, ["L9H9", "L10 MLP", "L0N17"], metric, kind="zero").change.mean(dim=-1)
    """
    if mean_over not in ("pos", "all"):
        raise ValueError(f"mean_over must be 'pos' or 'all'; got {mean_over!r}")
    anatomy = anatomy_of(raw_of(model), test=False)  # `difference_from_raw` tests it on these prompts
    own = prompts_of(model, prompts)
    metric = bind_metric(metric, model, own)
    other = _source(model, own, kind, source)
    groups = {name: _masks(anatomy, parts) for name, parts in _named(components).items()}
    where = torch.zeros(own.n_pos, dtype=torch.bool).index_fill(0, positions_at(own, positions), True)
    needed = sorted({place for masks in groups.values() for place in masks})
    constant = _means(anatomy, other, needed, mean_over) if kind == "mean" else None
    drawn = partners(own.tokens, other.tokens, seed) if kind == "resample" else torch.arange(len(own))
    values, baselines, difference = [], [], 0.0
    for rows in chunks(anatomy, own, metric, copies=4 + 4 * len(needed)):
        resid = anatomy.embed(own.tokens[rows].to(anatomy.device))
        starts: list[Place] = [("resid_pre", min(layer for _, layer in masks)) for masks in groups.values()]
        final, kept = forward_with_edits(anatomy, resid, keep=sorted(set(starts)))
        if not baselines:
            difference = difference_from_raw(anatomy, own.tokens[rows], final, metric)
        baselines.append(measure(anatomy, final, metric, rows))
        new: Mapping[Place, Tensor] = constant or {}
        if kind in ("resample", "corrupted"):
            _, new = forward_with_edits(
                anatomy, anatomy.embed(other.tokens[drawn[rows]].to(anatomy.device)), keep=needed
            )
        cells = []
        for start, masks in zip(starts, groups.values(), strict=True):
            edits = {place: _edit(mask, where, new.get(place)) for place, mask in masks.items()}
            final, _ = forward_with_edits(anatomy, kept[start], start[1], edits=edits)
            cells.append(measure(anatomy, final, metric, rows))
        values.append(torch.stack(cells))
    before = torch.cat(baselines)
    return PatchEffect(
        site="components",
        metric=metric.name,
        direction=f"{kind} ablation",
        axes=("component",),
        labels={"component": tuple(groups)},
        values=torch.cat(values, dim=-1),
        base=before,
        source=before,
        details={"raw_difference": difference},
    )


def _source(model: AnyModel, own: Prompts, kind: str, source: PromptsLike | None) -> Prompts:
    """Return the prompts that replaced outputs are of. Raises `ValueError` where they do not fit the kind."""
    if kind not in get_args(Kind):
        raise ValueError(f"an ablation is one of {', '.join(get_args(Kind))}; got {kind!r}")
    if kind == "zero":
        if source is not None:
            raise ValueError("zero ablation takes no source prompts")
        return own
    if kind == "corrupted" and source is None:
        raise ValueError("the ablation 'corrupted' needs source=, one prompt for each of the prompts")
    other = own if source is None else prompts_of(model, source, "source")
    if other.n_pos != own.n_pos:
        raise ValueError(f"source must have {own.n_pos} tokens, as the prompts have; got {other.n_pos}")
    if kind == "corrupted":
        require_same_layout(own, other, ("prompts", "source"))
    elif len(other) < 2:
        raise ValueError(f"{kind} ablation needs two or more source prompts; give source=")
    return other


def _named(components: Components) -> dict[str, list[str]]:
    """Return the names that are ablated together, by the entry's name."""
    if isinstance(components, Mapping):
        named = {name: [parts] if isinstance(parts, str) else list(parts) for name, parts in components.items()}
    else:
        listed = [components] if isinstance(components, str) else list(components)
        named = {name: [name] for name in listed}
        if len(named) < len(listed):
            raise ValueError("the same component is given twice")
    if not named or not all(named.values()):
        raise ValueError("no component was given; names are such as L1H3, L1 MLP and L1N17")
    return {name: [one for part in parts for one in part.split("+")] for name, parts in named.items()}


def _masks(anatomy: Anatomy, names: Collection[str]) -> dict[Place, Bool[Tensor, "..."]]:
    """Return which heads or neurons are replaced at each site and layer; the mask of an MLP has one entry."""
    masks: dict[Place, Tensor] = {}
    for name in names:
        found = _NAME.fullmatch(name.strip())
        if found is None:
            raise ValueError(f"{name!r} is no component; names are such as L1H3 (a head), L1 MLP and L1N17 (a neuron)")
        layer, head, mlp, neuron = found.groups()
        site = "z" if head else "mlp_out" if mlp else "mlp_post"
        index = int(head or neuron or 0)
        if int(layer) >= len(anatomy.blocks):
            raise ValueError(f"{name}: no layer {layer}; layers are 0 to {len(anatomy.blocks) - 1}")
        if mlp and not anatomy.blocks[int(layer)].has_mlp:
            raise ValueError(f"{name}: this model has no MLPs")
        sizes = {"z": anatomy.n_heads, "mlp_out": 1}
        size = sizes[site] if site in sizes else anatomy.n_neurons(int(layer))
        if not size:
            raise ValueError(f"{name}: the MLP of layer {layer} is not taken apart into neurons")
        if index >= size:
            what = "head" if head else "neuron"
            raise ValueError(f"{name}: no {what} {index}; {what}s are 0 to {size - 1}")
        masks.setdefault((site, int(layer)), torch.zeros(size, dtype=torch.bool))[index] = True
    return masks


def _edit(mask: Bool[Tensor, " part"], where: Bool[Tensor, " pos"], new: Tensor | None) -> Edit:
    """Return the edit that replaces some parts at some positions; `new` is None for zero."""

    def edit(value: Tensor, _: Mapping) -> Tensor:  # [row pos head d_head] or [row pos width]
        parts = mask.to(value.device)
        parts = parts.unsqueeze(-1) if value.ndim == 4 else parts
        at = where.to(value.device).view(1, -1, *[1] * (value.ndim - 2)) & parts
        return torch.where(at, torch.zeros_like(value) if new is None else new, value)

    return edit


def _means(
    anatomy: Anatomy, prompts: Prompts, places: Collection[Place], mean_over: Literal["pos", "all"]
) -> dict[Place, Tensor]:
    """Return the mean over prompts at each place, `[1 pos ...]` or over positions too `[1 1 ...]`."""
    totals: dict[Place, Tensor] = {}
    for tokens in prompts.tokens.split(32):
        _, kept = forward_with_edits(anatomy, anatomy.embed(tokens.to(anatomy.device)), keep=places)
        for place, value in kept.items():
            total = value.double().sum(dim=0, keepdim=True)
            totals[place] = total + totals[place] if place in totals else total
    means = {place: total / len(prompts) for place, total in totals.items()}
    if mean_over == "all":
        means = {place: mean.mean(dim=1, keepdim=True) for place, mean in means.items()}
    return {place: mean.to(anatomy.dtype) for place, mean in means.items()}
