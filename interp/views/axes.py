"""What stands along a side of a map: names, tokens, roles and steps, and how many are too many to write out?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from interp.tasks import Role

if TYPE_CHECKING:
    from interp.tasks import Batch

WORDS = tuple(role.words for role in Role)
# So many steps have a number on a long axis, at most.
MOST_STEPS = 9


@dataclass(frozen=True)
class Axis:
    """One side of a map. `names` are whole ("input label 3"); the other tuples are as long, or empty.

    `tokens` are what is read there ("M17"), `groups` the roles, drawn as a strip of colours, `steps` the bit or
    place that a position belongs to (-1 for none). Raises `ValueError` for tuples of different lengths.

    >>> axis = Axis("position", ("start", "input 1", "input 2"), groups=("start", "input", "input"), steps=(-1, 1, 2))
    >>> axis.sections
    [(0, 1, 'start'), (1, 3, 'input')]
    """

    title: str
    names: tuple[str, ...]
    tokens: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"the axis {self.title!r} has no entries")
        for name in ("tokens", "groups", "steps"):
            if len(getattr(self, name)) not in (0, len(self.names)):
                raise ValueError(f"{self.title}: {len(getattr(self, name))} {name} for {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sections(self) -> list[tuple[int, int, str]]:
        """(first, last + 1, name): neighbours of one kind, where a label and what it labels are of one kind."""
        found, first = [], 0
        for name, run in groupby(group.removesuffix(" label") for group in self.groups):
            last = first + len(list(run))
            found.append((first, last, name))
            first = last
        return found

    @property
    def ticks(self) -> list[tuple[int, str]]:
        """Where a step begins, for a round choice of steps: what a long axis has in place of names."""
        most = max(self.steps, default=0)
        every = next(n for k in range(9) for n in (10**k, 2 * 10**k, 5 * 10**k) if most <= MOST_STEPS * n)
        found: list[tuple[int, str]] = []
        for first, last, _ in self.sections:
            before = -1
            for k in range(first, last):
                step = self.steps[k] if self.steps else -1
                if step > 0 and step != before and (step % every == 0):
                    found.append((k, str(step)))
                before = step
        return found

    def said(self, k: int) -> str:
        """An entry in words, with its token."""
        return self.names[k] + (f" ({self.tokens[k]})" if self.tokens else "")

    def pooled(self, every: int) -> Axis:
        """The axis of a map whose neighbours were pooled."""
        if every == 1:
            return self
        firsts = range(0, len(self), every)
        names = tuple(f"{self.names[k]} to {self.names[min(k + every, len(self)) - 1]}" for k in firsts)
        return Axis(self.title, names, groups=self.groups[::every], steps=self.steps[::every])


def positions(batch: Batch, row: int | None = None, title: str = "position") -> Axis:
    """The positions of a batch; with `row`, the tokens of that prompt beside them."""
    return Axis(
        title,
        tuple(batch.name(p) for p in range(batch.n_pos)),
        () if row is None else tuple(batch.symbols(row)),
        tuple(Role(r).words for r in batch.role.tolist()),
        tuple(batch.step.tolist()),
    )


def axis_of_words(labels: Sequence[object], title: str = "position") -> Axis:
    """The axis of a patch's positions, from their words: "12: input label 3"; other words are names without a role.

    >>> axis_of_words(["0: start", "1: input label 1"]).groups
    ('start', 'input label')
    """
    names = [re.sub(r"^\d+: ", "", str(label)) for label in labels]
    parted = [re.fullmatch(r"(\D+?)(?: (\d+))?", name) for name in names]
    if any(part is None or part[1] not in WORDS for part in parted):
        return Axis(title, tuple(str(label) for label in labels))
    found = [(part[1], int(part[2] or -1)) for part in parted if part]
    return Axis(title, tuple(names), groups=tuple(g for g, _ in found), steps=tuple(s for _, s in found))
