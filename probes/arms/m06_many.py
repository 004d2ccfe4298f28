"""M6, discovery among many heads: those that carry nothing are joined in the order of a first-order estimate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import probability
from interp.patching.attention_changes import AttentionChange
from interp.patching.knockouts import Head
from interp.tasks import Batch, Role
from probes.arms.first_order import moved_by_head
from probes.arms.group_search import MOST_ALONE, Harms, joined_in_order
from probes.arms.idle_heads import HARMLESS, LABELS, Unit, sides_of
from probes.arms.presence_interchanges import ChangeOf, Interchanges, changes_by, grafted, joined, measure_changed
from probes.arms.presence_removals import averaged_values, counted

# Seed of the signs of the first-order estimate.
SIGNS_SEED = 0


class ManyHeads:
    """The search for heads of a large model that carry nothing from `src`, on one batch, with runs that are kept.

    `other`: different prompts of the same layout, whose keys at labels must do no harm; None leaves keys as they are.
    """

    def __init__(self, model: PreTrainedModel, batch: Batch, src: tuple[Role, ...], other: Batch | None = None) -> None:
        score = probability(batch, among_answers=True)
        self.work = Interchanges(model, batch, SIGNS_SEED, score, (batch if other is None else other,))
        self.src, self.swaps_keys = src, other is not None
        self.at = torch.isin(batch.role, torch.tensor(src))
        self.queries = torch.zeros(2, batch.n_pos, dtype=torch.bool)
        for side, positions in enumerate(sides_of(batch)):
            self.queries[side, list(positions)] = True
        self.above = max(float(self.work.clean.mean()) - 1 / len(batch.format.outputs), 1e-3)

    def idle(self, units: Sequence[Unit]) -> list[Unit]:
        """Return the heads that carry nothing from `src`.

        Jointly, their values there can be replaced by the mean, and then their keys by another prompt's for all
        queries of a head, without harm.
        """
        assert not self.swaps_keys or self.src == LABELS, "keys are those of labels"
        means = averaged_values(self.work, self.at)
        by_values, *by_keys = self.moved(means, *([self.keys] if self.swaps_keys else []))
        ordered = sorted(units, key=lambda unit: float(by_values[unit[0]][unit[1]]))
        found = joined_in_order(ordered, self._harms(lambda some: self.lost(some, means)))
        if not self.swaps_keys:
            return found
        by_head = by_keys[0].sum(dim=0)
        heads = sorted({head for _, head in found}, key=lambda head: (float(by_head[head]), head))
        kept = joined_in_order(heads, self._harms(lambda some: self.lost(both_sides(some), self.keys)))
        return [(side, head) for side, head in found if head in kept]

    def most_needing(self, units: Sequence[Unit]) -> list[Unit]:
        """Return the `MOST_ALONE` heads whose removal of `src` moves margins most to first order, in their order."""
        moved = self.moved(self.removal())[0]
        most = sorted(units, key=lambda unit: -float(moved[unit[0]][unit[1]]))[:MOST_ALONE]
        return [unit for unit in units if unit in most]

    def lost(self, units: Sequence[Unit], change_of: ChangeOf) -> float:
        """Return what a change in heads loses, as a share of the answer's probability above chance."""
        masks = dict[int, Bool[Tensor, "head dest"]]()
        for side, (layer, head) in units:
            mask = masks.setdefault(layer, torch.zeros(self.work.anatomy.n_heads, len(self.at), dtype=torch.bool))
            mask[head] |= self.queries[side]
        measured = measure_changed(self.work, changes_by(masks, change_of))
        return float(joined(self.work.parts_moved(measured)).lost.mean()) / self.above

    def moved(self, *changes: ChangeOf) -> Float[Tensor, "change side layer head"]:
        """Return how far each change in each head moves margins to first order, in logits."""
        return moved_by_head(self.work, changes, self.queries, SIGNS_SEED)

    def removal(self) -> ChangeOf:
        """Return the change in which other keys share the attention on `src`; it serves one set of heads."""
        return counted(self.at, -torch.inf)

    def keys(self, layer: int, mask: Tensor, rows: Tensor) -> AttentionChange:
        """Return the change in which keys at labels are the other prompts'."""
        return replace(grafted(self.work, 0, self.at)(layer, mask, rows), values=None)

    def _harms(self, lost: Callable[[Sequence], float]) -> Harms:
        return lambda groups: [lost(some) / HARMLESS for some in groups]


def both_sides(heads: Iterable[Head]) -> list[Unit]:
    """Return heads as they attend on either side."""
    return [(side, head) for head in heads for side in (0, 1)]
