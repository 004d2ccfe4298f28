"""Addition: one token per digit, the sum from the units up, then `###` and the sum forwards.

See probes/README.md, Paper and formats.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from interp.tasks.batch import Batch, Role
from interp.tasks.formats import Format
from interp.tasks.layout import Column, assemble, constant, draw_without_repeats
from interp.tasks.vocabulary import Vocabulary


@dataclass(frozen=True)
class AdditionContent:
    """What varies between prompts. Digits are units first: `first [batch n]`, `second [batch m]`.

    `labels` are token ids by place, units first: `[batch max(n, m) + 1]`, the last for the overflow digit.
    With separate labels (non-aligned) they are `[batch n + m]`: the first operand's n, then the second's m.
    """

    first: Int[Tensor, "batch n"]
    second: Int[Tensor, "batch m"]
    labels: Int[Tensor, "batch label"] | None = None

    @property
    def total(self) -> Int[Tensor, "batch places"]:
        """Digits of the sum, units first, with the overflow digit (0 or 1) last."""
        places = max(self.first.shape[1], self.second.shape[1])
        sums = sum(F.pad(d, (0, places - d.shape[1])) for d in (self.first, self.second))
        assert isinstance(sums, Tensor)
        digits, carry = [], torch.zeros_like(sums[:, 0])
        for place in range(places):
            column = sums[:, place] + carry
            digits.append(column % 10)
            carry = column // 10
        return torch.stack([*digits, carry], dim=1)


def write(content: AdditionContent, fmt: Format, vocabulary: Vocabulary) -> Batch:
    """Return the prompts with their correct outputs."""
    n, m = content.first.shape[1], content.second.shape[1]
    batch_size, places = len(content.first), max(n, m)
    digit = vocabulary.tokens(fmt.inputs)
    labels = content.labels

    def token(symbol: str, role: Role) -> Column:
        return constant(vocabulary[symbol], batch_size, role)

    def label(index: int, role: Role, step: int) -> list[Column]:
        return [] if labels is None else [Column(labels[:, index], role, step)]

    def operand(digits: Tensor, first_label: int) -> list[Column]:
        columns = []
        for place in reversed(range(digits.shape[1])):
            columns += label(first_label + place, Role.INPUT_LABEL, place + 1)
            columns.append(Column(digit[digits[:, place]], Role.INPUT, place + 1))
        return columns if fmt.row.separate else columns + label(places, Role.INPUT_LABEL, places + 1)

    def cited(place: int, role: Role) -> list[Column]:
        """Return the labels before one output digit: with separate labels the second operand's, then the first's."""
        if not fmt.row.separate:
            return label(place, role, place + 1)
        second = label(n + place, role, place + 1) if place < m else []
        return second + (label(place, role, place + 1) if place < n else [])

    def outputs(order: range, label_role: Role, role: Role) -> list[Column]:
        columns = []
        for place in order:
            columns += cited(place, label_role)
            columns.append(Column(digit[content.total[:, place]], role, place + 1))
        return columns

    second = content.second
    if fmt.row.padded:
        second = F.pad(second, (0, places - m))
    first = F.pad(content.first, (0, places - n)) if fmt.row.padded else content.first
    columns = [
        token(fmt.structure[0], Role.START),
        *operand(first, 0),
        token("+", Role.SEPARATOR),
        *operand(second, n if fmt.row.separate else 0),
        token("===", Role.SEPARATOR),
        *outputs(range(places + 1), Role.OUTPUT_LABEL, Role.OUTPUT),
        token("###", Role.SEPARATOR),
        *outputs(range(places, -1, -1), Role.ANSWER_LABEL, Role.ANSWER),
    ]
    return assemble(columns, fmt, (n, m), vocabulary)


def read(batch: Batch) -> AdditionContent:
    """Return the content that `write` would turn into these inputs; output digits are not read."""
    assert isinstance(batch.length, tuple)
    n, m = batch.length
    plus = int(batch.at(Role.SEPARATOR)[0])
    value = torch.full((int(batch.tokens.max()) + 1,), -1)
    digit_tokens = batch.vocabulary.tokens(batch.format.inputs)
    value = torch.cat([value, torch.full((int(digit_tokens.max()) + 1,), -1)])
    value[digit_tokens] = torch.arange(10)

    def in_operand(role: Role, second: bool) -> Tensor:
        at = batch.at(role)
        at = at[at > plus] if second else at[at < plus]
        return batch.tokens[:, at[batch.step[at].argsort()]]  # units first

    digits = [value[in_operand(Role.INPUT, second)] for second in (False, True)]
    assert all((d >= 0).all() for d in digits), "an input position holds no digit"
    labels = None
    if batch.format.row.separate:
        labels = torch.cat([in_operand(Role.INPUT_LABEL, second) for second in (False, True)], dim=1)
    elif batch.format.labels:
        labels = in_operand(Role.INPUT_LABEL, second=m > n)
    return AdditionContent(digits[0][:, :n], digits[1][:, :m], labels)


def draw(
    fmt: Format, vocabulary: Vocabulary, batch_size: int, length: tuple[int, int], gen: torch.Generator
) -> AdditionContent:
    """Return uniform random numbers of exactly n and m digits (a single digit may be 0), and random labels."""

    def number(places: int) -> Tensor:
        digits = torch.randint(10, (batch_size, places), generator=gen)
        if places > 1:
            digits[:, -1] = torch.randint(1, 10, (batch_size,), generator=gen)
        return digits

    first, second = number(length[0]), number(length[1])
    if not fmt.labels:
        return AdditionContent(first, second)
    count = fmt.labels_needed(length)
    return AdditionContent(first, second, draw_without_repeats(vocabulary.pool, batch_size, count, gen))
