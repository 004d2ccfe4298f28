"""Roles of positions in a task's prompt."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """What a position is for. Every position has exactly one role."""

    START = 0
    SEPARATOR = 1
    INPUT = 2
    INPUT_LABEL = 3
    OUTPUT = 4
    OUTPUT_LABEL = 5
    ANSWER = 6
    ANSWER_LABEL = 7
    FILLER = 8
    # The tokenizer's own start token, before the task's START. Values are stored in files: append only.
    BOS = 9

    @property
    def words(self) -> str:
        """The role in words: `Role.OUTPUT_LABEL.words == "output label"`."""
        return self.name.lower().replace("_", " ")


LABEL_ROLES = (Role.INPUT_LABEL, Role.OUTPUT_LABEL, Role.ANSWER_LABEL)
ANSWER_ROLES = (Role.OUTPUT, Role.ANSWER)
