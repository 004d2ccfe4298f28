"""Attribution patching: the effect of every patch of a site to first order, from two forward passes and one backward.

(source activation - base activation) times the gradient of the metric in the base run (Nanda 2023). `patch` gives the
exact effects, at one run per patch; `interp.circuits.node_scores` corrects saturation and cancellation (AtP*).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args, overload

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, pair_of, require_gradients
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.cells import check_site, chosen, require_neurons
from interp.patching.editing import (
    Place,
    chunks,
    difference_from_raw,
    forward_with_edits,
    measure,
    read_for_gradient,
)
from interp.patching.effect import PatchEffect
from interp.patching.metric import Metric, MetricLike, bind_metric
from interp.patching.sweeping import Direction
from interp.places import patches_at
from interp.sites import HEAD_SITES, NEURON_SITES, Site
from interp.support.finite import require_finite
from interp.tasks import Prompts


@overload
def attribution_patch(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    site: Site,
    metric: MetricLike,
    layers: int | Sequence[int] | None = None,
    direction: Direction = "denoise",
) -> PatchEffect: ...


@overload
def attribution_patch(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    site: Sequence[Site],
    metric: MetricLike,
    layers: int | Sequence[int] | None = None,
    direction: Direction = "denoise",
) -> dict[Site, PatchEffect]: ...


@exclusive
def attribution_patch(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    site: Site | Sequence[Site],
    metric: MetricLike,
    layers: int | Sequence[int] | None = None,
    direction: Direction = "denoise",
) -> PatchEffect | dict[Site, PatchEffect]:
    """Estimate `patch` at every layer, head or neuron, and position at once.

    The axes are those of `patch`, with one entry per neuron at mlp_pre and mlp_post; `change` is the estimate and
    `values` is the base's metric plus it. The estimate is exact where the metric is linear in the site. It misses what
    saturates, such as attention with a weight of 1. Several sites share the passes, and give a dictionary of results.

    Raises `ValueError` as `patch` does, for a metric without a gradient, and under `torch.inference_mode()`;
    `RuntimeError` where the model taken apart differs from the raw model on these prompts.

    >>> attribution_patch(run, pair.clean, pair.corrupted, "z", metric).top(3)
    >>> attribution_patch(run, pair.clean, pair.corrupted, ["resid_pre", "z"], metric)["z"].top(3)
    """
    require_gradients("attribution_patch")
    if direction not in get_args(Direction):
        raise ValueError(f"direction must be 'denoise' or 'noise'; got {direction!r}")
    sites: list[Site] = [site] if isinstance(site, str) else list(site)
    if not sites:
        raise ValueError("give a site, or several")
    clean, corrupted = pair_of(model, clean, corrupted)
    metric = bind_metric(metric, model, clean)
    anatomy = anatomy_of(raw_of(model), test=False)  # `difference_from_raw` tests it on these prompts
    layer_list = chosen("layer", layers, len(anatomy.blocks))
    for one in sites:
        check_site(one, anatomy)
        if one in NEURON_SITES:
            require_neurons(one, anatomy, layer_list)
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    found: dict[Site, list[Tensor]] = {one: [] for one in sites}
    ends, difference = [], 0.0
    for rows in chunks(anatomy, base, metric, copies=2 * len(sites) * len(layer_list) + 8):
        estimates, end, final = _estimates(anatomy, base, source, rows, sites, layer_list, metric)
        if not ends:
            difference = difference_from_raw(anatomy, base.tokens[rows], final, metric)
        for one, estimate in estimates.items():
            found[one].append(require_finite(estimate, "a score of attribution patching", rows))
        ends.append(end)
    measured = torch.cat(ends, dim=-1)
    results: dict[Site, PatchEffect] = {}
    for one, parts in found.items():
        scores = torch.cat(parts, dim=-1)
        labels = _labels(one, layer_list, scores.shape[1], clean)
        results[one] = PatchEffect(
            site=one,
            metric=metric.name,
            direction=direction,
            axes=tuple(labels),
            labels=labels,
            values=scores + measured[0],
            base=measured[0],
            source=measured[1],
            details={"estimate": "first order", "raw_difference": difference},
        )
    return results[sites[0]] if isinstance(site, str) else results


def _labels(site: Site, layers: Sequence[int], n_parts: int, prompts: Prompts) -> dict[str, tuple[str | int, ...]]:
    """Return the labels of each axis but that of prompts. `n_parts`: heads or neurons, at sites that have them."""
    labels: dict[str, tuple[str | int, ...]] = {"layer": tuple(layers)}
    if (part := "head" if site in HEAD_SITES else "neuron" if site in NEURON_SITES else None) is not None:
        labels[part] = tuple(range(n_parts))
    labels["pos"] = tuple(name for name, _ in patches_at(prompts, None))
    return labels


def _estimates(
    anatomy: Anatomy,
    base: Prompts,
    source: Prompts,
    rows: Tensor,
    sites: Sequence[Site],
    layers: Sequence[int],
    metric: Metric,
) -> tuple[dict[Site, Float[Tensor, "*cells row"]], Float[Tensor, "2 row"], Tensor]:
    """Return the scores by site, the metric of both runs, and the base's final residual."""
    places: list[Place] = [(site, layer) for site in sites for layer in layers]
    with torch.no_grad():
        own, other = (anatomy.embed(p.tokens[rows].to(anatomy.device)) for p in (base, source))
        end, given = forward_with_edits(anatomy, other, keep=places)
    with torch.enable_grad():
        final, kept = forward_with_edits(anatomy, own.detach().requires_grad_(), keep=places)
        total = read_for_gradient(anatomy, final, metric, rows)
        gradients = torch.autograd.grad(total, [kept[p] for p in places], allow_unused=True)
    scores: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for place, gradient in zip(places, gradients, strict=True):
        change = given[place] - kept[place].detach()
        product = (torch.zeros_like(change) if gradient is None else change * gradient).double()
        scores[place[0]].append(_by_cell(place[0], product))
    measured = torch.stack([measure(anatomy, x.detach(), metric, rows).double() for x in (final, end)])
    return {site: torch.stack(found).cpu() for site, found in scores.items()}, measured, final.detach()


def _by_cell(site: Site, product: Tensor) -> Float[Tensor, "*cells row"]:
    """Return activations times gradients summed over the axes that are patched together."""
    match site:
        case "pattern":  # by destination row
            return product.sum(dim=-1).permute(1, 2, 0)
        case site if site in HEAD_SITES:
            return product.sum(dim=-1).permute(2, 1, 0)
        case site if site in NEURON_SITES:
            return product.permute(2, 1, 0)
        case _:
            return product.sum(dim=-1).T
