"""Groups of positions at which edges are told apart: all positions, roles, spans of a template, or each position.

Algorithms use roles rather than absolute positions. A circuit whose places are roles or spans therefore also applies
to prompts of another length, because places are matched by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import Batch, Prompts, Role

ANYWHERE = "anywhere"
# Positions that no span of a template covers.
ELSEWHERE = "elsewhere"
PlacesBy = Literal["anywhere", "role", "span", "position"]


@dataclass(frozen=True, eq=False)
class Places:
    """A partition of the positions. Edges at different places are different edges.

    Shapes:
        index: `[pos]`, for each position the index of its place in `names`.
    """

    names: tuple[str, ...]
    index: Int[Tensor, " pos"]

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or not self.names:
            raise ValueError(f"places need one or more different names; got {self.names}")
        if self.index.ndim != 1 or not ((self.index >= 0) & (self.index < len(self.names))).all():
            raise ValueError(f"the place of each position must be a number from 0 to {len(self.names) - 1}")

    @property
    def n_pos(self) -> int:
        """Number of positions."""
        return len(self.index)


def places_of(prompts: Prompts, places: Places | PlacesBy) -> Places:
    """Return the places of some prompts.

    - "anywhere": one place for all positions.
    - "role": one place per role (prompts of a task).
    - "span": one place per span of a template, and "elsewhere" for the other positions.
    - "position": one place per position.

    Raises `ValueError` for an unknown choice, for prompts without roles or spans, and for `Places` with another
    number of positions than the prompts.
    """
    n_pos = prompts.n_pos
    if isinstance(places, Places):
        if places.n_pos != n_pos:
            raise ValueError(f"places are of {places.n_pos} positions; the prompts have {n_pos}")
        return places
    match places:
        case "anywhere":
            return named_places([ANYWHERE] * n_pos)
        case "role":
            if prompts.role is None:
                raise ValueError("these prompts have no roles; use places='anywhere', 'span' or 'position', or Places")
            return named_places([Role(r).words for r in prompts.role.tolist()])
        case "span":
            return _span_places(prompts, n_pos)
        case "position":
            return named_places([_position_name(prompts, pos) for pos in range(n_pos)])
    raise ValueError(f"places must be 'anywhere', 'role', 'span', 'position' or Places; got {places!r}")


def places_around(batch: Batch, step: int) -> Places:
    """Return one place per role and per relation to `step`: this step, the step before, or any other step.

    "output, step before" is then the previous parity. Names are the same at every length and step.
    """
    batch.at(Role.OUTPUT, step)  # raises with the steps that exist
    assert batch.role is not None
    assert batch.step is not None
    relations = {step: ", this step", step - 1: ", step before"}

    def name(role: int, at: int) -> str:
        return Role(role).words + ("" if at < 0 else relations.get(at, ", other steps"))

    return named_places([name(r, s) for r, s in zip(batch.role.tolist(), batch.step.tolist(), strict=True)])


def named_places(names: Sequence[str]) -> Places:
    """Return places from one name per position; positions with the same name share a place."""
    order = tuple(dict.fromkeys(names))
    return Places(order, torch.tensor([order.index(name) for name in names]))


def _span_places(prompts: Prompts, n_pos: int) -> Places:
    if not prompts.spans:
        raise ValueError("these prompts have no spans; build them with template(...), or use another choice of places")
    # Spans may overlap: the positions in two spans form a place of their own.
    names = [
        " and ".join(name for name, positions in prompts.spans.items() if pos in positions) for pos in range(n_pos)
    ]
    return named_places([name or ELSEWHERE for name in names])


def _position_name(prompts: Prompts, pos: int) -> str:
    """Return a name that is the same for all prompts of one layout, so never a token's text."""
    if prompts.role is not None:
        return f"{prompts.name(pos)} (position {pos})"
    return f"position {pos}"
