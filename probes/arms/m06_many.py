"""M6, discovery among many heads: those that carry nothing are joined in the order of a first-order estimate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import probability
from interp.patching.attention_changes import AttentionChange
from interp.patching.knockouts import Head
from interp.tasks import Batch, Role
from probes.arms.first_order import moved_by_head
from probes.arms.group_search import DECIDING, MOST_ALONE, Harms, joined_in_order
from probes.arms.idle_heads import DIGITS, HARMLESS, LABELS, Unit, sides_of
from probes.arms.presence_interchanges import Interchanges, Moved, grafted, measure_changed
from probes.arms.presence_removals import averaged_values, counted
from probes.arms.presence_sharing import ChangeOf, ChangesBy

# Seed of the signs of the first-order estimate.
SIGNS_SEED = 0
# Name of the change of keys, which are those of labels, in the first-order estimates.
KEYS = "keys"
SOURCES = {"labels": LABELS, "digits": DIGITS}


class ManyHeads:
    """The searches for heads of a large model that carry nothing from labels or digits, on one batch.

    They share runs, and one first-order estimate. `other`: different prompts of the same layout, whose keys at labels
    must do no harm either; None leaves keys as they are. `src` below: `LABELS`, or `DIGITS`.
    """

    def __init__(self, model: PreTrainedModel, batch: Batch, other: Batch | None = None) -> None:
        score = probability(batch, among_answers=True)
        self.work = Interchanges(model, batch, SIGNS_SEED, score, (batch if other is None else other,), DECIDING)
        self.swaps_keys = other is not None
        self.queries = torch.zeros(2, batch.n_pos, dtype=torch.bool)
        for side, positions in enumerate(sides_of(batch)):
            self.queries[side, list(positions)] = True
        self.above = max(float(self.work.clean.mean()) - 1 / len(batch.format.outputs), 1e-3)

    def idle(self, units: Sequence[Unit], src: tuple[Role, ...] = LABELS) -> list[Unit]:
        """Return the heads that carry nothing from `src`.

        Jointly, their values there can be replaced by the mean, and then, at labels, their keys by another prompt's for
        all queries of a head, without harm.
        """
        by_values, means = self.moved["mean", src], self.means(src)
        ordered = sorted(units, key=lambda unit: float(by_values[unit[0]][unit[1]]))
        found = joined_in_order(ordered, self._harms(lambda some: self.is_harmful(some, means)))
        if not self.swaps_keys or src != LABELS:
            return found
        by_head = self.moved[KEYS, LABELS].sum(dim=0)
        heads = sorted({head for _, head in found}, key=lambda head: (float(by_head[head]), head))
        kept = joined_in_order(heads, self._harms(lambda some: self.is_harmful(both_sides(some), self.keys)))
        return [(side, head) for side, head in found if head in kept]

    def most_needing(self, units: Sequence[Unit], src: tuple[Role, ...] = LABELS) -> list[Unit]:
        """Return the `MOST_ALONE` heads whose removal of `src` moves margins most to first order, in their order."""
        moved = self.moved["removal", src]
        most = sorted(units, key=lambda unit: -float(moved[unit[0]][unit[1]]))[:MOST_ALONE]
        return [unit for unit in units if unit in most]

    def lost(self, units: Sequence[Unit], change_of: ChangeOf) -> float:
        """Return what a change in heads loses, as a share of the answer's probability above chance."""
        return float(torch.cat([part.lost for part in self._parts(units, change_of)]).mean()) / self.above

    def is_harmful(self, units: Sequence[Unit], change_of: ChangeOf) -> bool:
        """Return whether `lost` exceeds `HARMLESS`. No prompt runs after those that decide it."""
        most = HARMLESS * self.above * len(self.work.batch)
        lost, done = 0.0, 0
        for part in self._parts(units, change_of):
            lost, done = lost + float(part.lost.sum()), done + len(part.lost)
            # No probability exceeds one, so that the prompts that are left regain no more than they lack.
            if lost - float((1 - self.work.clean[done:]).sum()) > 1.001 * most:
                return True
        return lost > most

    @cached_property
    def moved(self) -> dict[tuple[str, tuple[Role, ...]], Float[Tensor, "side layer head"]]:
        """How far each change in each head moves margins to first order, in logits, by change and `src`."""
        changes = {("mean", src): self.means(src) for src in SOURCES.values()}
        changes |= {("removal", src): self.removal(src) for src in SOURCES.values()}
        changes |= {(KEYS, LABELS): self.keys} if self.swaps_keys else {}
        found = moved_by_head(self.work, list(changes.values()), self.queries, SIGNS_SEED)
        return dict(zip(changes, found, strict=True))

    def means(self, src: tuple[Role, ...] = LABELS) -> ChangeOf:
        """Return the change in which the attention on `src` reads the mean value."""
        return averaged_values(self.work, self._at(src))

    def removal(self, src: tuple[Role, ...] = LABELS) -> ChangeOf:
        """Return the change in which other keys share the attention on `src`."""
        return counted(self._at(src), -torch.inf)

    def keys(self, layer: int, mask: Tensor, rows: Tensor) -> AttentionChange:
        """Return the change in which keys at labels are the other prompts'."""
        return replace(grafted(self.work, 0, self._at(LABELS))(layer, mask, rows), values=None)

    def _at(self, src: tuple[Role, ...]) -> Bool[Tensor, " pos"]:
        return torch.isin(self.work.batch.role, torch.tensor(src))

    def _parts(self, units: Sequence[Unit], change_of: ChangeOf) -> Iterator[Moved]:
        """Yield what a change in heads changes, for some of the prompts after others."""
        masks = dict[int, Bool[Tensor, "head dest"]]()
        for side, (layer, head) in units:
            mask = masks.setdefault(layer, torch.zeros(self.work.anatomy.n_heads, self.work.batch.n_pos).bool())
            mask[head] |= self.queries[side]
        yield from self.work.parts_moved(measure_changed(self.work, ChangesBy(masks, change_of)))

    def _harms(self, is_harmful: Callable[[Sequence], bool]) -> Harms:
        return lambda groups: [inf if is_harmful(some) else 0.0 for some in groups]


def both_sides(heads: Iterable[Head]) -> list[Unit]:
    """Return heads as they attend on either side."""
    return [(side, head) for head in heads for side in (0, 1)]
