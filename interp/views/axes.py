"""Axes of heat maps: a name per entry, and optional tokens, groups (roles) and steps."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from interp.tasks import Role

if TYPE_CHECKING:
    from interp.tasks import Prompts

ROLE_NAMES = tuple(role.words for role in Role)
# The most step numbers along a long axis.
MOST_STEPS = 9


@dataclass(frozen=True)
class Axis:
    """One side of a heat map. `names` are complete ("input label 3"); the other tuples have the same length or none.

    `tokens` are the tokens there ("M17"), `groups` the roles (drawn as a strip of colours), `steps` the bit or place
    that a position belongs to (-1 for none). Raises `ValueError` for tuples of different lengths.

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
        """(first, last + 1, name) of neighbours of one group. A label belongs to the group of what it labels."""
        sections, first = [], 0
        for name, entries in groupby(group.removesuffix(" label") for group in self.groups):
            last = first + len(list(entries))
            sections.append((first, last, name))
            first = last
        return sections

    @property
    def ticks(self) -> list[tuple[int, str]]:
        """(entry, step) where a step begins, for a round choice of steps. A long axis has them in place of names."""
        most = max(self.steps, default=0)
        every = next(n for k in range(9) for n in (10**k, 2 * 10**k, 5 * 10**k) if most <= MOST_STEPS * n)
        ticks: list[tuple[int, str]] = []
        for first, last, _ in self.sections:
            before = -1
            for k in range(first, last):
                step = self.steps[k] if self.steps else -1
                if step > 0 and step != before and (step % every == 0):
                    ticks.append((k, str(step)))
                before = step
        return ticks

    def text(self, k: int) -> str:
        """Return an entry's name with its token."""
        return self.names[k] + (f" ({self.tokens[k]})" if self.tokens else "")

    def chosen(self, entries: Sequence[int]) -> Axis:
        """Return the axis of some entries."""

        def picked(values: tuple) -> tuple:
            return tuple(values[k] for k in entries) if values else ()

        return Axis(
            self.title,
            picked(self.names),
            tokens=picked(self.tokens),
            groups=picked(self.groups),
            steps=picked(self.steps),
        )

    def pooled(self, every: int) -> Axis:
        """Return the axis of a heat map whose neighbours are pooled in blocks of `every`."""
        if every == 1:
            return self
        firsts = range(0, len(self), every)
        names = tuple(f"{self.names[k]} to {self.names[min(k + every, len(self)) - 1]}" for k in firsts)
        return Axis(self.title, names, groups=self.groups[::every], steps=self.steps[::every])


def visible(token: str) -> str:
    """Return a token with line breaks and tabs written out.

    >>> visible("a\\nb")
    'a\\\\nb'
    """
    return token.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def positions(prompts: Prompts, row: int | None = None, title: str = "position") -> Axis:
    """Return the axis of prompts' positions; with `row`, the tokens of that prompt beside the names.

    Prompts with roles have groups and steps. Text prompts have token and position as names, "John (2)", as a token may
    occur several times.
    """
    names = tuple(prompts.name(pos) for pos in range(prompts.n_pos))
    if prompts.role is None:
        return token_axis(names if row is None else prompts.symbols(row), title)
    tokens = () if row is None else tuple(map(visible, prompts.symbols(row)))
    steps = () if prompts.step is None else tuple(prompts.step.tolist())
    return Axis(title, names, tokens, tuple(Role(role).words for role in prompts.role.tolist()), steps)


def token_axis(tokens: Sequence[str], title: str = "position") -> Axis:
    """Return the axis of a prompt that is given as token strings.

    >>> token_axis(["The", " cat"]).names
    ('The (0)', 'cat (1)')
    """
    return Axis(title, tuple(f"{visible(str(token)).strip()} ({pos})" for pos, token in enumerate(tokens)))


def axis_of_labels(labels: Sequence[object], title: str = "position") -> Axis:
    """Return the axis of a patch's position labels.

    "12: input label 3" gets group and step, "5: ' John'" becomes "John (5)", and other labels stay as they are.

    >>> axis_of_labels(["0: start", "1: input label 1"]).groups
    ('start', 'input label')
    """
    names = [re.sub(r"^\d+: ", "", str(label)) for label in labels]
    parts = [re.fullmatch(r"(\D+?)(?: (\d+))?", name) for name in names]
    if any(part is None or part[1] not in ROLE_NAMES for part in parts):
        return Axis(title, tuple(map(_named_first, labels)))
    pairs = [(part[1], int(part[2] or -1)) for part in parts if part]
    return Axis(title, tuple(names), groups=tuple(group for group, _ in pairs), steps=tuple(step for _, step in pairs))


def _named_first(label: object) -> str:
    """Return a position's label with its name or token first, "John (5)"; other labels as they are."""
    if (parts := re.fullmatch(r"(\d+): (.+)", str(label), re.DOTALL)) is None:
        return visible(str(label))
    position, name = parts.groups()
    if re.fullmatch(r"'.*'|\".*\"", name):
        with suppress(ValueError, SyntaxError):  # a name of the user's own that begins and ends with a quote
            name = ast.literal_eval(name)
    name = visible(name)
    return f"{name.lstrip(' ') or name} ({position})"
