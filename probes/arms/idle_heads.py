"""Idle heads: heads in which labels carry nothing, and what is removed from them.

`probes.arms.m06_heads` finds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from transformers import PreTrainedModel

from interp.patching import Knockout
from interp.patching.knockouts import Head, Mode
from interp.tasks import Batch, Role

# A head and the side on which it attends: 0 while the input is read, 1 from `===` on.
Unit = tuple[int, Head]
LABELS = (Role.INPUT_LABEL, Role.OUTPUT_LABEL)
DIGITS = (Role.INPUT, Role.OUTPUT)
# The largest loss, as a share of the answer's probability above chance, at which heads count as carrying nothing.
HARMLESS = 0.02


@dataclass(frozen=True)
class IdleHeads:
    """Heads in which the values of `src` may be replaced by their mean, as (layer, head) pairs per attending side.

    `input_side` attends while the input is read, `output_side` from `===` on. `renormalise_loss` is the share of the
    answer's probability above chance that is lost, in discovery, when other keys share the attention on `src`.
    """

    src: tuple[Role, ...]
    input_side: tuple[Head, ...]
    output_side: tuple[Head, ...]
    renormalise_loss: float = 0.0

    @classmethod
    def of(cls, src: tuple[Role, ...], units: Iterable[Unit]) -> IdleHeads:
        """Return some heads by attending side, in order."""
        some = tuple(units)
        inputs, outputs = (tuple(sorted(head for s, head in some if s == side)) for side in (0, 1))
        return cls(src, inputs, outputs)

    def units(self) -> list[Unit]:
        """Return the heads with the side on which they attend."""
        return [(side, head) for side, heads in enumerate((self.input_side, self.output_side)) for head in heads]

    def without(self, other: IdleHeads) -> IdleHeads:
        """Return these heads except the other's."""
        sides = zip((self.input_side, self.output_side), (other.input_side, other.output_side), strict=True)
        inputs, outputs = (tuple(h for h in own if h not in removed) for own, removed in sides)
        return IdleHeads(self.src, inputs, outputs)

    def knockouts(self, batch: Batch, mode: Mode) -> tuple[Knockout, ...]:
        """Return the removal of `src` from these heads; empty where there are none."""
        sides = zip(sides_of(batch), (self.input_side, self.output_side), strict=True)
        return tuple(removal(self.src, at, heads, mode) for at, heads in sides if heads)


def sides_of(batch: Batch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the positions before `===`, and those from it on. In addition `===` is the second separator of three."""
    separator = int(batch.at(Role.SEPARATOR)[1 if batch.format.task == "addition" else 0])
    return tuple(range(separator)), tuple(range(separator, batch.n_pos))


def all_heads(model: PreTrainedModel) -> tuple[Head, ...]:
    """Return every (layer, head) pair of a model."""
    config = model.config
    return tuple((i, j) for i in range(config.num_hidden_layers) for j in range(config.num_attention_heads))


def removal(src: tuple[Role, ...], at: tuple[int, ...], heads: Collection[Head], mode: Mode) -> Knockout:
    """Return the removal of `src` for queries at the positions `at`, in some heads."""
    return Knockout(src, at, heads=tuple(heads), mode=mode)
