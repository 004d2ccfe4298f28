"""Presence, sharing: interventions that make the same changes in their first layers compute these layers once.

All cells, and all cells but those of a band of layers, are the same intervention before this band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.patching.attention_changes import AttentionChange

# Returns the change of a layer's attention, from its mask `[head dest]` of cells and the rows of prompts that are run.
ChangeOf = Callable[[int, Tensor, Tensor], AttentionChange]
# Returns the changes by layer, from the rows of prompts that are run.
ChangesOf = Callable[[Tensor], Mapping[int, AttentionChange]]


@dataclass(frozen=True, eq=False)
class ChangesBy:
    """A change made in the cells of `masks`, by layer: a `ChangesOf`."""

    masks: Mapping[int, Bool[Tensor, "head dest"]]
    change_of: ChangeOf

    def __call__(self, rows: Tensor) -> Mapping[int, AttentionChange]:
        return {layer: self.change_of(layer, mask, rows) for layer, mask in self.masks.items()}


def begun_alike(changes: Mapping[str, ChangesOf], n_layers: int) -> dict[str, tuple[str, int]]:
    """Return, of interventions in their order, which earlier one begins most alike, and the first layer that differs.

    Those without such an earlier one are left out. Changes are alike where one function makes them in the same cells.
    """
    found, earlier = dict[str, tuple[str, int]](), list[tuple[str, ChangesBy]]()
    for name, own in changes.items():
        if not isinstance(own, ChangesBy):
            continue
        layers = [(other, _first_unlike(own, made, n_layers)) for other, made in earlier]
        best = max(layers, key=lambda pair: pair[1], default=("", 0))
        if best[1]:
            found[name] = best
        earlier.append((name, own))
    return found


def _first_unlike(one: ChangesBy, other: ChangesBy, n_layers: int) -> int:
    """Return the first layer at which two interventions differ, at most the last; 0 where nothing is changed before."""
    if one.change_of is not other.change_of:
        return 0
    for layer in range(n_layers - 1):
        a, b = one.masks.get(layer), other.masks.get(layer)
        if a is not b and (a is None or b is None or not torch.equal(a, b)):
            return layer if min(one.masks) < layer else 0
    return n_layers - 1 if one.masks and min(one.masks) < n_layers - 1 else 0
