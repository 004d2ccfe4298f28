"""Patch, ablate and attribute the features of a dictionary, with the error term kept.

An intervention adds (new feature - own feature) times the feature's direction to the activation that the dictionary
writes. What the dictionary does not reconstruct stays as it is, so that no intervention on no feature changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, pair_of, prompts_of, require_gradients
from interp.dictionaries import FeatureDictionary
from interp.feature_site import FeatureRun, Features, FeatureSite
from interp.models.anatomy import anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import (
    Edit,
    Place,
    chunks,
    difference_from_raw,
    forward_with_edits,
    measure,
    read_for_gradient,
)
from interp.patching.effect import PatchEffect
from interp.patching.metric import Metric, MetricLike, bind_metric
from interp.patching.sweeping import Direction, Positions
from interp.places import At, patches_at, positions_at
from interp.support.finite import require_finite
from interp.tasks import Prompts

# Most rows of one forward pass, over patches and prompts.
ROWS = 64


@exclusive
@torch.no_grad()
def encode_features(
    model: AnyModel, prompts: PromptsLike, dictionary: FeatureDictionary
) -> Float[Tensor, "batch pos feature"]:
    """Return the features of a dictionary on some prompts, on the CPU. Raises `ValueError` where it does not fit."""
    anatomy = anatomy_of(raw_of(model))
    own = prompts_of(model, prompts)
    site = FeatureSite(anatomy, dictionary)
    return torch.cat([site.read(tokens)[0].encoded.float().cpu() for tokens in own.tokens.split(ROWS)])


@exclusive
@torch.no_grad()
def patch_features(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    dictionary: FeatureDictionary,
    metric: MetricLike,
    features: Features = None,
    positions: Positions | None = None,
    direction: Direction = "denoise",
) -> PatchEffect:
    """Patch features from one run into another, at each position; the error term is the patched run's own.

    `features` are numbers, each patched alone; a tuple of them is patched together; None is all of them together.
    `positions` and `direction` are as in `patch`. The axes are "feature" and "pos". Raises `ValueError` for a feature
    or site that does not exist, and for prompts of different layouts.

    >>> patch_features(run, pair.clean, pair.corrupted, load_dictionary("sae"), metric, features=[3, 17])
    """
    clean, corrupted = pair_of(model, clean, corrupted)
    metric = bind_metric(metric, model, clean)
    site = FeatureSite(anatomy_of(raw_of(model)), dictionary)
    groups, places = site.groups(features), patches_at(clean, positions)
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    cells = [(group, at) for group in groups.values() for _, at in places]
    labels: dict[str, tuple[str | int, ...]] = {"feature": tuple(groups), "pos": tuple(name for name, _ in places)}

    def changes(rows: Tensor, own: FeatureRun) -> Iterator[tuple[Tensor, Sequence[int], Tensor]]:
        change = site.read(source.tokens[rows])[0].encoded - own.encoded
        for group, at in cells:
            yield change, at, group

    return _result(site, base, source, metric, labels, changes, direction)


@exclusive
@torch.no_grad()
def ablate_features(
    model: AnyModel,
    prompts: PromptsLike,
    dictionary: FeatureDictionary,
    metric: MetricLike,
    features: Features = None,
    kind: Literal["zero", "mean"] = "zero",
    source: PromptsLike | None = None,
    positions: At | None = None,
) -> PatchEffect:
    """Set features to zero, or to their mean over `source` and its positions, at all of `positions` together.

    `features` are as in `patch_features`; `source` is by default the prompts themselves. The only axis is "feature".
    There is no source run, so `recovered` raises; use `change`. Raises as `patch_features`.
    """
    if kind not in ("zero", "mean"):
        raise ValueError(f"features are ablated by 'zero' or 'mean'; got {kind!r}")
    own = prompts_of(model, prompts)
    metric = bind_metric(metric, model, own)
    site = FeatureSite(anatomy_of(raw_of(model)), dictionary)
    groups, at = site.groups(features), positions_at(own, positions).tolist()
    other = own if source is None else prompts_of(model, source, "source")
    mean = torch.zeros(())
    if kind == "mean":
        found = [site.read(tokens)[0].encoded.double().sum(dim=(0, 1)) for tokens in other.tokens.split(ROWS)]
        mean = torch.stack(found).sum(dim=0) / other.tokens.numel()

    def changes(_: Tensor, run: FeatureRun) -> Iterator[tuple[Tensor, Sequence[int], Tensor]]:
        change = mean.to(run.encoded) - run.encoded
        for group in groups.values():
            yield change, at, group

    return _result(site, own, None, metric, {"feature": tuple(groups)}, changes, f"{kind} ablation")


@exclusive
def attribute_features(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    dictionary: FeatureDictionary,
    metric: MetricLike,
    direction: Direction = "denoise",
) -> PatchEffect:
    """Estimate `patch_features` for every feature and position to first order, from one backward pass per prompt.

    The estimate is the feature's difference between the runs, times its direction's product with the gradient of the
    metric in the base run (Marks et al. 2403.19647, section 3). `change` is the estimate. Raises as `patch_features`,
    and for a metric without a gradient.
    """
    require_gradients("attribute_features")
    clean, corrupted = pair_of(model, clean, corrupted)
    metric = bind_metric(metric, model, clean)
    site = FeatureSite(anatomy_of(raw_of(model)), dictionary)
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    found, ends = [], []
    for rows in chunks(site.anatomy, base, metric, copies=10):
        with torch.no_grad():
            own, _ = site.read(base.tokens[rows])
            other, end = site.read(source.tokens[rows])
        with torch.enable_grad():
            resid = site.anatomy.embed(base.tokens[rows].to(site.anatomy.device)).detach().requires_grad_()
            final, kept = forward_with_edits(site.anatomy, resid, keep=[site.target])
            total = read_for_gradient(site.anatomy, final, metric, rows)
            (gradient,) = torch.autograd.grad(total, [kept[site.target]])
        through = site.flat(gradient) @ site.dictionary.W_dec.T
        estimate = ((other.encoded - own.encoded) * through).double()
        found.append(require_finite(estimate, "the score of a feature", rows, axis=0).permute(2, 1, 0).cpu())
        ends.append(torch.stack([measure(site.anatomy, x.detach(), metric, rows).double() for x in (final, end)]))
    scores, measured = torch.cat(found, dim=-1), torch.cat(ends, dim=-1)
    return PatchEffect(
        site=str(dictionary),
        metric=metric.name,
        direction=direction,
        axes=("feature", "pos"),
        labels={"feature": tuple(range(dictionary.n_features)), "pos": tuple(n for n, _ in patches_at(clean, None))},
        values=scores + measured[0],
        base=measured[0],
        source=measured[1],
        details={"estimate": "first order"},
    )


def _result(  # type: ignore[no-untyped-def]
    site: FeatureSite, base: Prompts, source: Prompts | None, metric: Metric, labels: Mapping, changes, direction: str
) -> PatchEffect:
    """Run every entry that `changes` yields: a change of features `[row pos feature]`, positions, which features."""
    values, before, after, difference = [], [], [], 0.0
    for rows in chunks(site.anatomy, base, metric, copies=12):
        own, final = site.read(base.tokens[rows])
        if not before:
            difference = difference_from_raw(site.anatomy, base.tokens[rows], final, metric)
        before.append(measure(site.anatomy, final, metric, rows))
        if source is not None:
            after.append(measure(site.anatomy, site.read(source.tokens[rows])[1], metric, rows))
        cells: list[Tensor] = []
        waiting: list[Tensor] = []
        for change, at, group in changes(rows, own):
            where = torch.zeros(base.n_pos, 1, dtype=change.dtype, device=change.device)
            where[list(at)] = 1
            group = group.to(change.device)
            waiting.append(where * (change[..., group] @ site.dictionary.W_dec[group]))
            if (len(waiting) + 1) * len(rows) > ROWS:
                cells.append(_run(site, own, metric, rows, waiting))
                waiting = []
        if waiting:
            cells.append(_run(site, own, metric, rows, waiting))
        values.append(torch.cat(cells))
    measured = torch.cat(before)
    shape = [len(names) for names in labels.values()]
    return PatchEffect(
        site=str(site.dictionary),
        metric=metric.name,
        direction=direction,
        axes=tuple(labels),
        labels=dict(labels),
        values=torch.cat(values, dim=-1).unflatten(0, shape),
        base=measured,
        source=torch.cat(after) if after else measured,
        details={"raw_difference": difference},
    )


def _run(
    site: FeatureSite, own: FeatureRun, metric: Metric, rows: Tensor, deltas: Sequence[Tensor]
) -> Float[Tensor, "cell row"]:
    """Return the metric with each delta `[row pos width]` added where the dictionary writes."""
    added = torch.cat(list(deltas))

    def edit(value: Tensor, _: Mapping) -> Tensor:
        return value + added.reshape(value.shape)

    edits: dict[Place, Edit] = {site.target: edit}
    resid = own.start.repeat(len(deltas), 1, 1)
    final, _ = forward_with_edits(site.anatomy, resid, site.target[1], edits=edits)
    return measure(site.anatomy, final, metric, rows.repeat(len(deltas))).unflatten(0, (len(deltas), len(rows)))
