"""Interchange interventions: one run in which several sites take their values from runs on other prompts.

An example: all attention scores from prompts with other labels, and all values from prompts with another history.
Sites, layers and positions of an entry are set jointly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import Place, forward_with_edits
from interp.patching.effect import PatchEffect
from interp.patching.interchange_parts import INTERCHANGE_SITES, Interchange, Intervention
from interp.patching.interchange_plans import Plan
from interp.patching.knockouts import Knockout
from interp.patching.metric import MetricLike, bind_metrics
from interp.patching.patched_runs import reused_places
from interp.patching.rerunning import Measured, Room, measure_patched, measure_unpatched, numbers_kept, unpatched_runs
from interp.patching.unpatched import Unpatched, trace
from interp.sites import Site
from interp.tasks import Prompts

__all__ = ["INTERCHANGE_SITES", "Interchange", "Intervention", "interchange", "interchange_for"]


@exclusive
@torch.no_grad()
def interchange(
    model: AnyModel, base: PromptsLike, entries: Mapping[str, Sequence[Intervention]], metric: MetricLike
) -> PatchEffect:
    """Return the metric of each base prompt under each entry: interchanges and "renormalise" knockouts in one run.

    Everything that an entry does not set is recomputed. Knockouts act after the interchange of attn_scores, so both
    can act on one head. The only axis is "interchange". There is no single source run, so `source` is the base and
    `recovered` raises; use `change`.

    Raises `ValueError` for prompts of different layouts, a layer that does not exist, an empty entry, two
    interchanges of one site in one layer, and a knockout of a mode other than "renormalise"; `TypeError` where entries
    are no dict of lists of these.

    >>> entries = {"routing": [Interchange("attn_scores", swapped)], "values": [Interchange("v", flipped, at=labels)]}
    >>> effect = interchange(run, batch, entries, logit_diff(batch, step=9))
    """
    (effect,) = interchange_for(model, base, entries, [metric])
    return effect


@exclusive
@torch.no_grad()
def interchange_for(
    model: AnyModel, base: PromptsLike, entries: Mapping[str, Sequence[Intervention]], metrics: Sequence[MetricLike]
) -> list[PatchEffect]:
    """Return the effects of `interchange` for several metrics of the same runs, in their order."""
    anatomy = anatomy_of(raw_of(model))
    base = prompts_of(model, base, "base")
    bound = bind_metrics(metrics, model, base)
    plans = {name: Plan(model, anatomy, base, name, parts) for name, parts in _listed(entries).items()}
    if not plans:
        raise ValueError("no entries were given")
    needed = _needed(anatomy, base, list(plans.values()))
    moved = {id(part.source) for plan in plans.values() for part in plan.interchanges.values() if part.moves}
    beside = sum(
        (1 + (key in moved)) * numbers_kept(anatomy, places, source.n_pos)
        for key, (places, source) in needed.items()
        if source is not base
    )
    # Sources that run through all layers anyway, and whose own metric is an entry.
    last = len(anatomy.blocks) - 1
    deep = {key for key, (places, _) in needed.items() if any(layer == last for _, layer in places)}
    wanted = {id(plan.whole) for plan in plans.values()} & deep - moved - {id(base)}
    measured, raw_difference = Measured(bound, plans), 0.0
    for run in unpatched_runs(anatomy, base, bound, needed[id(base)][0], Room(kept=beside)):
        raw_difference = run.raw_difference
        kept, finals = {id(base): run.kept}, dict[int, Tensor | None]()
        for key, (places, source) in needed.items():
            if source is not base:
                finals[key], kept[key] = _run_source(anatomy, run, places, source, key in moved, key in wanted)
        cells = [_measure(anatomy, run, plan, kept, finals) for plan in plans.values()]
        measured.add(run, measure_unpatched(anatomy, run, run.metrics), cells)
    return measured.effects("joint", "interchange", "interchange", {"raw_difference": raw_difference})


def _measure(
    anatomy: Anatomy,
    run: Unpatched,
    plan: Plan,
    kept: Mapping[int, Mapping[Place, Tensor]],
    finals: Mapping[int, Tensor | None],
) -> Sequence[Tensor]:
    """Return the metrics of an entry; where it is the whole run on a source, of the source's own final residual."""
    if (final := finals.get(id(plan.whole))) is not None:
        return measure_unpatched(anatomy, replace(run, final=final), run.metrics)
    return measure_patched(anatomy, run, plan.changes(run, kept), run.metrics)


def _run_source(
    anatomy: Anatomy, run: Unpatched, places: set[Place], source: Prompts, whole: bool, final: bool
) -> tuple[Tensor | None, Mapping[Place, Tensor]]:
    """Return what is kept of the run on a source, whose prompts end where those of `run` do unless it is `whole`.

    With `final`, also the residual after the last layer where `run` is read.
    """
    tokens = source.tokens[run.rows].to(anatomy.device)
    if not whole:
        return trace(anatomy, tokens[:, : run.n_pos], run.reads, places, final=final)
    stop = max(layer for _, layer in places) + 1
    return None, forward_with_edits(anatomy, anatomy.embed(tokens), stop=stop, keep=sorted(places))[1]


def _needed(anatomy: Anatomy, base: Prompts, plans: Sequence[Plan]) -> dict[int, tuple[set[Place], Prompts]]:
    """Return what is kept of the runs on the base and on each source, by identity: entries may share a source."""
    starts: dict[int, set[Site]] = {}
    for plan in plans:
        starts.setdefault(plan.start, set()).update(plan.sites_of(plan.start))
    first = max(int(plan.firsts.max()) for plan in plans)
    needed = {id(base): (reused_places(anatomy, starts, first), base)}
    for plan in plans:
        for place, part in plan.interchanges.items():
            assert isinstance(part.source, Prompts)
            if place[1] < plan.start:  # frozen before anything differs
                continue
            needed.setdefault(id(part.source), (set(), part.source))[0].add(plan.taken(place))
    return needed


def _listed(entries: object) -> Mapping[str, Sequence[Intervention]]:
    """Return the entries. Raises `TypeError` unless they are lists of interchanges and knockouts by name."""
    if not isinstance(entries, Mapping):
        raise TypeError(f"entries must be a dict of lists of interchanges by name; got {type(entries).__name__}")
    for name, parts in entries.items():
        listed = isinstance(parts, Sequence) and not isinstance(parts, str)
        for part in parts if listed else (parts,):
            if not listed or not isinstance(part, Interchange | Knockout):
                raise TypeError(f"{name} must be a list of Interchange and Knockout; got {type(part).__name__}")
    return entries
