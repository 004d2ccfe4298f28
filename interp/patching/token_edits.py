"""Runs on edited tokens: readouts, as `interp.forward.readout` gives them of each edited batch, and metrics.

Under a causal mask nothing changes before the first token that differs, so keys and values there are those of the
unedited prompts, or of another edit that begins alike: tokens that several runs begin with are computed once. Where
each prompt is read at one position of its own, by one metric, nothing after it is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import torch
from jaxtyping import Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of, require_same_layout
from interp.forward import Readout, readout, steps_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import Place
from interp.patching.effect import PatchEffect
from interp.patching.metric import Metric, MetricLike, bind_metrics, precise
from interp.patching.rerunning import Measured, Room, measure_unpatched, numbers_kept, unpatched_runs
from interp.patching.unpatched import Unpatched, run_after
from interp.sites import Site
from interp.support.exactness import Inexact
from interp.support.finite import require_finite
from interp.tasks import Batch, Prompts

# The name of the unedited prompts among the edited ones, and how many edits follow each other at most.
BASE, DEPTH = "", 4
# Copies of a layer's values that a run takes, and the share of the budget for a chunk: nearly all of it is what runs
# keep, which is known. Runs of few positions need many prompts, or a CPU reads a layer's weights for too few of them.
COPIES, SHARE = 8, 1 / 2


def readouts(
    model: AnyModel,
    base: Batch,
    edited: Mapping[str, Batch],
    at: Int[Tensor, " predicted"],
    own: Int[Tensor, " batch"] | None = None,
) -> tuple[Readout, dict[str, Readout]]:
    """Return the readout of the base at positions `at`, and those of edited copies of it by name.

    `own`: the position in `at` of each prompt; readouts then have these alone, `[batch 1]`. Models without steps, or
    whose steps differ by more than rounding on these prompts, run whole for each copy (see `interp.forward.steps_of`).
    Raises the errors of `readout`, and `ValueError` for a copy of another shape.
    """
    for name, batch in edited.items():
        if batch.tokens.shape != base.tokens.shape:
            raise ValueError(
                f"{name}: prompts are {list(batch.tokens.shape)}, those of the base {list(base.tokens.shape)}"
            )
    anatomy = steps_of(raw_of(model), base, at, half=True)  # what changes is read, and all runs round alike
    if anatomy is not None:
        with suppress(Inexact):  # which prompts are compared differs, and in half precision they may just pass or fail
            return _by_steps(model, anatomy, base, edited, at, own)
    wholes = {name: readout(model, batch, at) for name, batch in (("", base), *edited.items())}
    if own is not None:
        rows, column = torch.arange(len(base)), torch.searchsorted(at, own)
        wholes = {
            name: Readout(x.likeliest[rows, column].unsqueeze(1), x.logits[rows, column].unsqueeze(1))
            for name, x in wholes.items()
        }
    return wholes.pop(""), wholes


@exclusive
@torch.no_grad()
def measure_edited(
    model: AnyModel, base: PromptsLike, edited: Mapping[str, PromptsLike], metrics: Sequence[MetricLike]
) -> list[PatchEffect]:
    """Return the metrics of the base and of edited copies of it, one effect per metric, in their order.

    `edited` has by name what `base` may be: prompts or tokens of its shape. Values are `[edit batch]`; the only axis is
    "edit". A metric reads the answers that it was given, in every run: those of the base, say, also where an edit has
    others. There is no source run, so `source` is the base and `recovered` raises; use `change`.

    Raises `ValueError` without edits or metrics, for an edit without a name, for copies of another layout, and the
    errors of `patch` for prompts and metrics; `TypeError` where `edited` is no mapping or `metrics` no list.

    >>> (effect,) = measure_edited(run, batch, {"labels traded": traded}, [logit_diff(batch, step=9)])
    """
    if not isinstance(edited, Mapping):
        raise TypeError(f"edited must be a dict of prompts by name; got {type(edited).__name__}")
    anatomy = anatomy_of(raw_of(model))
    prompts = prompts_of(model, base, "base")
    bound = bind_metrics(metrics, model, prompts)
    if not edited:
        raise ValueError("no edits were given")
    copies = {name: prompts_of(model, copy, name) for name, copy in edited.items()}
    for name, copy in copies.items():
        require_same_layout(prompts, copy, ("base", name))
    measured, raw_difference = Measured(bound, copies), 0.0
    for run, runs in _runs(anatomy, prompts, copies, bound):
        raw_difference = run.raw_difference
        found = {name: measure_unpatched(anatomy, each, run.metrics) for name, each in runs}
        measured.add(run, found[BASE], [found[name] for name in copies])
    return measured.effects("tokens", "edit", "edit", {"raw_difference": raw_difference})


@exclusive
@torch.no_grad()
def _by_steps(
    model: AnyModel,
    anatomy: Anatomy,
    base: Batch,
    edited: Mapping[str, Batch],
    at: Int[Tensor, " predicted"],
    own: Int[Tensor, " batch"] | None,
) -> tuple[Readout, dict[str, Readout]]:
    del model  # locked
    symbols = base.vocabulary.tokens(base.format.outputs).to(anatomy.device)
    rows, found = [], {name: list[tuple[Tensor, Tensor]]() for name in (BASE, *edited)}
    for run, runs in _runs(anatomy, base, edited, [_reading(at - 1, own)]):
        rows.append(run.rows)
        for name, each in runs:
            final = each.final
            if own is not None:
                column = torch.searchsorted(run.reads, (own[run.rows] - 1).to(final.device))
                final = final[torch.arange(len(final), device=final.device), column].unsqueeze(1)
            logits = require_finite(precise(anatomy.unembed(final)), "a logit of the model", run.rows, 0, base)
            found[name].append((logits.argmax(dim=-1).cpu(), logits[..., symbols].cpu()))
    order = torch.cat(rows).argsort()
    by_name = {
        name: Readout(*(torch.cat(parts)[order] for parts in zip(*chunks, strict=True)))
        for name, chunks in found.items()
    }
    return by_name.pop(BASE), by_name


def _runs(
    anatomy: Anatomy, base: Prompts, edited: Mapping[str, Prompts], metrics: Sequence[Metric]
) -> Iterator[tuple[Unpatched, Iterator[tuple[str, Unpatched]]]]:
    """Yield, in chunks of prompts, the run on the base, and by name that run and those on its edited copies."""
    sites: tuple[Site, ...] = ("k", "v")
    keep: list[Place] = [(site, i) for i in range(len(anatomy.blocks)) for site in sites]
    copies = {BASE: base, **edited}
    if BASE in edited:
        raise ValueError("an edit must have a name; got an empty one")
    tree = followers({name: copy.tokens for name, copy in copies.items()}, anatomy.causal)
    for run in unpatched_runs(anatomy, base, metrics, keep, _room(tree, numbers_kept(anatomy, keep, base.n_pos), base)):
        tokens = {name: copy.tokens[run.rows, : run.n_pos] for name, copy in copies.items()}
        yield run, _from(anatomy, run, BASE, tokens, tree)


def _room(tree: Mapping[str, Sequence[tuple[str, int]]], kept: int, base: Prompts) -> Room:
    """Return the memory of runs that follow each other, of which each that others follow keeps `kept` numbers."""

    def followed(name: str) -> int:
        """Return how many runs keep something at once, from that one on."""
        return 1 + max((followed(after) for after, _ in tree[name]), default=0) if name in tree else 0

    # Most positions are computed in the longer runs.
    parts = [1.0, *(1 - first / base.n_pos for after in tree.values() for _, first in after)]
    part = sum(x * x for x in parts) / sum(parts)
    return Room(COPIES, max(0, followed(BASE) - 1) * kept, SHARE, part)


def _from(
    anatomy: Anatomy,
    run: Unpatched,
    name: str,
    tokens: Mapping[str, Int[Tensor, "row pos"]],
    tree: Mapping[str, Sequence[tuple[str, int]]],
) -> Iterator[tuple[str, Unpatched]]:
    """Yield a run and those that follow it."""
    yield name, run
    for after, first in tree.get(name, ()):
        there = tokens[after].to(anatomy.device)  # the run itself has no name here, which would keep it too long
        yield from _from(anatomy, run_after(anatomy, run, there, first, keep=after in tree), after, tokens, tree)


def followers(tokens: Mapping[str, Int[Tensor, "row pos"]], causal: bool = True) -> dict[str, list[tuple[str, int]]]:
    """Return which runs follow each run, and the first position at which their tokens differ in any row.

    The first of the runs follows none, and each other one that before it with which it shares most positions.
    """
    first, *names = tokens
    depth, tree = {first: 0}, dict[str, list[tuple[str, int]]]()
    for name in names:
        may_precede = [other for other in depth if depth[other] < DEPTH]
        shared = {other: _shared(tokens[other], tokens[name]) if causal else 0 for other in may_precede}
        other = max(shared, key=lambda other: shared[other])  # the first of those that share as many
        depth[name] = depth[other] + 1
        tree.setdefault(other, []).append((name, shared[other]))
    return tree


def _shared(one: Int[Tensor, "row pos"], other: Int[Tensor, "row pos"]) -> int:
    """Return how many positions two sets of prompts begin with alike."""
    differs = (one != other).any(dim=0)
    return int(differs.long().argmax()) if bool(differs.any()) else len(differs)


def _reading(positions: Int[Tensor, " read"], own: Int[Tensor, " batch"] | None) -> Metric:
    """Return what `unpatched_runs` needs to know of a readout: its positions, and each prompt's own."""

    def at(some: Tensor) -> Metric:
        own_position = None if own is None else own - 1
        narrow = None if own is None else at
        return Metric("readout", some, lambda logits, rows: logits[..., 0, 0], own=own_position, narrow=narrow)

    return at(positions if own is None else (own - 1).unique())
