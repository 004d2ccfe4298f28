"""In-context recall: `??? M17 c M4 h === M4 h M17 c`, addressing by label without any computation.

Not one of the paper's tasks. It replaces a pretraining that has seen contexts longer than the training lengths of
parity (probes/README.md, Recipes). Values are letters that no other task uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks.batch import Batch, Role
from interp.tasks.formats import Format
from interp.tasks.layout import Column, assemble, constant, draw_without_repeats, shuffled
from interp.tasks.vocabulary import Vocabulary


@dataclass(frozen=True)
class RecallContent:
    """Values (0 to 15) and label token ids by input slot, and the slot queried at each output step."""

    values: Int[Tensor, "batch n"]
    labels: Int[Tensor, "batch n"]
    order: Int[Tensor, "batch n"]


def write(content: RecallContent, fmt: Format, vocabulary: Vocabulary) -> Batch:
    """Return the prompts with their correct outputs."""
    batch_size, n = content.values.shape
    values = vocabulary.tokens(fmt.inputs)[content.values]
    queried, answers = (x.gather(1, content.order) for x in (content.labels, values))

    def pairs(labels: Tensor, label_role: Role, values: Tensor, role: Role) -> list[Column]:
        columns = []
        for i in range(n):
            columns += [Column(labels[:, i], label_role, i + 1), Column(values[:, i], role, i + 1)]
        return columns

    columns = [
        constant(vocabulary[fmt.structure[0]], batch_size, Role.START),
        *pairs(content.labels, Role.INPUT_LABEL, values, Role.INPUT),
        constant(vocabulary["==="], batch_size, Role.SEPARATOR),
        *pairs(queried, Role.OUTPUT_LABEL, answers, Role.OUTPUT),
    ]
    return assemble(columns, fmt, n, vocabulary)


def draw(fmt: Format, vocabulary: Vocabulary, batch_size: int, n: int, gen: torch.Generator) -> RecallContent:
    """Return uniform random values and labels, queried in order or in random order.

    Held-out labels are drawn too. A model that rehearsed them has trained embeddings for labels to which M3 renames
    prompts of tasks that never contained them.
    """
    values = torch.randint(len(fmt.inputs), (batch_size, n), generator=gen)
    every_label = torch.cat([vocabulary.pool, vocabulary.held_out_pool])
    labels = draw_without_repeats(every_label, batch_size, n, gen)
    if fmt.row.shuffled:
        return RecallContent(values, labels, shuffled(n, batch_size, gen))
    return RecallContent(values, labels, torch.arange(n).expand(batch_size, n))
