"""One prompt as the attention views show it: tokens, names and roles, from a batch or from token strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.tasks import Role
from interp.views.axes import visible
from interp.views.colours import ROLES

if TYPE_CHECKING:
    from interp.tasks import Prompts

# The legend of prompts without roles: one nameless entry without colour.
NO_ROLE = ""


@dataclass(frozen=True)
class Prompt:
    """One prompt: per position its token, its name, such as "output label 25" or "pos 3", and its role.

    `roles` are the roles in words; all "" for prompts without roles.
    """

    tokens: tuple[str, ...]
    names: tuple[str, ...]
    roles: tuple[str, ...]

    @property
    def kinds(self) -> list[str]:
        """The roles that occur, in order of appearance."""
        return list(dict.fromkeys(self.roles))

    @property
    def legend(self) -> list[tuple[str, str]]:
        """(role, colour) of the roles that occur."""
        return [(role, ROLES[role]) for role in self.kinds if role]

    @property
    def opening(self) -> int:
        """The destination that a view shows first: the last one that predicts an answer; without roles the last token.

        >>> roles = ("input label", "input", "output label", "output")
        >>> Prompt(("M1", "0", "M1", "1"), ("a", "b", "c", "d"), roles).opening
        2
        """
        predicting = [pos for pos, role in enumerate(self.roles[1:]) if role == Role.OUTPUT.words]
        return predicting[-1] if predicting else len(self.tokens) - 1

    def colour(self, pos: int) -> str:
        """Return the colour of a position's role; white without roles."""
        return ROLES.get(self.roles[pos], "#ffffff")

    def data(self) -> dict:
        """Return tokens, names, and roles as indices of a legend, for the page."""
        return {
            "tokens": self.tokens,
            "names": self.names,
            "opening": self.opening,
            "roles": [self.kinds.index(role) for role in self.roles],
            "legend": [[role, ROLES.get(role, "transparent")] for role in self.kinds],
        }


def prompt_of(prompts: Prompts, row: int) -> Prompt:
    """Return one prompt of a batch. Raises `ValueError` for a row that does not exist."""
    if row not in range(len(prompts)):
        raise ValueError(f"prompts are 0 to {len(prompts) - 1}; got {row!r}")
    tokens = tuple(map(visible, prompts.symbols(row)))
    if prompts.role is None:
        # Names of text prompts are mostly their tokens; a position tells two equal tokens apart.
        pairs = zip(prompts.names, prompts.symbols(row), strict=True)
        names = tuple(f"pos {pos}" if name == token else name for pos, (name, token) in enumerate(pairs))
        return Prompt(tokens, names, (NO_ROLE,) * len(tokens))
    names = tuple(prompts.name(pos) for pos in range(prompts.n_pos))
    return Prompt(tokens, names, tuple(Role(role).words for role in prompts.role.tolist()))


def prompt_of_tokens(tokens: Sequence[str]) -> Prompt:
    """Return a prompt from its tokens as strings. Raises `ValueError` for no tokens or one string.

    >>> prompt_of_tokens(["The", " cat"]).names
    ('pos 0', 'pos 1')
    """
    if isinstance(tokens, str) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"tokens must be a list of strings, one per position; got {tokens!r}")
    return Prompt(
        tuple(map(visible, tokens)), tuple(f"pos {pos}" for pos in range(len(tokens))), (NO_ROLE,) * len(tokens)
    )
