"""What does a model read, and what is each position for?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from interp.tasks.formats import Format
    from interp.tasks.vocabulary import Vocabulary


class Role(IntEnum):
    """What a position is for. A position has one role; nothing downstream parses text."""

    START = 0
    SEPARATOR = 1
    INPUT = 2
    INPUT_LABEL = 3
    OUTPUT = 4
    OUTPUT_LABEL = 5
    ANSWER = 6
    ANSWER_LABEL = 7
    FILLER = 8

    @property
    def words(self) -> str:
        """The role as a person reads it: `Role.OUTPUT_LABEL.words == "output label"`."""
        return self.name.lower().replace("_", " ")


LABEL_ROLES = (Role.INPUT_LABEL, Role.OUTPUT_LABEL, Role.ANSWER_LABEL)
ANSWER_ROLES = (Role.OUTPUT, Role.ANSWER)
# What positions, roles and token ids are counted in.
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts of one format and one length, with the correct output written in.

    Shapes:
        tokens: `[batch pos]` token ids of the vocabulary's tokenizer.
        role:   `[pos]` values of `Role`.
        step:   `[pos]` which bit (parity, 1 to n) or place (addition, 1 = units) a position belongs to;
                -1 for none.

    One length a batch means that there is no padding and no mask anywhere downstream.

    >>> from interp.tasks import sample
    >>> batch = sample("parity-scratchpad", batch_size=1, length=3, seed=0)
    >>> batch.at(Role.OUTPUT, 2).tolist(), batch.name(6)
    ([6], 'output 2')
    """

    tokens: Int[Tensor, "batch pos"]
    role: Int[Tensor, " pos"]
    step: Int[Tensor, " pos"]
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
        for name in ("tokens", "role", "step"):
            if (kind := getattr(self, name).dtype) not in WHOLE:
                raise ValueError(f"{name} must be a tensor of integers; got {kind}")
        if not ((self.role >= 0) & (self.role < len(Role))).all():
            raise ValueError(f"role must hold values of Role, from 0 to {len(Role) - 1}")

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def n_pos(self) -> int:
        return self.tokens.shape[1]

    def at(self, role: Role, step: int | None = None) -> Int[Tensor, " found"]:
        """Positions of a role, in order; with `step`, those of that step alone.

        Raises `ValueError` with the roles or steps that there are, when none is found.
        """
        found = self.role == role
        if not found.any():
            there = ", ".join(Role(r).name for r in sorted(set(self.role.tolist())))
            raise ValueError(f"no {Role(role).words} in {self.format}; its roles are {there}")
        if step is not None:
            steps = self.step[found]
            found = found & (self.step == step)
            if not found.any():
                raise ValueError(
                    f"no {Role(role).words} with step {step}; steps run from {steps.min()} to {steps.max()}"
                )
        return found.nonzero().flatten()

    def name(self, pos: int) -> str:
        """A position in words, such as "output label 25"."""
        if not -self.n_pos <= pos < self.n_pos:
            raise ValueError(f"position {pos} is outside 0 to {self.n_pos - 1}")
        words, step = Role(int(self.role[pos])).words, int(self.step[pos])
        return words if step < 0 else f"{words} {step}"

    def predicted(self, forced: bool = True) -> Int[Tensor, " predicted"]:
        """Positions whose tokens the model must write; the logits that predict them stand one earlier.

        `forced=True` is the paper's environment-forced mode: labels are put there from outside and only
        the answers are predicted. `forced=False`: the model writes every token after `===`, fillers included.
        Raises `ValueError` where the labels cannot be predicted (non-aligned parity draws them at random).
        """
        answers = torch.isin(self.role, torch.tensor(ANSWER_ROLES))
        if forced or self.format.name == "interleaved":
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

    def symbols(self, row: int = 0) -> list[str]:
        """The symbols of one prompt in the task's own words, whatever tokenizer carries them."""
        return [self.vocabulary.symbol(i) for i in self.tokens[row].tolist()]

    def text(self, row: int = 0) -> str:
        """One prompt as the paper prints it: `>>> M17 0 M4 1 === M17 0 M4 1`."""
        return " ".join(self.symbols(row))

    def with_tokens(self, tokens: Int[Tensor, "batch pos"]) -> Batch:
        """The same layout with other tokens."""
        return replace(self, tokens=tokens)

    def rows(self, index: Int[Tensor, " rows"] | slice) -> Batch:
        """Some of the prompts."""
        return replace(self, tokens=self.tokens[index])
