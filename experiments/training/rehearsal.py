"""Conditions of rehearsal: what a model reads in training besides its task, and how a run's name says so.

A condition is written behind the family in a run's name: `parity-aligned-alibi+lookup20`. A name without one is the
usual rehearsal, lookup of up to 60 pairs. All conditions have values from the same letters, which parity does not use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import (
    Batch,
    Role,
    Vocabulary,
    check_length,
    default_vocabulary,
    parse_format,
    recall,
    sample,
    sequence_length,
)
from interp.tasks.formats import Format
from interp.tasks.layout import Column, assemble, constant, draw_without_repeats, generator, shuffled

# What is rehearsed, by name, in the words of reports; N is the longest list.
REHEARSED = {
    "none": "nothing",
    "lookup": "in-context recall of up to N pairs",
    "disjoint": "in-context recall of up to N pairs, with labels that parity never has",
    "own": "in-context recall of up to N pairs, with the format's own labels",
    "copying": "copying of up to N letters without labels",
}
# The condition of a recipe, or of a run's name, that names none.
USUAL = "lookup60"
ORDERED, SHUFFLED = "recall-ordered", "recall-shuffled"


@dataclass(frozen=True)
class Condition:
    """What is rehearsed, and the longest list; 0 for none.

    - `lookup`: `??? M17 c M4 h === M4 h M17 c`, labels of parity and held-out ones, in order or shuffled.
    - `disjoint`: the same with held-out labels only, which no prompt of parity has.
    - `own`: the same with the format's fixed labels (`??? 1 c 2 h === 2 h 1 c`); in order only where labels repeat.
    - `copying`: `??? c h === c h`, the same letters without labels. It can be solved by matching the letters before
      (induction) as well as by position.
    - `none`: all tokens of a step are the task's.
    """

    what: str
    longest: int

    def __str__(self) -> str:
        return self.what if self.what == "none" else f"{self.what}{self.longest}"


def parse_condition(name: str) -> Condition:
    """Return the condition of a name. Raises `ValueError` for an unknown one.

    >>> parse_condition("copying60")
    Condition(what='copying', longest=60)
    """
    match = re.fullmatch(r"([a-z]+?)([1-9]\d{0,3})?", name)
    if match and match[1] in REHEARSED and (match[1] == "none") == (match[2] is None):
        return Condition(match[1], int(match[2] or 0))
    known = ", ".join("none" if what == "none" else f"{what}N" for what in REHEARSED)
    raise ValueError(f"unknown condition of rehearsal {name!r}; conditions are {known}, N the longest list")


def rehearsed_text(recipe: Mapping[str, Any]) -> str:
    """Return in words what a run rehearsed, from the recipe in its record.

    >>> rehearsed_text({"rehearsal": 0.5, "rehearsal_longest": 60})
    'in-context recall of up to 60 pairs'
    """
    condition = recipe.get("condition")
    what = parse_condition(condition).what if condition else "lookup"
    return REHEARSED[what].replace("N", str(recipe["rehearsal_longest"]))


def check_condition(name: str, fmt: Format, share: float, longest: int) -> None:
    """Raise `ValueError` where a recipe's condition contradicts its other fields, or needs labels that a format lacks.

    `share` is that of rehearsal in each step's tokens, `longest` the longest rehearsed list.
    """
    condition = parse_condition(name)
    if (condition.what == "none") != (share == 0):
        raise ValueError(f"condition {name} with a share of rehearsal of {share}; leave one of them out")
    if share and condition.longest != longest:
        raise ValueError(f"condition {name} with lists of up to {longest}; leave one of them out")
    if condition.what == "own" and fmt.labels != "fixed":
        raise ValueError(f"{fmt} has no fixed labels to rehearse; use lookupN, or a format such as parity-numeric")
    vocabulary = default_vocabulary()
    if condition.what == "disjoint" and longest > (most := len(vocabulary.held_out)):
        raise ValueError(f"condition {name} needs {longest} different labels; {most} are never in parity")
    if condition.what == "own":
        check_length(fmt, longest, vocabulary)


def orders(name: str, fmt: Format) -> tuple[str, ...]:
    """Return the orders in which a condition's queries come: shuffled and ordered, or ordered only."""
    condition = parse_condition(name)
    if condition.what == "copying":
        return (ORDERED,)
    if condition.what == "own" and len(set(fmt.fixed_labels(condition.longest))) < condition.longest:
        return (ORDERED,)  # a repeated label asks for several values at once
    return (SHUFFLED, ORDERED)


def positions_of(name: str, order: str, n: int) -> int:
    """Return the number of tokens in a prompt of rehearsal with n values."""
    return 2 + 2 * n if parse_condition(name).what == "copying" else sequence_length(parse_format(order), n)


def rehearse(name: str, fmt: Format, order: str, size: int, n: int, seed: int, vocabulary: Vocabulary) -> Batch:
    """Return `size` prompts of rehearsal of n values, for a model trained on `fmt`.

    The same arguments give the same prompts. Raises `ValueError` for more values than there are labels.
    """
    what = parse_condition(name).what
    if what == "lookup":
        return sample(order, size, n, seed, vocabulary)
    row, gen = parse_format(order), generator(seed)
    values = torch.randint(len(row.inputs), (size, n), generator=gen)
    if what == "copying":
        return _without_labels(values, row, vocabulary)
    if what == "own":
        labels = vocabulary.tokens(fmt.fixed_labels(n)).expand(size, n)
    else:
        labels = draw_without_repeats(vocabulary.held_out_pool, size, n, gen)
    queried = shuffled(n, size, gen) if row.row.shuffled else torch.arange(n).expand(size, n)
    return recall.write(recall.RecallContent(values, labels, queried), row, vocabulary)


def _without_labels(values: Int[Tensor, "batch n"], row: Format, vocabulary: Vocabulary) -> Batch:
    """Return lists of values that are written twice. The batch's format is that of recall, without its labels."""
    size, n = values.shape
    tokens = vocabulary.tokens(row.inputs)[values]
    columns = [constant(vocabulary[row.structure[0]], size, Role.START)]
    columns += [Column(tokens[:, i], Role.INPUT, i + 1) for i in range(n)]
    columns += [constant(vocabulary["==="], size, Role.SEPARATOR)]
    columns += [Column(tokens[:, i], Role.OUTPUT, i + 1) for i in range(n)]
    return assemble(columns, row, n, vocabulary)
