"""Presence, cells: one head and one kind of query, such as output labels or written answers.

One head can match labels for one kind of query and only rest on them for another (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interp.patching import Knockout
from interp.patching.knockouts import Head, Mode
from interp.places import At
from interp.tasks import Role
from probes.arms.idle_heads import LABELS

# The queries of one kind. Other positions come before every label, or are not read.
KINDS: Mapping[str, Role] = {
    "input labels": Role.INPUT_LABEL,
    "inputs": Role.INPUT,
    "fillers": Role.FILLER,
    "separators": Role.SEPARATOR,
    "output labels": Role.OUTPUT_LABEL,
    "answers": Role.OUTPUT,
}
# The queries of this kind serve the answer of their own step, teacher forced, so that one run shows all steps.
BY_STEP = "output labels"

Cell = tuple[str, Head]


@dataclass(frozen=True)
class Cells:
    """Cells (kind of query, head) in which labels carry nothing. `parts`: those that carry nothing at some steps only.

    A head can match labels at some steps and only rest on them at others.
    """

    members: tuple[Cell, ...] = ()
    parts: tuple[tuple[Cell, tuple[int, ...]], ...] = ()

    def heads(self, kind: str) -> tuple[Head, ...]:
        """Return the heads of one kind of query, those with all its steps."""
        return tuple(head for k, head in self.members if k == kind)

    def of_kind(self, kind: str) -> Cells:
        """Return the cells of one kind of query."""
        return Cells(
            tuple(cell for cell in self.members if cell[0] == kind), tuple(p for p in self.parts if p[0][0] == kind)
        )

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of query that have a cell."""
        return tuple(kind for kind in KINDS if self.of_kind(kind) != Cells())

    def knockouts(self, mode: Mode, src: At = LABELS, kinds: Sequence[str] | None = None) -> tuple[Knockout, ...]:
        """Return the removal of `src` from the cells, of some kinds of query or all."""
        found = list[Knockout]()
        for kind in self.kinds() if kinds is None else kinds:
            if heads := self.heads(kind):
                found.append(Knockout(src, KINDS[kind], heads=heads, mode=mode))
            for (_, head), steps in self.of_kind(kind).parts:
                dest = tuple((KINDS[kind], step) for step in steps)
                found.append(Knockout(src, dest, heads=(head,), mode=mode))
        return tuple(found)
