"""Positions of a prompt, chosen by role, by span name or by index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import Prompts, Role

# A role, a role and step, a span's name, or an index, which counts from the end where it is negative.
Part = Role | tuple[Role, int] | str | int
# One part, or several as a tuple or list. A tuple of a role and a plain number is one part: that role's step.
At = Part | tuple[Part, ...] | list[Part]


@dataclass(frozen=True)
class Joint:
    """Several positions as one patch: `Joint(Role.INPUT_LABEL)`, `Joint((Role.OUTPUT, 3), 17)`, `Joint("name")`."""

    parts: tuple[Part, ...]

    def __init__(self, *parts: Part) -> None:
        object.__setattr__(self, "parts", parts)

    def __str__(self) -> str:
        def text(part: Part) -> str:
            return f"all {part.words}s" if isinstance(part, Role) else str(part) if _is_index(part) else describe(part)

        return " + ".join(map(text, self.parts))


def positions_at(prompts: Prompts, at: At | Int[Tensor, " pos"] | None) -> Int[Tensor, " found"]:
    """Return positions in rising order; all of them for None.

    Raises `ValueError` with the choices if a part has no position.

    >>> positions_at(batch, (Role.INPUT, (Role.OUTPUT, 3))).tolist()
    [2, 4, 6, 13]
    """
    if at is None:
        return torch.arange(prompts.n_pos)
    at = at.tolist() if isinstance(at, Tensor) else at
    return torch.tensor(sorted({p for part in _parts(at) for p in _positions(prompts, part)}), dtype=torch.long)


def patches_at(prompts: Prompts, at: At | Joint | Iterable[Part | Joint] | None) -> list[tuple[str, tuple[int, ...]]]:
    """Return one entry per patch: its name and its positions.

    None is every position. A role, a (role, step) pair, a span or an index gives one patch per position; a `Joint`
    gives one patch of all its positions. Raises `ValueError` if a set of positions occurs twice.

    A position that is named by its token has it in quotes: "9: ' John'".

    >>> patches_at(batch, [(Role.INPUT, 1), Joint(0, 7)])
    [('2: input 1', (2,)), ('0 + 7', (0, 7))]
    """
    if at is None:
        return [(_named(prompts, p), (p,)) for p in range(prompts.n_pos)]
    at = at.tolist() if isinstance(at, Tensor) else at
    listed = [at] if isinstance(at, Joint) or _is_part(at) else list(at)  # type: ignore[arg-type]
    patches: list[tuple[str, tuple[int, ...]]] = []
    for entry in listed:
        if isinstance(entry, Joint):
            if not entry.parts:
                raise ValueError("a Joint needs at least one place")
            patches.append((str(entry), tuple(positions_at(prompts, list(entry.parts)).tolist())))
        else:
            patches += [(_named(prompts, p), (p,)) for p in positions_at(prompts, [entry]).tolist()]  # type: ignore[list-item]
    if not patches:
        raise ValueError("no position was given; None means all")
    if len({positions for _, positions in patches}) < len(patches):
        raise ValueError("the same position is given twice")
    return patches


def describe(at: At | None) -> str:
    """Return a place in words: "input label", "output 3", "input label and output", "positions 4, 7"."""
    if at is None:
        return "all positions"
    parts = _parts(at)
    if all(map(_is_index, parts)):
        return ("position " if len(parts) == 1 else "positions ") + ", ".join(map(str, parts))
    return " and ".join(map(_text, parts))


def _named(prompts: Prompts, position: int) -> str:
    name = prompts.name(position)
    return f"{position}: {name!r}" if prompts.has_token_name(position) else f"{position}: {name}"


def _positions(prompts: Prompts, part: Part) -> list[int]:
    match part:
        case Role() | str():
            return prompts.at(part).tolist()
        case (Role() as role, step):
            return prompts.at(role, step).tolist()
        case _:
            assert isinstance(part, int)
            if not -prompts.n_pos <= part < prompts.n_pos:
                raise ValueError(f"position {part} is outside 0 to {prompts.n_pos - 1}")
            return [part % prompts.n_pos]


def _text(part: Part) -> str:
    match part:
        case Role():
            return part.words
        case (Role() as role, step):
            return f"{role.words} {step}"
        case str():
            return part
        case _:
            return f"position {part}"


def _parts(at: At) -> tuple[Part, ...]:
    """Return the parts one by one. Raises `ValueError` for anything else."""
    if _is_part(at):
        return (at,)  # type: ignore[return-value]
    if isinstance(at, tuple | list) and at and all(map(_is_part, at)):
        if _is_ambiguous(at):
            raise ValueError(f"the numbers in {at!r} may be steps or positions; give positions in a list")
        return tuple(at)  # type: ignore[arg-type]
    raise ValueError(
        f"a place is a Role ({', '.join(r.name for r in Role)}), a pair of Role and step, a span's name, an index, or "
        f"a tuple or list of these; several that are patched as one are interp.Joint(1, 3); got {at!r}"
    )


def _is_ambiguous(parts: tuple | list) -> bool:
    """Return whether a tuple such as (Role.INPUT, 1, 2) mixes roles and numbers, which could be steps or positions."""
    return isinstance(parts, tuple) and any(isinstance(p, Role) for p in parts) and any(map(_is_index, parts))


def _is_part(part: object) -> bool:
    match part:
        case Role() | str():
            return True
        case (Role(), step) if isinstance(part, tuple):
            return _is_index(step)
    return _is_index(part)


def _is_index(part: object) -> bool:
    return isinstance(part, int) and not isinstance(part, bool | Role)
