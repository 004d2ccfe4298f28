"""Presence, discovery: find the cells in which label positions carry neither identity nor content.

Interchange decides, because a backup hides a carrier from ablation: keys and values at labels come from a prompt with
other bits in which the labels are reassigned on each side by itself, and from an unrelated prompt with other labels
(probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from interp.patching.metrics import probability
from interp.tasks import Batch
from probes.arms.first_order import moved_by_head
from probes.arms.group_search import DECIDING, FEWER_PROMPTS, MANY_UNITS, Harms, joined_in_order, largest_harmless
from probes.arms.idle_heads import HARMLESS, all_heads
from probes.arms.presence_attention import attention_on_labels
from probes.arms.presence_cells import BY_STEP, KINDS, Cell, Cells
from probes.arms.presence_interchanges import Interchanges, grafted

# The largest mean |change of the margin|, as a share of it, at which cells count as carrying nothing. Unrelated prompts
# also change the average over labels, which a head that rests on them reads, so they may move twice as much.
STILL, STILL_UNRELATED = 0.05, 0.10
# Cells of many heads that are tried step by step.
MOST_PARTS = 12


def all_cells(model: PreTrainedModel, batch: Batch) -> list[Cell]:
    """Return every cell: each kind of query that prompts have, and each head."""
    return [(kind, head) for kind, role in KINDS.items() if (batch.role == role).any() for head in all_heads(model)]


def find_cells(model: PreTrainedModel, batch: Batch, seed: int) -> Cells:
    """Find the cells that carry nothing from labels, alone and jointly, on prompts that nothing else uses.

    Groups of cells are split until an interchange in the whole group does no harm: it loses at most `HARMLESS` of the
    answer's probability above chance, and moves margins by at most `STILL` of their size (`STILL_UNRELATED` where the
    source is unrelated). Groups are then joined, the least harmful first; cells that do harm beside the others are left
    out. Of what the related sources leave, unrelated ones leave out more in the same way. With more than `MANY_UNITS`
    heads, cells are joined in the order of a first-order estimate instead, in at most `MOST_TESTS` tests.

    Of the cells that are left out, output labels are added at the steps at which the cell moves no margin; never the
    first, whose state is the same in all prompts, so that an interchange cannot show that it is read. Of many heads,
    the `MOST_PARTS` are tried that attend most to labels there.
    """
    units, many = all_cells(model, batch), len(all_heads(model)) > MANY_UNITS
    if many:
        batch = batch.rows(slice(FEWER_PROMPTS))
    score = probability(batch, among_answers=True)
    interchanged = Interchanges(model, batch, seed, score, first=DECIDING if many else None)
    chance = 1 / len(batch.format.outputs)
    above = max(float(interchanged.clean.mean()) - chance, 1e-3)
    size = max(float(interchanged.lead.abs().mean()), 1e-6)
    *related, unrelated = range(len(interchanged.sources))
    allowed = [size * (STILL_UNRELATED if k == unrelated else STILL) for k in (*related, unrelated)]

    def harm(cells: Cells, sources: Sequence[int]) -> float:
        """Return the largest harm by some sources, in units of what is allowed."""
        worst = 0.0
        for k in sources:
            lost = moved = 0.0
            for m in interchanged.parts_of_effect(cells, k):
                lost, moved = lost + float(m.lost.sum()), moved + float(m.margin.sum())
                if moved > 1.001 * allowed[k] * len(batch):
                    break  # every prompt adds to what margins move, so the rest cannot undo this harm
            worst = max(worst, lost / len(batch) / above / HARMLESS, moved / len(batch) / allowed[k])
            if worst > 1:
                break  # one source that does harm is enough
        return worst

    def harms_by(sources: Sequence[int]) -> Harms[Cell]:
        return lambda groups: [harm(Cells(tuple(group)), sources) for group in groups]

    if many:
        ordered = in_first_order(interchanged, units, allowed, seed)
        harmless = joined_in_order(ordered, harms_by((unrelated, *related)))
    else:
        by_related = sorted(largest_harmless(units, harms_by(related)))
        harmless = largest_harmless(by_related, harms_by((unrelated,)))
    found = Cells(tuple(sorted(harmless)))
    rest = [cell for cell in units if cell[0] == BY_STEP and cell not in found.members]
    for cell in _attending(interchanged, rest) if many else rest:
        steps = interchanged.idle_steps(cell, allowed)
        more = Cells(found.members, (*found.parts, (cell, steps)))
        if steps and harm(more, (unrelated, *related)) <= 1:
            found = more
    return found


def in_first_order(work: Interchanges, units: Sequence[Cell], allowed: Sequence[float], seed: int) -> list[Cell]:
    """Return cells by how far an interchange in each moves margins to first order, the least first.

    `allowed`: what each source may move. The source counts that moves most of it.
    """
    kinds = list(dict.fromkeys(kind for kind, _ in units))
    queries = torch.stack([work.batch.role == KINDS[kind] for kind in kinds])
    changes = [grafted(work, k, work.labels) for k in range(len(work.sources))]
    moved = moved_by_head(work, changes, queries, seed) / torch.tensor(allowed).view(-1, 1, 1, 1)
    worst = dict(zip(kinds, moved.amax(dim=0), strict=True))
    return sorted(units, key=lambda cell: float(worst[cell[0]][cell[1]]))


def _attending(work: Interchanges, cells: Sequence[Cell]) -> list[Cell]:
    """Return the `MOST_PARTS` cells that attend most to labels, in their order."""
    attention = attention_on_labels(work.anatomy, work.batch)
    most = sorted(cells, key=lambda cell: -float(attention[cell[0]][cell[1]]))[:MOST_PARTS]
    return [cell for cell in cells if cell in most]
