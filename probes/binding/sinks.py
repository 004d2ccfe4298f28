"""Sinks of lists: tokens that take attention, or add a constant, and carry nothing about the item.

Attention to the candidate is removed in all heads in two ways. The other keys share it ("renormalise"), or the value
becomes its mean over the prompts and the attention stays ("mean"). What the first loses and the second does not is the
softmax denominator, or a constant: a sink (arXiv 2410.10781). What both lose is information that the token carries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.resolve import AnyModel
from interp.patching import Knockout, knock_out_for
from interp.patching.knockouts import Mode
from interp.patching.metrics import MetricLike
from interp.tasks import Prompts
from probes.binding.trials import Trial

SINKS = ("first token", "line breaks", "other tokens")
# All of them at once: where one sink replaces another, removing each alone loses nothing.
TOGETHER = "all together"


def sink_effects(
    model: AnyModel, trial: Trial, metrics: Sequence[MetricLike], left_out: dict[str, str]
) -> dict[str, Float[Tensor, " batch"]]:
    """Return what the smallest metric loses by each candidate and by its control ("NAME control"), per prompt.

    "NAME carried" is what the mean value loses: where that is not small, the candidate carries something, and the rest
    is no sign of a sink, because the other keys then bring in something else.

    The control is the same for as many tokens of items that the answer does not depend on, or for all of them where
    there are fewer. Candidates that the prompts do not have are named in `left_out`, with the reason.
    """
    base, idle = trial.lookups.prompts, idle_positions(trial)
    places = {sink: positions for sink in SINKS if (positions := sink_positions(trial, sink))}
    if len(places) > 1:
        places[TOGETHER] = sorted(p for positions in places.values() for p in positions)
    left_out |= {sink: "the prompts have none" for sink in SINKS if sink not in places}
    if not idle:
        left_out |= dict.fromkeys(places, "there is no item that the answer does not depend on, for the control")
        return {}
    modes: tuple[Mode, ...] = ("renormalise", "mean")
    removals = {
        (name, mode): _removed(base, positions, mode)
        for sink, at in places.items()
        for name, positions in ((sink, at), (f"{sink} control", _spread(idle, len(at))))
        for mode in modes
    }
    entries = {f"{name}: {mode}": entry for (name, mode), entry in removals.items()}
    effects = knock_out_for(model, base, entries, metrics)
    before = torch.stack([effect.base for effect in effects]).amin(dim=0)
    after = torch.stack([effect.values for effect in effects]).amin(dim=0)
    lost = dict(zip(removals, before - after, strict=True))
    names = [name for name, mode in removals if mode == "mean"]
    of_sinks = {name: lost[name, "renormalise"] - lost[name, "mean"] for name in names}
    return of_sinks | {f"{sink} carried": lost[sink, "mean"] for sink in places}


def sink_positions(trial: Trial, sink: str) -> list[int]:
    """Return the positions of a candidate; a key must remain for later queries, so that the last token is none."""
    prompts, found = trial.lookups.prompts, trial.lookups
    if sink == "first token":
        return [0]
    # Position 0 is another candidate.
    names, inner = prompts.symbols(), range(1, prompts.n_pos - 1)
    breaks = [p for p in inner if names[p] and not names[p].strip() and "\n" in names[p]]
    if sink == "line breaks":
        return breaks
    spans = [span for labels in (found.labels, found.query_labels) for span in labels.values()]
    used = {*breaks, *found.values.values(), *found.query_values.values(), *(p for span in spans for p in span)}
    return [p for p in inner if p not in used]


def idle_positions(trial: Trial) -> list[int]:
    """Return the tokens of items that are neither query nor target nor before one of them, in list and query."""
    found = trial.lookups
    used = {trial.query - 1, trial.query, trial.target - 1, trial.target}
    places = set()
    for item in set(found.values) - used:
        places |= {*found.labels.get(item, ()), *found.query_labels.get(item, ())}
        places |= {where[item] for where in (found.values, found.query_values) if item in where}
    return sorted(places - {0, found.prompts.n_pos - 1})


def _spread(positions: Sequence[int], count: int) -> list[int]:
    """Return so many of the positions, evenly spread from the first on, or all where there are fewer."""
    count = min(count, len(positions))
    return [positions[k * len(positions) // count] for k in range(count)]


def _removed(base: Prompts, sources: Sequence[int], mode: Mode) -> Knockout:
    """Return the removal of attention to some positions from all later ones, except among themselves."""
    dest = tuple(p for p in range(min(sources) + 1, base.n_pos) if p not in sources)
    return Knockout(tuple(sources), dest, mode=mode, mean_by="pos")
