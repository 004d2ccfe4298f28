"""Parity: parity(i) = bit(i) XOR parity(i-1), in every format (probes/README.md, Paper and formats)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks.batch import Batch, Role
from interp.tasks.format_table import FILLER
from interp.tasks.formats import Format
from interp.tasks.layout import Column, assemble, constant, draw_labels, fixed
from interp.tasks.vocabulary import Vocabulary


@dataclass(frozen=True)
class ParityContent:
    """What varies between prompts: bits `[batch n]` (0 or 1) and label token ids `[batch n]` or None."""

    bits: Int[Tensor, "batch n"]
    input_labels: Int[Tensor, "batch n"] | None = None
    output_labels: Int[Tensor, "batch n"] | None = None

    @property
    def parities(self) -> Int[Tensor, "batch n"]:
        """Running parities."""
        return self.bits.cumsum(dim=1) % 2


def write(content: ParityContent, fmt: Format, vocabulary: Vocabulary) -> Batch:
    """Return the prompts with their correct outputs."""
    batch_size, n = content.bits.shape
    bits = vocabulary.tokens(fmt.inputs)[content.bits]
    parities = vocabulary.tokens(fmt.outputs)[content.parities]

    def token(symbol: str, role: Role, step: int = -1) -> Column:
        return constant(vocabulary[symbol], batch_size, role, step)

    def item(labels: Tensor | None, label_role: Role, value: Tensor, role: Role, i: int) -> list[Column]:
        """Return the columns of step i + 1 on one side: label, fillers and value, in the order of the format."""
        label = [] if labels is None else [Column(labels[:, i], label_role, i + 1)]
        fillers = [token(FILLER, Role.FILLER, i + 1) for _ in range(fmt.gap)]
        columns = [*label, *fillers, Column(value, role, i + 1)]
        return columns[::-1] if fmt.row.after else columns

    inputs = [item(content.input_labels, Role.INPUT_LABEL, bits[:, i], Role.INPUT, i) for i in range(n)]
    outputs = [item(content.output_labels, Role.OUTPUT_LABEL, parities[:, i], Role.OUTPUT, i) for i in range(n)]
    match fmt.row.layout:
        case "interleaved":
            items = [column for pair in zip(inputs, outputs, strict=True) for column in pair]
        case "final":
            items = [*inputs, [token("===", Role.SEPARATOR)], outputs[-1]]
        case "sides":
            items = [*inputs, [token("===", Role.SEPARATOR)], *outputs]
    columns = [column for columns in items for column in columns]
    return assemble([token(fmt.structure[0], Role.START), *columns], fmt, n, vocabulary)


def read(batch: Batch) -> ParityContent:
    """Return the content that `write` would turn into these inputs; outputs other than labels are not read."""
    zero, one = batch.vocabulary.tokens(batch.format.inputs).tolist()
    written = batch.tokens[:, batch.at(Role.INPUT)]
    assert ((written == zero) | (written == one)).all(), "an input position holds no bit"
    if not batch.format.labels:
        return ParityContent((written == one).long())
    labels = (batch.tokens[:, batch.at(role)] for role in (Role.INPUT_LABEL, Role.OUTPUT_LABEL))
    return ParityContent((written == one).long(), *labels)


def draw(fmt: Format, vocabulary: Vocabulary, batch_size: int, n: int, gen: torch.Generator) -> ParityContent:
    """Return uniform random bits and labels."""
    bits = torch.randint(2, (batch_size, n), generator=gen)
    match fmt.labels:
        case "pool":
            labels = draw_labels(fmt, vocabulary.pool, batch_size, fmt.labels_needed(n), gen)
            return ParityContent(bits, labels[:, :n], labels[:, -n:])
        case "fixed":
            labels = fixed(vocabulary.tokens(fmt.fixed_labels(n)), batch_size)
            return ParityContent(bits, labels, labels)
        case _:
            return ParityContent(bits)
