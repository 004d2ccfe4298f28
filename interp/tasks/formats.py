"""Which ways of writing a task down are there, and what may each contain?"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from interp.tasks.limits import check_whole, shown

PARITY = ("direct", "scratchpad", "interleaved", "aligned", "nonaligned", "numeric", "constant", "cyclic")
ADDITION = ("none", "aligned", "zeropad", "nonaligned")
# Not the paper's: rehearsal of addressing itself, our stand-in for pretraining (science 4).
RECALL = ("ordered", "shuffled")
RECALL_START = "???"
RECALL_VALUES = tuple("cdefghijklmnopqr")
# Ours: the paper's cycle period is not recoverable.
DEFAULT_PERIOD = 8
FILLER = "_"
NAMES = {"parity": PARITY, "addition": ADDITION, "recall": RECALL}
# Largest N of `gapN` and `cyclicN`.
MOST_NUMBERED = 9999
# Of a longer name no near one is looked for: that takes time by the square.
LONGEST_NAME = 80


@dataclass(frozen=True)
class Format:
    """A task and its layout, as in Ebrahimi et al. (COLM 2024), section 4.

    `gap` is the number of filler tokens between a label and its bit, `period` the length of the
    fixed array that cyclic labels repeat; both are 0 for the formats that have none.
    """

    task: str
    name: str
    gap: int = 0
    period: int = 0

    def __post_init__(self) -> None:
        known = {**NAMES, "parity": (*PARITY, "gap")}
        if (self.task, self.name) not in [(task, name) for task, names in known.items() for name in names]:
            raise ValueError(f"unknown task or name, {shown(self.task)} and {shown(self.name)}; use parse_format")
        check_whole(self.gap, "gap", 0, MOST_NUMBERED)
        check_whole(self.period, "period", 0, MOST_NUMBERED)
        if (self.gap > 0) != (self.name == "gap") or (self.period > 0) != (self.name == "cyclic"):
            raise ValueError(f"{self.task}-{self.name} with gap {self.gap} and period {self.period}; use parse_format")

    def __str__(self) -> str:
        suffix = {"gap": self.gap, "cyclic": self.period if self.period != DEFAULT_PERIOD else ""}
        return f"{self.task}-{self.name}{suffix.get(self.name, '')}"

    @property
    def labels(self) -> str:
        """Where labels come from: "pool" (random for each prompt), "fixed" (the same in each), "" (none)."""
        match self.name:
            case "aligned" | "nonaligned" | "gap" | "zeropad" | "ordered" | "shuffled":
                return "pool"
            case "numeric" | "constant" | "cyclic":
                return "fixed"
            case _:
                return ""

    @property
    def model_can_write_labels(self) -> bool:
        """False where nothing in the context determines the output labels: they are drawn at random."""
        return str(self) not in ("parity-nonaligned", "recall-shuffled")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Symbols of the input digits, by value."""
        if self.task == "addition":
            return tuple("0123456789")
        if self.task == "recall":
            return RECALL_VALUES
        return ("a", "b") if self.name == "numeric" else ("0", "1")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Symbols of the output digits, by value."""
        return ("[0]", "[1]") if self.name == "interleaved" else self.inputs

    @property
    def structure(self) -> tuple[str, ...]:
        """Every fixed symbol that is neither a digit nor a label."""
        match self.task, self.name:
            case "addition", _:
                return (">>>", "+", "===", "###")
            case "recall", _:
                return (RECALL_START, "===")
            case _, "interleaved":
                return (">>>",)
            case _:
                return (">>>", "===") + ((FILLER,) if self.gap else ())

    def fixed_labels(self, length: int) -> tuple[str, ...]:
        """Labels of steps 1 to `length` where they are the same in every prompt."""
        match self.name:
            case "numeric":
                return tuple(str(i + 1) for i in range(length))
            case "constant":
                return ("#",) * length
            case "cyclic":
                return tuple(f"c{i % self.period + 1}" for i in range(length))
            case _:
                return ()

    def labels_needed(self, length: int | tuple[int, int]) -> int:
        """How many different pool labels one prompt takes."""
        if self.labels != "pool":
            return 0
        if isinstance(length, tuple):
            return sum(length) if self.name == "nonaligned" else max(length) + 1
        if self.task == "addition":
            return self.labels_needed((length, length))
        return 2 * length if self.name == "nonaligned" else length


def known_formats() -> tuple[str, ...]:
    """Every format by name; `gapN` and `cyclicN` take any N from 1."""
    gaps = tuple(f"parity-gap{g}" for g in (1, 2, 4, 8))
    return (
        tuple(f"parity-{f}" for f in PARITY)
        + gaps
        + tuple(f"addition-{f}" for f in ADDITION)
        + tuple(f"recall-{f}" for f in RECALL)
    )


def parse_format(name: str | Format) -> Format:
    """A `Format` from its name.

    >>> parse_format("parity-gap4")
    Format(task='parity', name='gap', gap=4, period=0)
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise ValueError(f"a format is a name, such as parity-aligned; got {shown(name)}")
    task, _, rest = name.partition("-")
    numbered = re.fullmatch(r"(gap|cyclic)([1-9][0-9]{0,3})", rest)
    if task == "parity" and numbered:
        kind, number = numbered[1], int(numbered[2])
        return Format(task, kind, **{"gap" if kind == "gap" else "period": number})
    if task == "parity" and rest == "cyclic":
        return Format(task, rest, period=DEFAULT_PERIOD)
    if rest in NAMES.get(task, ()):
        return Format(task, rest)
    near = difflib.get_close_matches(name[:LONGEST_NAME], known_formats(), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"unknown format {shown(name)}{hint}; formats are {', '.join(known_formats())}")
