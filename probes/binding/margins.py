"""What edits do to the answer: its lead over each other value of the list, and what the target's value gains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.resolve import AnyModel
from interp.patching import PatchEffect, logit_diff, margin, measure_edited
from interp.patching.metrics import MetricLike
from interp.tasks import Prompts
from probes.binding.sinks import ALL_TOKENS
from probes.binding.trials import Trial

# Names of what is measured per prompt: whether the answer leads the target's value, and, after an arm's name, whether
# the target's value leads under the arm instead.
LEADS, FOLLOWS = "leads", ": follows"
# After an arm's name: by how much the target's value rises over all values but the answer (`Share`).
GAINED = ": gained"
# What trading the answers takes from the answer's lead over the target's value, the best other value, and all tokens.
FULL, FULL_OVER_LIST, FULL_OVER_ALL = "full", "full, over the list", f"full{ALL_TOKENS}"
# The same for the value of the item after the query.
FULL_NEXT = "full, next item"


def margins_under(
    model: AnyModel, trial: Trial, edited: Mapping[str, Prompts]
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor], PatchEffect]:
    """Return what each edit takes from the margin and gains, all leads before and after, and that over all tokens."""
    over, over_all = leads_over(trial)
    *effects, whole = measure_edited(model, trial.lookups.prompts, edited, [*over, over_all])
    before, after = (torch.stack([getattr(effect, what) for effect in effects]) for what in ("base", "values"))
    target = others_of(trial).index(trial.target)
    lead, leads = before[target], after[target]  # [batch], [edit batch]
    measured = dict(zip(edited, lead - leads, strict=True))
    gained = gains(before, after, target)
    measured |= {f"{arm}{GAINED}": gained[k] for k, arm in enumerate(edited)}
    measured[LEADS] = lead > 0
    measured |= {f"{arm}{FOLLOWS}": (lead > 0) & (leads[k] < 0) for k, arm in enumerate(edited)}
    return measured, (before, after), whole


def moved_to_next(
    model: AnyModel, trial: Trial, edited: Mapping[str, Prompts]
) -> Mapping[str, Float[Tensor, " batch"]]:
    """Return what each edit takes from the answer's lead over the value of the item after it."""
    answer = trial.lookups.answer
    lead = logit_diff(answer(trial.query), answer(trial.query + 1))
    (effect,) = measure_edited(model, trial.lookups.prompts, edited, [lead])
    return dict(zip(edited, effect.base - effect.values, strict=True))


def gains(
    before: Float[Tensor, "item batch"], after: Float[Tensor, "item edit batch"], target: int
) -> Float[Tensor, "edit batch"]:
    """Return by how much the target's value rises over the best of all others, or over their mean if that is less.

    Over the best, because an edit may lead to another item; over the mean, because values become alike where nothing is
    found any more. `before`, `after`: the answer's lead over each other value; `target`: the target's index among them.
    """
    rest = [k for k in range(len(before)) if k != target]
    over, over_before = after[rest] - after[target], (before[rest] - before[target])[:, None]
    return torch.minimum(over.amin(dim=0) - over_before.amin(dim=0), over.mean(dim=0) - over_before.mean(dim=0))


def others_of(trial: Trial) -> list[int]:
    return [item for item in trial.lookups.values if item != trial.query]


def leads_over(trial: Trial) -> tuple[list[MetricLike], MetricLike]:
    """Return the lead of the answer over each other value of the list, and over the best other token."""
    answer = trial.lookups.answer
    own = answer(trial.query)
    return [logit_diff(own, answer(item)) for item in others_of(trial)], margin(own)
