"""Sinks of lists: tokens that take attention, or add a constant, and carry nothing about the item.

Attention to the candidate is removed in all heads in two ways. The other keys share it ("renormalise"), or the value
becomes its mean over the prompts and over all positions of the same token, and the attention stays ("mean"). What the
first loses and the second does not is the softmax denominator, or a constant: a sink (arXiv 2410.10781). What both lose
is information that the token carries; a full stop that has stored the label or the number of its line loses that too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

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
# The removal of all of them at once.
TOGETHER = "all together"
# After a candidate's name: of the lead over all other tokens, not of that over the other values of the list.
ALL_TOKENS = ", over all tokens"


def removal_of(sinks: Sequence[str], found: Sequence[str]) -> str:
    """Return the name of the removal of some of the candidates found, such as "line breaks + other tokens"."""
    return TOGETHER if 1 < len(sinks) == len(found) else " + ".join(sinks)


def sets_of(sinks: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every set of one or more candidates."""
    for count in range(1, len(sinks) + 1):
        yield from combinations(sinks, count)


def sink_effects(
    model: AnyModel,
    trial: Trial,
    over: Sequence[MetricLike],
    over_all: MetricLike,
    left_out: dict[str, str],
) -> dict[str, Float[Tensor, " batch"]]:
    """Return what is lost of the answer's lead by each candidate and its control, and by sets of them, per prompt.

    The lead is the least of `over`, and for "NAME, over all tokens" it is `over_all`. The names of sets are those of
    `removal_of`.

    "NAME carried" is what the mean value loses: where that is not small, the candidate carries something, and the rest
    is no sign of a sink, because the other keys then bring in something else. "NAME control" is the same for as many
    tokens of items that the answer does not depend on, or for all of them where there are fewer. Candidates that the
    prompts do not have are named in `left_out`, with the reason.
    """
    base, idle = trial.lookups.prompts, idle_positions(trial)
    found = {sink: positions for sink in SINKS if (positions := sink_positions(trial, sink))}
    left_out |= {sink: "the prompts have none" for sink in SINKS if sink not in found}
    if not idle:
        left_out |= dict.fromkeys(found, "there is no item that the answer does not depend on, for the control")
        return {}
    names = tuple(found)
    places = {removal_of(sinks, names): sorted(p for s in sinks for p in found[s]) for sinks in sets_of(names)}
    controls = {f"{name} control": _spread(idle, len(places[name])) for name in names}
    modes: tuple[Mode, ...] = ("renormalise", "mean")
    at: dict[tuple[str, Mode], tuple[int, ...]] = {
        (name, mode): tuple(_sources(base, some, mode)) for name, some in (places | controls).items() for mode in modes
    }
    # What has the same sources is one removal; that of none changes nothing.
    pairs: list[tuple[tuple[int, ...], Mode]] = [(some, mode) for (_, mode), some in at.items() if some]
    distinct = list(dict.fromkeys(pairs))
    entries = {str(number): _removed(base, *key) for number, key in enumerate(distinct)}
    *effects, whole = knock_out_for(model, base, entries, [*over, over_all])
    before, after = (torch.stack([getattr(effect, what) for effect in effects]) for what in ("base", "values"))

    def by_name(found: Float[Tensor, "entry batch"]) -> dict[tuple[str, Mode], Float[Tensor, " batch"]]:
        by_key = dict(zip(distinct, found, strict=True))
        return {key: by_key.get((some, key[1]), torch.zeros_like(whole.base)) for key, some in at.items()}

    lost, of_all = by_name(before.amin(dim=0) - after.amin(dim=0)), by_name(whole.base - whole.values)
    of_sinks = {name: lost[name, "renormalise"] - lost[name, "mean"] for name in (*places, *controls)}
    of_sinks |= {f"{name}{ALL_TOKENS}": of_all[name, "renormalise"] - of_all[name, "mean"] for name in names}
    return of_sinks | {f"{name} carried": lost[name, "mean"] for name in names}


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


def _sources(base: Prompts, positions: Sequence[int], mode: Mode) -> Sequence[int]:
    """Return the positions, in rising order, without those in front whose mean value is their own in each prompt.

    Their token and all before it are the same in all prompts, and it stands at no other position.
    """
    if mode != "mean":
        return positions
    tokens = base.tokens
    differs = (tokens != tokens[0]).any(dim=0).tolist()
    alike = differs.index(True) if True in differs else base.n_pos
    for k, position in enumerate(positions):
        elsewhere = (tokens == tokens[0, position]).any(dim=0).sum() > 1
        if position >= alike or elsewhere:
            return positions[k:]
    return ()


def _removed(base: Prompts, sources: Sequence[int], mode: Mode) -> Knockout:
    """Return the removal of attention to some positions from all later ones, except among themselves.

    Only the mean of tokens that are the same in all prompts is over other positions as well.
    """
    dest = tuple(p for p in range(min(sources) + 1, base.n_pos) if p not in sources)
    return Knockout(tuple(sources), dest, mode=mode, mean_by="token")
