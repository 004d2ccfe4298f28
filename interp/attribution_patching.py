"""Attribution patching: the effect of every patch of a site to first order, from two forward passes and one backward.

(source activation - base activation) times the gradient of the metric in the base run (Nanda 2023). `patch` gives the
exact effects, at one run per patch; `interp.circuits.node_scores` corrects saturation and cancellation (AtP*).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

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


@exclusive
def attribution_patch(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    site: Site,
    metric: MetricLike,
    layers: int | Sequence[int] | None = None,
    direction: Direction = "denoise",
) -> PatchEffect:
    """Estimate `patch` at every layer, head or neuron, and position at once.

    The axes are those of `patch`, with one entry per neuron at mlp_pre and mlp_post; `change` is the estimate and
    `values` is the base's metric plus it. The estimate is exact where the metric is linear in the site. It misses what
    saturates, such as attention with a weight of 1.

    Raises `ValueError` as `patch` does, for a metric without a gradient, and under `torch.inference_mode()`.

    >>> attribution_patch(run, pair.clean, pair.corrupted, "z", metric).top(3)
    """
    require_gradients("attribution_patch")
    if direction not in get_args(Direction):
        raise ValueError(f"direction must be 'denoise' or 'noise'; got {direction!r}")
    clean, corrupted = pair_of(model, clean, corrupted)
    metric = bind_metric(metric, model, clean)
    anatomy = anatomy_of(raw_of(model))
    check_site(site, anatomy)
    layer_list = chosen("layer", layers, len(anatomy.blocks))
    if site in NEURON_SITES:
        require_neurons(site, anatomy, layer_list)
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    found, ends, difference = [], [], 0.0
    for rows in chunks(anatomy, base, metric, copies=2 * len(layer_list) + 8):
        estimate, end, final = _estimate(anatomy, base, source, rows, site, layer_list, metric)
        if not ends:
            difference = difference_from_raw(anatomy, base.tokens[rows], final, metric)
        found.append(require_finite(estimate, "a score of attribution patching", rows))
        ends.append(end)
    scores, measured = torch.cat(found, dim=-1), torch.cat(ends, dim=-1)
    part = "head" if site in HEAD_SITES else "neuron" if site in NEURON_SITES else None
    labels: dict[str, tuple[str | int, ...]] = {"layer": tuple(layer_list)}
    if part is not None:
        labels[part] = tuple(range(scores.shape[1]))
    labels["pos"] = tuple(name for name, _ in patches_at(clean, None))
    return PatchEffect(
        site=site,
        metric=metric.name,
        direction=direction,
        axes=tuple(labels),
        labels=labels,
        values=scores + measured[0],
        base=measured[0],
        source=measured[1],
        details={"estimate": "first order", "raw_difference": difference},
    )


def _estimate(
    anatomy: Anatomy,
    base: Prompts,
    source: Prompts,
    rows: Tensor,
    site: Site,
    layers: Sequence[int],
    metric: Metric,
) -> tuple[Float[Tensor, "*cells row"], Float[Tensor, "2 row"], Tensor]:
    """Return the scores, the metric of both runs, and the base's final residual."""
    places: list[Place] = [(site, layer) for layer in layers]
    with torch.no_grad():
        own, other = (anatomy.embed(p.tokens[rows].to(anatomy.device)) for p in (base, source))
        end, given = forward_with_edits(anatomy, other, keep=places)
    with torch.enable_grad():
        final, kept = forward_with_edits(anatomy, own.detach().requires_grad_(), keep=places)
        total = read_for_gradient(anatomy, final, metric, rows)
        gradients = torch.autograd.grad(total, [kept[p] for p in places], allow_unused=True)
    scores = []
    for place, gradient in zip(places, gradients, strict=True):
        change = given[place] - kept[place].detach()
        product = (torch.zeros_like(change) if gradient is None else change * gradient).double()
        match site:
            case "pattern":  # by destination row
                scores.append(product.sum(dim=-1).permute(1, 2, 0))
            case site if site in HEAD_SITES:
                scores.append(product.sum(dim=-1).permute(2, 1, 0))
            case site if site in NEURON_SITES:
                scores.append(product.permute(2, 1, 0))
            case _:
                scores.append(product.sum(dim=-1).T)
    measured = torch.stack([measure(anatomy, x.detach(), metric, rows).double() for x in (final, end)])
    return torch.stack(scores).cpu(), measured, final.detach()
