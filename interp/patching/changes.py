"""What a patched run changes, and what it has computed before a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.patching.attention_changes import AttentionChange
from interp.patching.editing import Place
from interp.sites import Site

# Positions of a value: all from one on, or some.
Where = slice | Int[Tensor, " pos"]
# Takes the value at some positions, the sites of this layer computed so far, and the positions; returns a new value.
WhereEdit = Callable[[Tensor, Mapping[Site, Tensor], Where], Tensor]


@dataclass(frozen=True, eq=False)
class Changes:
    """What a patched run changes: edits by place, and patterns `[row head dest src]` by layer that replace attention.

    `attention` has, by layer, changes that need no pattern; such a layer has no edits of `OF_PATTERN`. `start` and
    `first`: the first layer and position that can differ from the unpatched run. In the first layer `at` has the
    positions at which an edit changes resid_pre, and `dest` those at which the layer's output can differ, in rising
    order (None: all from `first` on).
    """

    start: int
    first: int
    edits: Mapping[Place, WhereEdit]
    patterns: Mapping[int, Callable[[Where], Tensor]] = field(default_factory=dict)
    attention: Mapping[int, AttentionChange] = field(default_factory=dict)
    at: Int[Tensor, " pos"] | None = None
    dest: Int[Tensor, " dest"] | None = None


@dataclass(frozen=True, eq=False)
class Moved:
    """The residual stream at the positions at which it may differ (None: all from the first on)."""

    at: Int[Tensor, " pos"] | None
    resid: Float[Tensor, "row pos d_model"]


@dataclass(frozen=True, eq=False)
class State:
    """What a patched run with some changes has before a layer."""

    changes: Changes
    layer: int
    moved: Moved

    def serves(self, changes: Changes) -> bool:
        """Return whether a run with other changes, equal in all layers before, computes the same positions there."""
        own, dest = self.changes, (self.changes.dest, changes.dest)
        alike = dest[0] is dest[1] or (dest[0] is not None and dest[1] is not None and torch.equal(dest[0], dest[1]))
        return alike and (own.start, own.first) == (changes.start, changes.first) and changes.start < self.layer
