"""Presence, interchange: keys and values at labels from another prompt, in some cells.

Several interventions run on some prompts before the next ones, so that they share runs (`probes.arms.presence_runs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.arguments import exclusive
from interp.models.anatomy import anatomy_of
from interp.models.resolve import raw_of
from interp.patching import Metric
from interp.patching.attention_changes import AttentionChange
from interp.patching.changes import Changes, State
from interp.patching.metric import precise
from interp.patching.patched_runs import final_patched
from interp.support.finite import require_finite
from interp.tasks import Batch, Role
from probes.arms.presence_cells import BY_STEP, KINDS, Cell, Cells
from probes.arms.presence_metrics import leads_of
from probes.arms.presence_runs import KeptRuns
from probes.arms.presence_sharing import ChangeOf, ChangesBy, ChangesOf, begun_alike
from probes.arms.presence_sources import sources_by_cell


@dataclass(frozen=True, eq=False)
class Moved:
    """What an intervention changes, per prompt: `lost` (of a score of the answers) and mean |change of the margin|."""

    lost: Float[Tensor, " prompt"]
    margin: Float[Tensor, " prompt"]


class Interchanges(KeptRuns):
    """Interchanges of keys and values at labels in some cells, on one batch. `score` is what `Moved.lost` is lost of.

    `clean` `[prompt]` is the score without intervention, `lead` `[prompt step]` the margin. `sources`: the prompts that
    keys and values come from; None is those of `sources_by_cell`. `first`: as in `KeptRuns`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batch: Batch,
        seed: int,
        score: Metric,
        sources: Sequence[Batch] | None = None,
        first: int | None = None,
    ) -> None:
        super().__init__(anatomy_of(raw_of(model)), batch, score, sources or sources_by_cell(batch, seed), first)
        at, symbols = batch.at(Role.OUTPUT) - 1, batch.vocabulary.tokens(batch.format.outputs)
        self.scored, self.answered = (torch.searchsorted(self.reads, x) for x in (score.positions, at))
        self.symbols = symbols if score.tokens is None else torch.searchsorted(score.tokens, symbols)
        self.clean, self.lead = (torch.cat(parts) for parts in zip(*measure_edited(self, Cells(())), strict=True))

    def parts_of_effect(self, cells: Cells, k: int) -> Iterator[Moved]:
        """Yield what source number `k` changes, for some of the prompts after others."""
        return self.parts_moved(_interchanged(self, cells, k))

    def parts_moved(self, measured: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Moved]:
        """Yield what an intervention changes, from what `measure_changed` yields."""
        done = 0
        for score, lead in measured:
            rows = slice(done, done := done + len(score))
            yield Moved(self.clean[rows] - score, (lead - self.lead[rows]).abs().double().mean(dim=1))

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
        masks = masks_of_cells(self, cells)
        sources = {str(k): ChangesBy(masks, grafted(self, k, self.labels)) for k in range(len(self.sources))}
        return [joined(self.parts_moved([found])) for found in measure_all(self, sources).values()]


def measure_edited(
    work: Interchanges, cells: Cells, change_of: ChangeOf | None = None
) -> Iterator[tuple[Float[Tensor, " row"], Float[Tensor, "row step"]]]:
    """Yield the score, in float64, and the margins, with the change of each layer that has a cell.

    The prompts come in order, some at a time.
    """
    masks = masks_of_cells(work, cells)
    assert change_of is not None or not masks, "cells have a change"
    yield from measure_changed(work, (lambda _: {}) if change_of is None else ChangesBy(masks, change_of))


def measure_changed(
    work: Interchanges, changes_of: ChangesOf
) -> Iterator[tuple[Float[Tensor, " row"], Float[Tensor, "row step"]]]:
    """Yield the same as `measure_edited`, with the changes by layer of the rows of prompts that are run."""
    for rows in work.chunks():
        yield _measure_rows(work.anatomy.raw, work, rows, changes_of)


def measure_all(
    work: Interchanges, changes: Mapping[str, ChangesOf]
) -> dict[str, tuple[Float[Tensor, " prompt"], Float[Tensor, "prompt step"]]]:
    """Return the score and the margins of several interventions, by name.

    All of them run on some prompts before the next ones, whose runs they share. Those that begin alike share the layers
    in which they are.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in changes}
    alike = begun_alike(changes, len(work.anatomy.blocks))
    for rows in work.chunks():
        states: dict[str, dict[int, State | None]] = {name: {} for name in changes}
        for other, layer in alike.values():
            states[other][layer] = None
        for name, changes_of in changes.items():
            other, layer = alike.get(name, ("", 0))
            begun = states[other][layer] if layer else None
            found[name].append(_measure_rows(work.anatomy.raw, work, rows, changes_of, begun, states[name]))
    scores, leads = ({name: torch.cat([x[k] for x in parts]) for name, parts in found.items()} for k in (0, 1))
    return {name: (scores[name], leads[name]) for name in found}


@exclusive
@torch.no_grad()
def _measure_rows(
    model: PreTrainedModel,
    work: Interchanges,
    rows: Int[Tensor, " row"],
    changes_of: ChangesOf,
    begun: State | None = None,
    states: dict[int, State | None] | None = None,
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row step"]]:
    """Return the score and the margins of some prompts; `begun` and `states` are those of `final_patched`."""
    del model  # locked
    anatomy, run = work.anatomy, work.unpatched(rows)
    final, attention = run.final, changes_of(rows)
    # Cells whose queries come before every label change nothing.
    queries = {layer: at for layer, change in attention.items() if len(at := change.queries(anatomy.causal))}
    if queries:
        start, first = min(queries), min(int(at[0]) for at in queries.values()) if anatomy.causal else 0
        attention = {layer: attention[layer] for layer in queries}
        changes = Changes(start, first, {}, attention=attention, dest=queries[start].to(anatomy.device))
        final = final_patched(anatomy, run, changes, run.reads, begun, states)
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


def masks_of_cells(work: Interchanges, cells: Cells) -> dict[int, Bool[Tensor, "head dest"]]:
    """Return by layer the heads and queries of some cells."""
    anatomy, batch, masks = work.anatomy, work.batch, dict[int, Tensor]()
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
