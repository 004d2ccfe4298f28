"""Presence, interchange: keys and values at labels from another prompt, in some cells.

The runs that are patched and those of the sources are kept between calls while they fit the memory budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.arguments import exclusive
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import raw_of
from interp.patching import Metric
from interp.patching.attention_changes import AttentionChange
from interp.patching.editing import SHARE, Place, chunks
from interp.patching.metric import precise
from interp.patching.patched_runs import PROJECTED, Changes, final_patched
from interp.patching.unpatched import Biases, Unpatched, run_unpatched, trace
from interp.sites import Site
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import Batch, Role
from probes.arms.m06_heads import LABELS
from probes.arms.presence_cells import BY_STEP, KINDS, Cell, Cells
from probes.arms.presence_metrics import leads_of
from probes.arms.presence_sources import sources_by_cell

# Returns the change of a layer's attention, from its mask `[head dest]` of cells and the rows of prompts that are run.
ChangeOf = Callable[[int, Tensor, Tensor], AttentionChange]


@dataclass(frozen=True, eq=False)
class Moved:
    """What an intervention changes, per prompt: `lost` (of a score of the answers) and mean |change of the margin|."""

    lost: Float[Tensor, " prompt"]
    margin: Float[Tensor, " prompt"]


class Interchanges:
    """Interchanges of keys and values at labels in some cells, on one batch. `score` is what `Moved.lost` is lost of.

    `clean` `[prompt]` is the score without intervention, `lead` `[prompt step]` the margin. `sources`: the prompts that
    keys and values come from; None is those of `sources_by_cell`.
    """

    def __init__(
        self, model: PreTrainedModel, batch: Batch, seed: int, score: Metric, sources: Sequence[Batch] | None = None
    ) -> None:
        self.anatomy, self.batch, self.score = anatomy_of(raw_of(model)), batch, score
        at, symbols = batch.at(Role.OUTPUT) - 1, batch.vocabulary.tokens(batch.format.outputs)
        self.reads = torch.cat([score.positions, at]).unique()
        self.scored, self.answered = (torch.searchsorted(self.reads, x) for x in (score.positions, at))
        self.symbols = symbols if score.tokens is None else torch.searchsorted(score.tokens, symbols)
        self.sources = sources or sources_by_cell(batch, seed)
        self.labels = torch.isin(batch.role, torch.tensor(LABELS))
        self.biases, self._kept = Biases(), dict[tuple[int, int, int], Any]()
        self._size = 0  # numbers in them
        self.clean, self.lead = (torch.cat(parts) for parts in zip(*measure_edited(self, Cells(())), strict=True))

    def effect(self, cells: Cells, k: int) -> Moved:
        """Return what source number `k` changes."""
        return joined(self.parts_of_effect(cells, k))

    def parts_of_effect(self, cells: Cells, k: int) -> Iterator[Moved]:
        """Yield what source number `k` changes, for some of the prompts after others."""
        return self.parts_moved(_interchanged(self, cells, k))

    def parts_moved(self, measured: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Moved]:
        """Yield what an intervention changes, from what `measure_changed` yields."""
        done = 0
        for score, lead in measured:
            rows = slice(done, done := done + len(score))
            yield Moved(self.clean[rows] - score, (lead - self.lead[rows]).abs().double().mean(dim=1))

    def chunks(self) -> Iterator[Int[Tensor, " row"]]:
        """Yield the numbers of the prompts that run together."""
        return chunks(self.anatomy, self.batch, self.score, copies=4 + 3 * len(self.anatomy.blocks))

    def by_step(self, cells: Cells, k: int) -> Float[Tensor, " step"]:
        """Return the mean |change of the margin| at each step by source number `k`."""
        leads = torch.cat([lead for _, lead in _interchanged(self, cells, k)])
        return (leads - self.lead).abs().double().mean(dim=0)

    def idle_steps(self, cell: Cell, most: Sequence[float]) -> tuple[int, ...]:
        """Return the steps at which interchange in one cell moves the mean margin by at most `most` of each source."""
        moved, steps = list[Tensor](), ()
        for k in range(len(self.sources)):
            moved.append(self.by_step(Cells((cell,)), k) / most[k])
            steps = idle_steps(self.batch, torch.stack(moved), 1.0)
            if not steps:
                break  # one source that moves every step is enough
        return steps

    def effects(self, cells: Cells) -> list[Moved]:
        """Return what each source changes."""
        return [self.effect(cells, k) for k in range(len(self.sources))]

    def unpatched(self, rows: Tensor) -> Unpatched:
        """Return the run of some of the prompts that are patched; kept for the next call as those of sources are."""
        places: list[Place] = [(site, layer) for layer in range(len(self.anatomy.blocks)) for site in PROJECTED]
        tokens = self.batch.tokens[rows].to(self.anatomy.device)

        def compute() -> tuple[Unpatched, int]:
            run = run_unpatched(self.anatomy, rows, tokens, self.reads, places, self.biases)
            return run, sum(x.numel() for x in (run.final, *run.kept.values()))

        return self._recall(rows, -1, compute)

    def source(self, rows: Tensor, number: int) -> Mapping[Place, Tensor]:
        """Return K and V of every layer at labels of some prompts of a source, K as attention uses it.

        They are kept for the next call while all fit.
        """
        sites: tuple[Site, ...] = ("k", "v")
        places: list[Place] = [(site, layer) for layer in range(len(self.anatomy.blocks)) for site in sites]
        tokens = self.sources[number].tokens[rows].to(self.anatomy.device)

        def compute() -> tuple[Mapping[Place, Tensor], int]:
            kept = trace(self.anatomy, tokens, self.reads.to(tokens.device), places, False, self.biases)[1]
            at, found = self.labels.nonzero().flatten().to(tokens.device), dict[Place, Tensor]()
            for (site, layer), x in kept.items():
                some = x.index_select(1, at)
                found[site, layer] = self.anatomy.keys(self.anatomy.blocks[layer], some, at) if site == "k" else some
            return found, sum(x.numel() for x in found.values())

        return self._recall(rows, number, compute)

    def _recall(self, rows: Tensor, number: int, compute: Callable[[], tuple[Any, int]]) -> Any:
        """Return a run of some prompts, kept while all kept fit the budget."""
        key = (number, int(rows[0]), len(rows))  # chunks may differ in size
        if key in self._kept:
            return self._kept[key]
        found, size = compute()
        if self._size + size <= numbers(SHARE):
            self._kept[key] = found
            self._size += size
        return found


def measure_edited(
    work: Interchanges, cells: Cells, change_of: ChangeOf | None = None
) -> Iterator[tuple[Float[Tensor, " row"], Float[Tensor, "row step"]]]:
    """Yield the score, in float64, and the margins, with the change of each layer that has a cell.

    The prompts come in order, some at a time.
    """
    masks = _masks(work.anatomy, work.batch, cells)

    def changes_of(rows: Tensor) -> dict[int, AttentionChange]:
        assert change_of is not None or not masks, "cells have a change"
        return {} if change_of is None else {layer: change_of(layer, mask, rows) for layer, mask in masks.items()}

    yield from measure_changed(work, changes_of)


def measure_changed(
    work: Interchanges, changes_of: Callable[[Tensor], Mapping[int, AttentionChange]]
) -> Iterator[tuple[Float[Tensor, " row"], Float[Tensor, "row step"]]]:
    """Yield the same as `measure_edited`, with the changes by layer of the rows of prompts that are run."""
    for rows in work.chunks():
        yield _measure_rows(work.anatomy.raw, work, rows, changes_of)


@exclusive
@torch.no_grad()
def _measure_rows(
    model: PreTrainedModel,
    work: Interchanges,
    rows: Int[Tensor, " row"],
    changes_of: Callable[[Tensor], Mapping[int, AttentionChange]],
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row step"]]:
    del model  # locked
    anatomy, run = work.anatomy, work.unpatched(rows)
    final, attention = run.final, changes_of(rows)
    # Cells whose queries come before every label change nothing.
    queries = {layer: at for layer, change in attention.items() if len(at := change.queries(anatomy.causal))}
    if queries:
        start, first = min(queries), min(int(at[0]) for at in queries.values()) if anatomy.causal else 0
        attention = {layer: attention[layer] for layer in queries}
        changes = Changes(start, first, {}, attention=attention, dest=queries[start].to(anatomy.device))
        final = final_patched(anatomy, run, changes, run.reads)
    logits = require_finite(precise(anatomy.unembed(final, work.score.tokens)), "a logit", rows, axis=0)
    score = work.score.measure_read(logits[:, work.scored], rows).cpu().double()
    return score, leads_of(work.batch, logits[:, work.answered][..., work.symbols], rows).cpu()


def grafted(work: Interchanges, k: int, src: Bool[Tensor, " pos"]) -> ChangeOf:
    """Return the change in which labels at `src` have the keys and values of source number `k`."""
    labels, wanted = work.labels.nonzero().flatten(), src.nonzero().flatten()
    index = torch.isin(labels, wanted).nonzero().flatten()

    def change_of(layer: int, mask: Tensor, rows: Tensor) -> AttentionChange:
        source, some = work.source(rows, k), index.to(work.anatomy.device)
        keys, values = source["k", layer], source["v", layer]
        if len(wanted) < len(labels):
            keys, values = keys.index_select(1, some), values.index_select(1, some)
        keys, values = (work.anatomy.expand_heads(x) for x in (keys, values))
        return AttentionChange(cells=mask, src=wanted, keys=keys, values=values)

    return change_of


def _interchanged(work: Interchanges, cells: Cells, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield score and margins with K and V at labels from source `k`, for the queries and in the heads of the cells."""
    return measure_edited(work, cells, grafted(work, k, work.labels))


def joined(parts: Iterable[Moved]) -> Moved:
    """Return what changes in all prompts, from some of them after others."""
    lost, margin = zip(*((m.lost, m.margin) for m in parts), strict=True)
    return Moved(torch.cat(lost), torch.cat(margin))


def _masks(anatomy: Anatomy, batch: Batch, cells: Cells) -> dict[int, Bool[Tensor, "head dest"]]:
    masks: dict[int, Tensor] = {}
    for (kind, (layer, head)), steps in (*((cell, None) for cell in cells.members), *cells.parts):
        queries = batch.role == KINDS[kind]
        if steps is not None:
            queries &= torch.isin(batch.step, torch.tensor(steps))
        mask = masks.setdefault(layer, torch.zeros(anatomy.n_heads, batch.n_pos, dtype=torch.bool))
        mask[head] |= queries
    return dict(sorted(masks.items()))


def idle_steps(batch: Batch, moved: Float[Tensor, "source step"], most: float) -> tuple[int, ...]:
    """Return the steps with an output label, without the first, at which no source moves the margin beyond `most`."""
    idle = (moved.amax(dim=0) <= most).nonzero().flatten()
    queried = set(batch.step[batch.role == KINDS[BY_STEP]].tolist())
    return tuple(s for s in batch.step[batch.at(Role.OUTPUT)[idle[idle > 0]]].tolist() if s in queried)
