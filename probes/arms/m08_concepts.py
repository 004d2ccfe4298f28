"""M8, concepts: what a position can encode, each with matched controls of equal difficulty and no use.

A control keyed to the token at a position is decoded at .99 everywhere, because identity is linearly present. These
controls are functions of the same history instead, drawn again for each seed (probes/README.md, Battery).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.tasks import Batch, Role, addition, parity
from interp.tasks.layout import generator

PARITY_CONCEPTS = ("state", "bit", "previous bit", "slot", "label")
ADDITION_CONCEPTS = ("carry", "slot")
CONCEPTS = (*PARITY_CONCEPTS, "carry")


@dataclass(frozen=True, eq=False)
class Concept:
    """The values of a concept at each place, with its matched controls.

    Shapes:
        values:   `[prompt place]`, classes from 0, or numbers where `classes` is 0 (a regression).
        controls: each as `values`.
        places:   `[place]`, the indices of the role's positions that have a value, in the role's order.
    """

    name: str
    role: Role
    length: int | tuple[int, int]
    values: Int[Tensor, "prompt place"] | Float[Tensor, "prompt place"]
    controls: tuple[Tensor, ...]
    places: Int[Tensor, " place"]
    classes: int

    def rows(self, index: Int[Tensor, " rows"] | slice) -> Concept:
        """Return the values of some of the prompts."""
        controls = tuple(c[index] for c in self.controls)
        return Concept(self.name, self.role, self.length, self.values[index], controls, self.places, self.classes)


def concept_of(name: str, batch: Batch, role: Role = Role.INPUT_LABEL, seed: int = 0, controls: int = 3) -> Concept:
    """Return a concept at the positions of a role; `seed` draws its controls.

    | concept | value at step s | control |
    |---|---|---|
    | state | parity of the bits before s | parity of a fixed random subset of them |
    | bit | bit s: at an input label the one that follows | the bit of another step, fixed for each s |
    | previous bit | bit s-1 | the bit of an earlier step, fixed for each s |
    | slot | s | a fixed permutation of the steps |
    | label | the label of step s | the label of another step, fixed for each s |
    | carry | the carry into place s | the carry after the digits 0 to 9 of each place are permuted |

    "state" and "previous bit" have values from step 3 on: before it no other history exists. "carry" has values from
    step 2 on. Raises `ValueError` for a concept that the format lacks (it names those that it has), for a role whose
    positions have no steps, and for a length that is too short.
    """
    available = {"parity": PARITY_CONCEPTS, "addition": ADDITION_CONCEPTS}.get(batch.format.task, ())
    if name not in available:
        text = f"{batch.format} has {', '.join(available) or 'none'}"
        raise ValueError(f"no concept {name!r} here: concepts are {', '.join(CONCEPTS)}; {text}")
    if name == "label" and batch.format.labels != "pool":
        raise ValueError(
            f"labels of {batch.format} are not drawn from a pool, so their identity carries no information"
        )
    if controls < 1:
        raise ValueError(f"at least one control is needed; got {controls}")
    steps = batch.step[batch.at(role)]
    if (steps < 0).any():
        raise ValueError(f"positions of the role {role.name} belong to no step; choose an input, output or label role")
    n = int(batch.step.max())
    first = {"state": 3, "previous bit": 3, "carry": 2}.get(name, 1)
    if n < first + 1:
        raise ValueError(f"{name!r} needs a length of at least {first + 1}; got {batch.length}")
    gen = generator(seed)
    classes = {"slot": 0, "label": len(batch.vocabulary.pool)}.get(name, 2)
    if name == "slot":
        numbers = torch.arange(1, n + 1).double().expand(len(batch), n)
        tables = [numbers, *(numbers[:, torch.randperm(n, generator=gen)] for _ in range(controls))]
    elif name == "carry":
        tables = [_carries(batch, None), *(_carries(batch, gen) for _ in range(controls))]
    else:
        tables = [_table(name, batch, None), *(_table(name, batch, gen) for _ in range(controls))]
    places = (steps >= first).nonzero().flatten()
    values, *others = (table[:, steps[places] - 1] for table in tables)
    return Concept(name, role, batch.length, values, tuple(others), places, classes)


def _table(name: str, batch: Batch, gen: torch.Generator | None) -> Int[Tensor, "prompt step"]:
    """Return the value at each step of parity; with a generator, a control's value."""
    content = parity.read(batch)
    bits = content.bits
    n = bits.shape[1]
    if name == "state":
        within = torch.ones(n, dtype=torch.long) if gen is None else _subset(n, gen)
        return ((bits * within).cumsum(dim=1) - bits * within) % 2
    if name == "label":
        bits = (content.input_labels.unsqueeze(2) == batch.vocabulary.pool).long().argmax(dim=2)  # pyright: ignore[reportOptionalMemberAccess]
    own = torch.arange(n) - int(name == "previous bit")
    if gen is None:
        return bits[:, own.clamp_min(0)]
    allowed = torch.arange(n) != own.unsqueeze(1)
    if name == "previous bit":
        allowed &= torch.arange(n) < own.unsqueeze(1)
    noise = torch.where(allowed, torch.rand(n, n, generator=gen), -1.0)
    return bits[:, noise.argmax(dim=1)]


def _subset(n: int, gen: torch.Generator) -> Int[Tensor, " step"]:
    """Return a random subset of the steps with exactly one of the first two: never empty or full from step 3 on."""
    within = torch.randint(2, (n,), generator=gen)
    within[1] = 1 - within[0]
    return within


def _carries(batch: Batch, gen: torch.Generator | None) -> Int[Tensor, "prompt step"]:
    """Return the carry into each place; with a generator, after the digits of each place are permuted."""
    content = addition.read(batch)
    n = int(batch.step.max())
    total = torch.zeros(len(batch), n, dtype=torch.long)
    for digits in (content.first, content.second):
        for place in range(digits.shape[1]):
            value = torch.arange(10) if gen is None else torch.randperm(10, generator=gen)
            total[:, place] += value[digits[:, place]]
    carries = [torch.zeros_like(total[:, 0])]
    for place in range(n - 1):
        carries.append((total[:, place] + carries[-1]) // 10)
    return torch.stack(carries, dim=1)
