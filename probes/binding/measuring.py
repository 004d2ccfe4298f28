"""Measure the arms of lists by interchange on spans, with matched controls and intervals over prompts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from interp.models.resolve import AnyModel
from interp.support.finite import NotFinite
from probes.binding.edits import ARMS, NEXT
from probes.binding.found import COMPETENCE, RULES, Binding, Group, Share
from probes.binding.lattice import beyond, steps
from probes.binding.margins import FOLLOWS, FULL, FULL_NEXT, FULL_OVER_ALL, FULL_OVER_LIST, GAINED, LEADS
from probes.binding.pieces import Piece, Prepare, Recall, arranged, is_deep, pieces_of
from probes.binding.sinks import ALL_TOKENS, SINKS
from probes.binding.trials import DEEP_ARMS, Trial
from probes.binding.wanted import wanted_arms, wanted_next
from probes.evidence import Interval
from probes.intervals import ratio, wilson

# After the name of a group of prompts whose first arms left a status open.
MORE = ", more"
# The first step.
ACCURACY = "accuracy"


def measure_binding(
    model: AnyModel,
    trials: Sequence[Trial],
    task: str = "template",
    seed: int = 0,
    step: Callable[[str], None] = lambda _: None,
    prompts: int | None = None,
    recall: Recall = lambda name, measure: measure(),
    prepare: Prepare = lambda pieces: (),
) -> Binding:
    """Measure accuracy and, where the model can do the task, all arms, sinks and their controls.

    Accuracy is that of the most likely token among all, over all prompts. The arms are measured on about `prompts` of
    them, the first of each trial (None: on all). `step` is called with the name of each piece of work; `recall` gets
    that of each piece, and measures it or returns what an earlier process kept of it. `prepare` is called with the
    pieces that come next; it may measure and keep them in any order and in other processes (see `Piece`), and returns
    the names of those that `recall` then finds. Findings hold together at 95 % (Bonferroni over the ways to one:
    PRESENT and ABSENT of each arm and sink, and what a sink carries; a way that needs two intervals errs at most as
    often as one of them). Prompts that repeat another one of their trial are left out, with a warning: intervals over
    prompts would count them as new.
    """
    if not trials:
        raise ValueError("there are no trials")
    if all(trial.only_deep for trial in trials):
        raise ValueError("all trials are only_deep; accuracy and the other arms need one that is not")
    asked, used = arranged(trials, prompts)
    if repeated := sum(len(trial.lookups.prompts) - len(trial.distinct().lookups.prompts) for trial in trials):
        warnings.warn(f"{repeated} prompts repeat others and are left out", stacklevel=2)
    groups, left_out = [dict[str, Tensor]() for _ in used], dict[str, str]()

    def measure(pieces: Sequence[Piece]) -> list[Group]:
        prepared, found = frozenset(prepare(pieces)), []
        for piece in pieces:
            if piece.title and piece.name not in prepared:
                step(piece.title)
            found.append(recall(piece.name, partial(piece.measure, model, asked, used)))
        return found

    def summed(pieces: Sequence[Piece]) -> Binding:
        for piece, group in zip(pieces, measure(pieces), strict=True):
            groups[piece.number] |= group.values
            left_out.update(group.left_out)
        deep = sum(len(group[FULL]) for group in groups if set(DEEP_ARMS) & set(group))
        return _summed(replace(found, deep_prompts=deep), groups, len(asked), left_out)

    step(ACCURACY)
    found = _competence(measure([Piece("accuracy", k) for k in range(len(asked))]), asked, used, task, seed)
    if not found.competent:
        return found
    first = summed(pieces_of(used, {"arms": {}, "candidates": {}}))
    more = {"arms": wanted_arms(first), "to_next": wanted_next(first)}
    return summed(pieces_of(used, {"more": more}, MORE)) if any(more.values()) else first


def _competence(
    rights: Sequence[Group], asked: Sequence[Trial], used: Sequence[Trial], task: str, seed: int
) -> Binding:
    """Return a result with the accuracy and nothing else, and the reason where the model cannot do the task."""
    right = torch.cat([group.values["right"] for group in rights])
    estimate, n = wilson(float(right.sum()), len(right)), len(right)
    level = 1 - 0.05 / (2 * len(ARMS) + 3 * len(SINKS))
    both = (*asked, *used)
    queries, targets = (tuple(sorted({getattr(trial, name) for trial in both})) for name in ("query", "target"))
    found = Binding(
        task,
        asked[0].lookups.n_items,
        n,
        sum(len(trial.lookups.prompts) for trial in used if not trial.only_deep),
        seed,
        estimate,
        level,
        queries=queries,
        targets=targets,
        rules=RULES,
    )
    if found.competent:
        return found
    reason = f"the model gives the right value in {estimate} of {n} prompts; the lower end must reach {COMPETENCE}"
    given = torch.cat([group.values["given"] for group in rights])[right == 0].long().tolist()
    if given:
        token, times = Counter(given).most_common(1)[0]
        reason += f"; its commonest wrong answer is {asked[0].lookups.prompts.symbol(token)!r} ({times} of {n})"
    return replace(found, refusal=reason)


def _summed(found: Binding, groups: Sequence[dict[str, Tensor]], usual: int, left_out: dict[str, str]) -> Binding:
    """Return the shares of the full effect in the same prompts.

    An arm must be measured in each of the first `usual` groups of prompts; those in `DEEP_ARMS` in any.
    """
    at = {
        name: [k for k, group in enumerate(groups) if name in group and (k < usual or is_deep(name))]
        for name in dict.fromkeys(name for group in groups for name in group)
    }
    at = {name: places for name, places in at.items() if places and (len(places) == usual or is_deep(name))}

    def of(name: str, at_groups: Sequence[int]) -> Tensor:
        return torch.cat([groups[k][name] for k in at_groups])

    def share(name: str, less: str = "") -> Interval:
        places, full = at[name], FULL_OVER_LIST if name.startswith(SINKS) else FULL
        full = FULL_OVER_ALL if name.endswith(ALL_TOKENS) else full + GAINED * name.endswith(GAINED)
        full = FULL_NEXT if name in NEXT.values() else full
        top = of(name, places) - (of(less, places) if less else 0)
        strata = torch.cat([torch.full((len(groups[k][FULL]),), i) for i, k in enumerate(places)])
        return ratio(top, of(full, places), found.level, strata)

    def follows(name: str) -> float | None:
        after = f"{name}{FOLLOWS}"
        if after not in at or not (leads := of(LEADS, at[after])).any():
            return None
        return float(of(after, at[after]).sum() / leads.sum())

    def shares(names: Sequence[str]) -> dict[str, Share]:
        return {
            name: Share(
                share(name),
                share(f"{name} control"),
                share(name, f"{name} control"),
                follows(name),
                share(gained) if (gained := f"{name}{GAINED}") in at else None,
            )
            for name in names
            if name in at
        }

    left_out = {name: reason for name, reason in left_out.items() if name not in at}
    try:
        arms, sinks = shares(tuple(ARMS)), shares(SINKS)
        carried = {sink: share(f"{sink} carried") for sink in sinks}
        remainder = share(FULL, "joint") if "joint" in at else None
        added = {beyond(*pair): share(*pair) for pair in steps(at)}
        added |= {name: share(name) for sink in SINKS if (name := f"{sink}{ALL_TOKENS}") in at}
        added |= {name: share(name) for name in NEXT.values() if name in at}
    except (ValueError, NotFinite) as error:
        return replace(found, left_out=left_out, refusal=str(error))
    return replace(
        found, shares=arms, sinks=sinks, carried=carried, remainder=remainder, left_out=left_out, added=added
    )
