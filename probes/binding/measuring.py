"""Measure the arms of lists by interchange on spans, with matched controls and intervals over prompts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from interp.models.resolve import AnyModel, raw_of
from interp.patching import Interchange
from interp.support.finite import NotFinite
from interp.tasks import Prompts
from probes.binding.edits import ARMS, NEXT, Absent, answer_traded, edit_of, next_of
from probes.binding.found import COMPETENCE, RULES, Binding, Group, Share
from probes.binding.lattice import beyond, steps
from probes.binding.margins import (
    FOLLOWS,
    FULL,
    FULL_NEXT,
    FULL_OVER_ALL,
    FULL_OVER_LIST,
    GAINED,
    LEADS,
    leads_over,
    margins_under,
    moved_to_next,
)
from probes.binding.sinks import ALL_TOKENS, SINKS, sink_effects
from probes.binding.trials import DEEP_ARMS, DEEP_CHECKS, Trial
from probes.binding.wanted import LATER, wanted_arms, wanted_next, wanted_removals
from probes.evidence import Interval
from probes.intervals import ratio, wilson

# After the name of a group of prompts whose first arms left a status open.
MORE = ", more"


def measure_binding(
    model: AnyModel,
    trials: Sequence[Trial],
    task: str = "template",
    seed: int = 0,
    step: Callable[[str], None] = lambda _: None,
    prompts: int | None = None,
    recall: Callable[[str, Callable[[], Group]], Group] = lambda name, measure: measure(),
) -> Binding:
    """Measure accuracy and, where the model can do the task, all arms, sinks and their controls.

    Accuracy is that of the most likely token among all, over all prompts. The arms are measured on about `prompts` of
    them, the first of each trial (None: on all). `step` is called with the name of each group of prompts; `recall` gets
    that of each piece of work, and measures it or returns what an earlier process kept of it. Findings hold together at
    95 % (Bonferroni over the ways to one: PRESENT and ABSENT of each arm and sink, and what a sink carries; a way that
    needs two intervals errs at most as often as one of them). Prompts that repeat another one of their trial are left
    out, with a warning: intervals over prompts would count them as new.
    """
    if not trials:
        raise ValueError("there are no trials")
    given, trials = trials, [trial.distinct() for trial in trials]
    if repeated := sum(len(a.lookups.prompts) - len(b.lookups.prompts) for a, b in zip(given, trials, strict=True)):
        warnings.warn(f"{repeated} prompts repeat others and are left out", stacklevel=2)
    usual, deep = [t for t in trials if not t.only_deep], [t for t in trials if t.only_deep]
    if not usual:
        raise ValueError("all trials are only_deep; accuracy and the other arms need one that is not")
    n, items = sum(len(trial.lookups.prompts) for trial in usual), trials[0].lookups.n_items
    step("accuracy")
    rights = [recall(f"accuracy-{k}", partial(_accuracy, model, trial)) for k, trial in enumerate(usual)]
    right = torch.cat([group.values["right"] for group in rights])
    if prompts is not None:
        usual, deep = [t.first(-(-prompts // len(usual))) for t in usual], [t.first(prompts) for t in deep]
    used = sum(len(trial.lookups.prompts) for trial in usual)
    level = 1 - 0.05 / (2 * len(ARMS) + 3 * len(SINKS))
    estimate = wilson(float(right.sum()), n)
    queries, targets = (tuple(sorted({getattr(trial, name) for trial in trials})) for name in ("query", "target"))
    found = Binding(task, items, n, used, seed, estimate, level, queries=queries, targets=targets, rules=RULES)
    if not found.competent:
        reason = f"the model gives the right value in {estimate} of {n} prompts; the lower end must reach {COMPETENCE}"
        given = torch.cat([group.values["given"] for group in rights])[right == 0].long().tolist()
        if given:
            token, times = Counter(given).most_common(1)[0]
            reason += f"; its commonest wrong answer is {trials[0].lookups.prompts.symbol(token)!r} ({times} of {n})"
        return replace(found, refusal=reason)
    groups, left_out = [], {}
    for k, trial in enumerate((*usual, *deep)):
        step(f"item {trial.query} to {trial.target}")
        group = recall(f"arms-{RULES}-{k}", partial(_arms, model, trial))
        left_out |= group.left_out
        groups.append(group.values)
    found = replace(found, deep_prompts=sum(len(group[FULL]) for group in groups if set(DEEP_ARMS) & set(group)))
    first = _summed(found, groups, len(usual), left_out)
    wanted = wanted_arms(first), wanted_next(first), wanted_removals(first)
    for k, trial in enumerate((*usual, *deep) if any(wanted) else ()):
        step(f"item {trial.query} to {trial.target}{MORE}")
        group = recall(f"more-{RULES}-{k}", partial(_more, model, trial, *wanted))
        left_out |= group.left_out
        groups[k] = groups[k] | group.values
    return _summed(found, groups, len(usual), left_out)


def _accuracy(model: AnyModel, trial: Trial) -> Group:
    """Return the most likely token after each prompt, and whether it is the value asked for."""
    from interp.forward import predict

    prompts = trial.lookups.prompts
    logits = predict(raw_of(model), prompts, torch.tensor([prompts.n_pos]))
    given = logits[:, -1].argmax(dim=-1).cpu()
    right = given == trial.lookups.answer(trial.query).cpu()
    return Group({"right": right.double(), "given": given.double()})


def _arms(model: AnyModel, trial: Trial) -> Group:
    """Return what the first arms, sinks and controls take from the answer's margin, per prompt, and who leads then."""
    left_out: dict[str, str] = {}
    entries = {FULL: [_put(trial.lookups.prompts, answer_traded(trial))]}
    entries |= _entries(trial, [arm for arm in ARMS if arm not in LATER], left_out)
    measured, (before, after), whole = margins_under(model, trial, entries)
    if not trial.only_deep:
        # Without its sink a head may bring in any value or token, which the lead over the target's would not show.
        measured[FULL_OVER_LIST] = before.amin(dim=0) - after[:, 0].amin(dim=0)
        measured[FULL_OVER_ALL] = whole.base - whole.values[0]
        measured |= sink_effects(model, trial, *leads_over(trial), left_out)
    return Group({name: values.double().cpu() for name, values in measured.items()}, left_out)


def _more(
    model: AnyModel, trial: Trial, arms: Sequence[str], to_next: Sequence[str], removals: Sequence[tuple[str, ...]]
) -> Group:
    """Return the same for the arms and the sets of candidates that the first ones left open.

    `to_next`: the addresses of which the edit that leads to the next item is measured too.
    """
    left_out: dict[str, str] = {}
    entries = _entries(trial, arms, left_out)
    measured = margins_under(model, trial, entries)[0] if entries else {}
    if not trial.only_deep:
        base, nearby = trial.lookups.prompts, {}
        for address in to_next:
            try:
                nearby[NEXT[address]] = [_put(base, next_of(trial, address))]
            except Absent as reason:
                left_out[NEXT[address]] = str(reason)
        if nearby:
            nearby[FULL_NEXT] = [_put(base, answer_traded(trial, trial.query + 1))]
            measured |= moved_to_next(model, trial, nearby)
    if removals and not trial.only_deep:
        measured |= sink_effects(model, trial, *leads_over(trial), left_out, removals)
    return Group({name: values.double().cpu() for name, values in measured.items()}, left_out)


def _entries(trial: Trial, arms: Sequence[str], left_out: dict[str, str]) -> dict[str, list[Interchange]]:
    """Return arms and their controls as interventions."""
    entries: dict[str, list[Interchange]] = {}
    for arm in arms:
        if trial.only_deep and not _is_deep(arm):
            continue
        try:
            edit = edit_of(trial, arm)
        except Absent as reason:
            left_out[arm] = str(reason)
            continue
        base = trial.lookups.prompts
        entries[arm] = [_put(base, edit.tokens)]
        if arm not in DEEP_CHECKS:
            entries[f"{arm} control"] = [_put(base, edit.control)]
    return entries


def _put(base: Prompts, tokens: Int[Tensor, "batch pos"]) -> Interchange:
    """Return the interchange of the embeddings at the positions that an edit changes."""
    changed = (tokens != base.tokens).any(dim=0, keepdim=True)
    return Interchange("resid_pre", base.with_tokens(tokens), at=changed, layers=(0,))


def _summed(found: Binding, groups: Sequence[dict[str, Tensor]], usual: int, left_out: dict[str, str]) -> Binding:
    """Return the shares of the full effect in the same prompts.

    An arm must be measured in each of the first `usual` groups of prompts; those in `DEEP_ARMS` in any.
    """
    at = {
        name: [k for k, group in enumerate(groups) if name in group and (k < usual or _is_deep(name))]
        for name in dict.fromkeys(name for group in groups for name in group)
    }
    at = {name: places for name, places in at.items() if places and (len(places) == usual or _is_deep(name))}

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


def _is_deep(name: str) -> bool:
    return name.startswith((*DEEP_ARMS, *DEEP_CHECKS))
