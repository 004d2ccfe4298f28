"""A batch: prompts of one task format and length, with the correct output written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks.inputs import Prompts
from interp.tasks.roles import ANSWER_ROLES, LABEL_ROLES, Role

if TYPE_CHECKING:
    from interp.tasks.formats import Format
    from interp.tasks.vocabulary import Vocabulary

__all__ = ["ANSWER_ROLES", "LABEL_ROLES", "Batch", "Role"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Batch(Prompts):
    """Prompts of one format and one length, with the correct output written in.

    Shapes:
        tokens: `[batch pos]` token ids of the vocabulary's tokenizer.
        role:   `[pos]` values of `Role`.
        step:   `[pos]` which bit (parity, 1 to n) or place (addition, 1 = units) a position belongs to;
                -1 for none.

    One length per batch: there is no padding and no mask downstream.

    >>> from interp.tasks import sample
    >>> batch = sample("parity-scratchpad", batch_size=1, length=3, seed=0)
    >>> batch.at(Role.OUTPUT, 2).tolist(), batch.name(6)
    ([6], 'output 2')
    """

    role: Int[Tensor, " pos"]  # type: ignore[misc]
    step: Int[Tensor, " pos"]  # type: ignore[misc]
    format: Format
    length: int | tuple[int, int]
    vocabulary: Vocabulary

    def __post_init__(self) -> None:
        for name in ("tokens", "role", "step"):
            if not isinstance(values := getattr(self, name), Tensor):
                raise ValueError(f"{name} must be a tensor of integers; got {type(values).__name__}")
        if self.tokens.ndim != 2 or not self.role.shape == self.step.shape == self.tokens.shape[1:]:
            raise ValueError(
                f"tokens must be [batch pos] with role and step [pos]; got tokens {tuple(self.tokens.shape)}, "
                f"role {tuple(self.role.shape)}, step {tuple(self.step.shape)}"
            )
        super().__post_init__()

    def _kind(self) -> str:
        return str(self.format)

    def predicted(self, forced: bool = True) -> Int[Tensor, " predicted"]:
        """Return the positions whose tokens the model must write. Their logits are at the position before.

        `forced=True` is the paper's environment-forced mode: labels are given and only the answers are
        predicted. `forced=False`: the model writes every token after `===`, fillers included.
        Raises `ValueError` where the labels cannot be predicted (non-aligned parity draws them at random).
        """
        answers = torch.isin(self.role, torch.tensor(ANSWER_ROLES))
        if forced or self.format.row.layout == "interleaved":
            return answers.nonzero().flatten()
        if not self.format.model_can_write_labels:
            raise ValueError(
                f"{self.format}: the output labels match nothing in the context, so no model can write them; "
                "use forced=True"
            )
        separators, which = self.at(Role.SEPARATOR), int(self.format.task == "addition")
        if len(separators) <= which:
            raise ValueError(f"{self.format} has {which + 1} separators before its output; here is {len(separators)}")
        separator = int(separators[which])
        after = torch.arange(self.n_pos) > separator
        return after.nonzero().flatten()

    def symbol(self, token: int) -> str:
        """Return the task's symbol that a token stands for, whatever tokenizer it belongs to."""
        return self.vocabulary.symbol(token)

    def text(self, row: int = 0) -> str:
        """Return one prompt as the paper prints it: `>>> M17 0 M4 1 === M17 0 M4 1`."""
        return " ".join(self.symbols(row))
