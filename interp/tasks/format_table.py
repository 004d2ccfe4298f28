"""The table of formats: every way of writing a task down. All lists of formats derive from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

FILLER = "_"
RECALL_START = "???"
RECALL_VALUES = tuple("cdefghijklmnopqr")
DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class FormatRow:
    """One row of the table of formats.

    Attributes:
        task, name: together the format's name, such as "parity-aligned".
        meaning: one sentence, for reports.
        title: a few words, for tables and figures.
        order: place in figures and tables, across tasks; formats of one name share it.
        labels: "pool": random in each prompt; "fixed": the same in each prompt; "": none.
        consecutive: pool labels only: those of a prompt follow each other in the pool, from a random start.
        label_of: fixed labels only: the symbol of step i (from 1) for a period.
        address: which label in the context addresses step i when its answer is predicted: 0 for the step's own label,
            -1 for the label of the step before, None if no label does.
        model_writes_labels: False if nothing in the context determines the output labels.
        separate: parity: the output has labels of its own; addition: each operand has labels of its own.
        after: the label follows its bit instead of preceding it.
        layout: "sides": all inputs, then all outputs; "interleaved": each output after its input; "final": all inputs,
            then the last output only.
        padded: addition: the shorter operand is padded with zeros.
        shuffled: recall: labels are queried in random order.
        number: what N in a name such as gapN sets; known_numbers: those listed, with 0 for a name without N.
        values, outputs: symbols of the input values, and of the output values where these differ.
        structure: the other fixed symbols, in the order in which they first occur.
        in_grid: trained in the zoo (experiments/grid.py).
    """

    task: Literal["parity", "addition", "recall"]
    name: str
    meaning: str
    title: str
    order: int
    labels: Literal["", "pool", "fixed"] = ""
    consecutive: bool = False
    label_of: Callable[[int, int], str] | None = None
    address: int | None = None
    model_writes_labels: bool = True
    separate: bool = False
    after: bool = False
    layout: Literal["sides", "interleaved", "final"] = "sides"
    padded: bool = False
    shuffled: bool = False
    number: Literal["", "gap", "period"] = ""
    known_numbers: tuple[int, ...] = (0,)
    values: tuple[str, ...] = ("0", "1")
    outputs: tuple[str, ...] = ()
    structure: tuple[str, ...] = (">>>", "===")
    in_grid: bool = True


def _parity(name: str, order: int, title: str, meaning: str, **fields: Any) -> FormatRow:
    return FormatRow(task="parity", name=name, order=order, title=title, meaning=meaning, **fields)


def _addition(name: str, order: int, title: str, meaning: str, **fields: Any) -> FormatRow:
    structure = (">>>", "+", "===", "###")
    return FormatRow(
        task="addition",
        name=name,
        order=order,
        title=title,
        meaning=meaning,
        values=DIGITS,
        structure=structure,
        **fields,
    )


def _recall(name: str, order: int, title: str, meaning: str, **fields: Any) -> FormatRow:
    # Not the paper's: rehearsal of addressing itself, our stand-in for pretraining (probes/README.md, Recipes).
    structure = (RECALL_START, "===")
    return FormatRow(
        task="recall",
        name=name,
        order=order,
        title=title,
        meaning=meaning,
        labels="pool",
        address=0,
        values=RECALL_VALUES,
        structure=structure,
        in_grid=False,
        **fields,
    )


# Formats of Ebrahimi et al. (COLM 2024), section 4, and ours where a row says so.
TABLE: tuple[FormatRow, ...] = (
    _parity("direct", 9, "nothing, final parity only", "Only the final parity is written.", layout="final"),
    _parity("scratchpad", 7, "nothing", "The running parities are written one after the other, without labels."),
    _parity(
        "interleaved",
        8,
        "nothing, parities between bits",
        "Each running parity follows its bit.",
        layout="interleaved",
        outputs=("[0]", "[1]"),
        structure=(">>>",),
    ),
    _parity(
        "aligned",
        0,
        "a random label, repeated at its step",
        "A label precedes each bit, random in each prompt and without repeats; the same label precedes the parity "
        "of that step.",
        labels="pool",
        address=0,
    ),
    _parity(
        "nonaligned",
        5,
        "a random label that matches nothing",
        "Labels precede bits and parities, but those of the output match none of the input.",
        labels="pool",
        separate=True,
        model_writes_labels=False,
    ),
    _parity(
        "numeric",
        3,
        "1, 2, 3, ...",
        "The labels are 1, 2, 3, ... in every prompt.",
        labels="fixed",
        label_of=lambda step, period: str(step),
        address=0,
        values=("a", "b"),
    ),
    _parity(
        "constant",
        4,
        "the same token",
        "The same token # precedes each bit and each parity.",
        labels="fixed",
        label_of=lambda step, period: "#",
    ),
    _parity(
        "cyclic",
        6,
        "one of 8 labels in turn",
        "The labels come from one fixed array, which is repeated.",
        labels="fixed",
        label_of=lambda step, period: f"c{(step - 1) % period + 1}",
        address=0,
        number="period",
    ),
    _parity(
        "gap",
        1,
        "a random label, {n} tokens before its bit",
        "As aligned, with {n} filler tokens between a label and its bit.",
        labels="pool",
        address=0,
        number="gap",
        known_numbers=(1, 2, 4, 8),
        structure=(">>>", "===", FILLER),
    ),
    # Ours. At the answer of step i the last label seen is that of step i-1, which stands directly before bit i.
    _parity(
        "suffix",
        2,
        "nothing; a random label follows each bit",
        "A label follows each bit, random in each prompt and without repeats; the same label follows the parity of "
        "that step.",
        labels="pool",
        address=-1,
        after=True,
        in_grid=False,
    ),
    # Index hints (Y. Zhou et al., 2402.09371), written with our labels: aligned, but each label foretells the next one.
    _parity(
        "hints",
        14,
        "consecutive labels from a random start",
        "As aligned, with labels that follow each other in one fixed order, from a random start in each prompt.",
        labels="pool",
        consecutive=True,
        address=0,
        in_grid=False,
    ),
    _addition("none", 11, "no labels", "The digits are written without labels."),
    _addition(
        "aligned",
        0,
        "aligned",
        "A label precedes each digit, random in each prompt; digits of the same place have the same label.",
        labels="pool",
        address=0,
    ),
    _addition(
        "zeropad",
        10,
        "aligned, padded with zeros",
        "As aligned, with operands padded to equal length.",
        labels="pool",
        address=0,
        padded=True,
    ),
    _addition(
        "nonaligned",
        5,
        "own labels for each operand",
        "Each operand has labels of its own; the output cites both before each digit.",
        labels="pool",
        address=0,
        separate=True,
    ),
    _recall("ordered", 12, "pairs, queried in order", "Labels are queried in the order in which they were given."),
    _recall(
        "shuffled",
        13,
        "pairs, queried in random order",
        "Labels are queried in random order.",
        shuffled=True,
        model_writes_labels=False,
    ),
)
