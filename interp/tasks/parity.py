"""Parity: parity(i) = bit(i) XOR parity(i-1), in every format (science 1.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks.batch import Batch, Role
from interp.tasks.formats import FILLER, Format
from interp.tasks.layout import Column, assemble, constant, draw_without_repeats, fixed
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
    """The prompts with their correct outputs."""
    batch_size, n = content.bits.shape
    bits = vocabulary.tokens(fmt.inputs)[content.bits]
    parities = vocabulary.tokens(fmt.outputs)[content.parities]

    def token(symbol: str, role: Role, step: int = -1) -> Column:
        return constant(vocabulary[symbol], batch_size, role, step)

    def labelled(labels: Tensor | None, label_role: Role, values: Tensor, role: Role) -> list[Column]:
        columns = []
        for i in range(n):
            if labels is not None:
                columns.append(Column(labels[:, i], label_role, i + 1))
            columns += [token(FILLER, Role.FILLER, i + 1) for _ in range(fmt.gap)]
            columns.append(Column(values[:, i], role, i + 1))
        return columns

    start = token(">>>", Role.START)
    if fmt.name == "interleaved":
        pairs = zip(bits.unbind(1), parities.unbind(1), strict=True)
        columns = [start]
        for i, (bit, parity) in enumerate(pairs):
            columns += [Column(bit, Role.INPUT, i + 1), Column(parity, Role.OUTPUT, i + 1)]
        return assemble(columns, fmt, n, vocabulary)
    inputs = labelled(content.input_labels, Role.INPUT_LABEL, bits, Role.INPUT)
    if fmt.name == "direct":
        outputs = [Column(parities[:, -1], Role.OUTPUT, n)]
    else:
        outputs = labelled(content.output_labels, Role.OUTPUT_LABEL, parities, Role.OUTPUT)
    return assemble([start, *inputs, token("===", Role.SEPARATOR), *outputs], fmt, n, vocabulary)


def read(batch: Batch) -> ParityContent:
    """The content that `write` would turn into these inputs; outputs other than labels are not read."""
    zero, one = batch.vocabulary.tokens(batch.format.inputs).tolist()
    written = batch.tokens[:, batch.at(Role.INPUT)]
    assert ((written == zero) | (written == one)).all(), "an input position holds no bit"
    if not batch.format.labels:
        return ParityContent((written == one).long())
    labels = (batch.tokens[:, batch.at(role)] for role in (Role.INPUT_LABEL, Role.OUTPUT_LABEL))
    return ParityContent((written == one).long(), *labels)


def draw(fmt: Format, vocabulary: Vocabulary, batch_size: int, n: int, gen: torch.Generator) -> ParityContent:
    """Uniform random bits and labels."""
    bits = torch.randint(2, (batch_size, n), generator=gen)
    match fmt.labels:
        case "pool":
            labels = draw_without_repeats(vocabulary.pool, batch_size, fmt.labels_needed(n), gen)
            return ParityContent(bits, labels[:, :n], labels[:, -n:])
        case "fixed":
            labels = fixed(vocabulary.tokens(fmt.fixed_labels(n)), batch_size)
            return ParityContent(bits, labels, labels)
        case _:
            return ParityContent(bits)
