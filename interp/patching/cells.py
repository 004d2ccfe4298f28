"""Which patches does a sweep consist of, and which of them cannot matter?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.editing import positions_at, words_of
from interp.tasks import Batch, Role

RESID_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
HEAD_SITES = ("q", "k", "v", "z", "pattern")
SITES = RESID_SITES + HEAD_SITES
# Sites that change the residual at their own position alone; resid_pre, k and v reach later ones at once.
LOCAL_SITES = ("resid_mid", "resid_post", "attn_out", "mlp_out", "q", "z", "pattern")


@dataclass(frozen=True)
class Cell:
    """One patch: the site of a layer, at one or several positions jointly, in one head where sites have heads."""

    layer: int
    positions: tuple[int, ...]
    head: int | None = None


@dataclass(frozen=True)
class Joint:
    """Several positions as one patch: `Joint(Role.INPUT_LABEL)`, `Joint((Role.OUTPUT, 3), 17)`."""

    places: tuple

    def __init__(self, *places: Role | tuple[Role, int] | int) -> None:
        object.__setattr__(self, "places", places)


Place = Role | tuple[Role, int] | int | Joint


def places_of(batch: Batch, positions: Place | Iterable[Place] | None) -> list[tuple[str, tuple[int, ...]]]:
    """Patches by position, each with its name in words.

    None is every position; a role, a (role, step) pair or an index is each of its positions by itself; a
    `Joint` is one patch of all its positions.
    """
    if positions is None:
        return [(_named(batch, (p,)), (p,)) for p in range(batch.n_pos)]
    if isinstance(positions, Role | int | Joint) or (
        isinstance(positions, tuple)
        and len(positions) == 2
        and isinstance(positions[0], Role)
        and isinstance(positions[1], int)
        and not isinstance(positions[1], Role)
    ):
        positions = [positions]  # type: ignore[list-item]
    found: list[tuple[str, tuple[int, ...]]] = []
    for place in positions:  # type: ignore[union-attr]
        if isinstance(place, Joint):
            joined = tuple(sorted({p for part in place.places for p in _positions(batch, part)}))
            if not joined:
                raise ValueError("a Joint needs at least one place")
            found.append((_joint_name(place), joined))
        else:
            found += [(_named(batch, (p,)), (p,)) for p in _positions(batch, place)]
    if len({p for _, p in found}) < len(found):
        raise ValueError("the same position is asked for twice")
    return found


def _positions(batch: Batch, place: object) -> list[int]:
    return positions_at(batch, (place,) if isinstance(place, int) and not isinstance(place, Role) else place).tolist()  # type: ignore[arg-type]


def _named(batch: Batch, positions: tuple[int, ...]) -> str:
    return f"{positions[0]}: {batch.name(positions[0])}"


def _joint_name(joint: Joint) -> str:
    def words(place: object) -> str:
        if isinstance(place, int) and not isinstance(place, Role):
            return str(place)
        named = words_of(place)  # type: ignore[arg-type]
        return f"all {named}s" if isinstance(place, Role) else named

    return " + ".join(words(p) for p in joint.places)


def chosen(what: str, asked: int | Sequence[int] | None, count: int) -> list[int]:
    """Layers or heads by number; None is all. Raises `ValueError` for one that is not there."""
    numbers = list(range(count)) if asked is None else [asked] if isinstance(asked, int) else list(asked)
    if not numbers:
        raise ValueError(f"no {what} asked for; there are {count}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"the same {what} is asked for twice: {', '.join(map(str, numbers))}")
    if bad := [n for n in numbers if not 0 <= n < count]:
        raise ValueError(f"there is no {what} {bad[0]}; {what}s run from 0 to {count - 1}")
    return numbers


def check_site(site: str, anatomy: Anatomy) -> None:
    """Raises `ValueError` for a site that is unknown, or that this architecture does not have."""
    if site not in SITES:
        raise ValueError(f"unknown site {site!r}; sites are {', '.join(SITES)}")
    if site == "resid_mid" and anatomy.blocks[0].parallel:
        raise ValueError("parallel blocks have no resid_mid: attention and MLP both read resid_pre; patch attn_out")
    if site == "mlp_out" and not anatomy.blocks[0].has_mlp:
        raise ValueError("this model has no MLPs, so there is no mlp_out")


def heads_at(site: str, anatomy: Anatomy) -> int:
    """How many heads a site has; 0 for sites of the residual stream."""
    if site not in HEAD_SITES:
        return 0
    return anatomy.n_kv_heads if site in ("k", "v") else anatomy.n_heads


def live(cell: Cell, site: str, differs: Tensor, reads: set[int], n_layers: int) -> bool:
    """Whether a patch can change the metric at all; False is exact, not a guess.

    `differs [pos]` says where source and base activations differ in any bit. A patch past the last position
    read cannot be seen; nor can, in the last layer, a change of the residual at a position that is not read.
    """
    at = [p for p in cell.positions if differs[p]]
    if not at or min(at) > max(reads):
        return False
    return not (site in LOCAL_SITES and cell.layer == n_layers - 1 and not reads.intersection(at))


def first(cell: Cell) -> int:
    """The first position that a patch changes."""
    return min(cell.positions)


def as_index(cells: Sequence[Cell], device: torch.device) -> Tensor:
    """Positions of cells that have equally many, `[cell position]`."""
    return torch.tensor([c.positions for c in cells], device=device)
