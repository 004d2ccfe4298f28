"""A format, by name: a task and its layout."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from interp.tasks import format_table
from interp.tasks.format_table import FormatRow
from interp.tasks.limits import check_whole, shown

# Ours: the paper's cycle period is not recoverable.
DEFAULT_PERIOD = 8
# Largest N of `gapN` and `cyclicN`.
MOST_NUMBERED = 9999
# Longer names are not compared with known ones, which takes time that grows with the square of the length.
LONGEST_NAME = 80


@dataclass(frozen=True)
class Format:
    """A task and its layout: a row of the table, with the number of its name.

    `gap` is the number of filler tokens between a label and its bit, `period` the length of the
    fixed array that cyclic labels repeat; both are 0 for the formats that have none.
    """

    task: str
    name: str
    gap: int = 0
    period: int = 0

    def __post_init__(self) -> None:
        if (row := _find(self.task, self.name)) is None:
            raise ValueError(f"unknown task or name, {shown(self.task)} and {shown(self.name)}; use parse_format")
        check_whole(self.gap, "gap", 0, MOST_NUMBERED)
        check_whole(self.period, "period", 0, MOST_NUMBERED)
        if (self.gap > 0) != (row.number == "gap") or (self.period > 0) != (row.number == "period"):
            raise ValueError(f"{self.task}-{self.name} with gap {self.gap} and period {self.period}; use parse_format")

    def __str__(self) -> str:
        number = self.gap or (self.period if self.period != DEFAULT_PERIOD else 0)
        return f"{self.task}-{self.name}{number or ''}"

    @property
    def row(self) -> FormatRow:
        """The row of the table of formats."""
        row = _find(self.task, self.name)
        assert row is not None
        return row

    @property
    def labels(self) -> str:
        """Where labels come from: "pool" (random for each prompt), "fixed" (the same in each), "" (none)."""
        return self.row.labels

    @property
    def address(self) -> int | None:
        """Which label addresses step i: 0 for its own, -1 for that of the step before, None for none."""
        return self.row.address

    @property
    def model_can_write_labels(self) -> bool:
        """False if nothing in the context determines the output labels: they are drawn at random."""
        return self.row.model_writes_labels

    @property
    def inputs(self) -> tuple[str, ...]:
        """Symbols of the input values, by value."""
        return self.row.values

    @property
    def outputs(self) -> tuple[str, ...]:
        """Symbols of the output values, by value."""
        return self.row.outputs or self.row.values

    @property
    def structure(self) -> tuple[str, ...]:
        """Every fixed symbol that is neither a value nor a label; the start of the prompt is the first."""
        return self.row.structure

    @property
    def meaning(self) -> str:
        """One sentence on the format."""
        return self.row.meaning.format(n=self.gap)

    @property
    def title(self) -> str:
        """A few words on the format."""
        return self.row.title.format(n=self.gap)

    def fixed_labels(self, length: int) -> tuple[str, ...]:
        """Return the labels of steps 1 to `length` if they are the same in every prompt, else nothing."""
        label_of = self.row.label_of
        return () if label_of is None else tuple(label_of(step, self.period) for step in range(1, length + 1))

    def labels_needed(self, length: int | tuple[int, int]) -> int:
        """Return how many different pool labels one prompt takes."""
        if self.labels != "pool":
            return 0
        if self.task == "addition":
            pair = length if isinstance(length, tuple) else (length, length)
            return sum(pair) if self.row.separate else max(pair) + 1
        assert not isinstance(length, tuple)
        return 2 * length if self.row.separate else length


def _find(task: object, name: object) -> FormatRow | None:
    return next((row for row in format_table.TABLE if (row.task, row.name) == (task, name)), None)


def known_formats() -> tuple[str, ...]:
    """Return the name of every format; `gapN` and `cyclicN` take any N from 1."""
    return tuple(f"{row.task}-{row.name}{n or ''}" for row in format_table.TABLE for n in row.known_numbers)


def names_in_order(task: str | None = None) -> tuple[str, ...]:
    """Return format names without their task, such as "gap1", in the order of figures.

    >>> names_in_order("addition")
    ('aligned', 'nonaligned', 'zeropad', 'none')
    """
    rows = sorted((row for row in format_table.TABLE if task in (None, row.task)), key=lambda row: row.order)
    return tuple(dict.fromkeys(f"{row.name}{n or ''}" for row in rows for n in row.known_numbers))


def parse_format(name: str | Format) -> Format:
    """Return the `Format` of a name. Raises `ValueError` with the nearest names for an unknown one.

    >>> parse_format("parity-gap4")
    Format(task='parity', name='gap', gap=4, period=0)
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise ValueError(f"a format is a name, such as parity-aligned; got {shown(name)}")
    task, _, rest = name.partition("-")
    parts = re.fullmatch(r"([a-z]+)([1-9][0-9]{0,3})?", rest)
    row = _find(task, parts[1]) if parts else None
    if parts and row:
        default = DEFAULT_PERIOD if row.number == "period" else 0
        number = int(parts[2] or default)
        if bool(number) == bool(row.number):
            return Format(task, row.name, **({row.number: number} if row.number else {}))
    near = difflib.get_close_matches(name[:LONGEST_NAME], known_formats(), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"unknown format {shown(name)}{hint}; formats are {', '.join(known_formats())}")
