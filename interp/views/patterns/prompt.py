"""What are the tokens of a prompt called, and which colour has the role of each?"""

from __future__ import annotations

from dataclasses import dataclass

from interp.tasks import Batch, Role

# Okabe and Ito's colours, as bars beside the data; each is seen on white and on black.
COLOURS = {
    Role.START: "#7d7d7d",
    Role.SEPARATOR: "#a8892c",
    Role.INPUT: "#56b4e9",
    Role.INPUT_LABEL: "#0072b2",
    Role.OUTPUT: "#e69f00",
    Role.OUTPUT_LABEL: "#d55e00",
    Role.ANSWER: "#009e73",
    Role.ANSWER_LABEL: "#5bbf9f",
    Role.FILLER: "#cc79a7",
}


@dataclass(frozen=True)
class Prompt:
    """One prompt: at each position its token, its name in words, such as "output label 25", and its role."""

    tokens: tuple[str, ...]
    names: tuple[str, ...]
    roles: tuple[Role, ...]

    @property
    def kinds(self) -> list[Role]:
        """The roles that there are, in the order in which a reader meets them."""
        return list(dict.fromkeys(self.roles))

    def data(self) -> dict:
        """For the page: tokens, names, and roles as numbers of a legend."""
        kinds = self.kinds
        return {
            "tokens": self.tokens,
            "names": self.names,
            "roles": [kinds.index(role) for role in self.roles],
            "legend": [[role.words, COLOURS[role]] for role in kinds],
        }


def prompt_of(batch: Batch, row: int) -> Prompt:
    """A prompt of a batch. Raises `ValueError` for a row that is not there."""
    if row not in range(len(batch)):
        raise ValueError(f"prompts are 0 to {len(batch) - 1}; got {row!r}")
    names = tuple(batch.name(pos) for pos in range(batch.n_pos))
    return Prompt(tuple(batch.symbols(row)), names, tuple(Role(role) for role in batch.role.tolist()))
