"""Presence, groups: the cells that presence by answer tests together.

Several heads can be each other's backups, or hide behind one that is always read (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.models.anatomy import anatomy_of
from interp.models.resolve import raw_of
from interp.patching.tracing import pattern_of, trace
from interp.tasks import Batch, Role
from probes.arms.group_search import MANY_UNITS
from probes.arms.m06_heads import LABELS, all_heads
from probes.arms.presence_cells import KINDS, Cell, Cells
from probes.arms.presence_search import all_cells

KIND_OF = {role: kind for kind, role in KINDS.items()}
# Pairs that are tested at most: all pairs of five heads of one kind, with two more.
MOST_PAIRS = 12
# Prompts whose attention orders the pairs where there are more.
ORDERED_BY = 8


@dataclass(frozen=True)
class Group:
    """Cells that are tested together, and the labels whose keys and values they read: one side, or both."""

    cells: Cells
    side: tuple[Role, ...] = LABELS


def groups_of(model: PreTrainedModel, batch: Batch, idle: Cells) -> dict[str, Group]:
    """Return by name what is tested, of the cells that carry something: each, pairs, all but one, all, all by side.

    In large models cells are those of a layer together. Groups of idle cells alone are left out: presence by cell tests
    them.
    """
    every = all_cells(model, batch)
    together = len(all_heads(model)) > MANY_UNITS
    carrying: dict[str, list[Cell]] = {}
    for cell in every:
        if cell not in idle.members:
            kind, (layer, head) = cell
            carrying.setdefault(f"{kind}, layer {layer}" + ("" if together else f", head {head}"), []).append(cell)
    found = {name: Group(Cells(tuple(cells))) for name, cells in carrying.items()}
    for one, other in pairs_of(model, batch, carrying):
        found[f"{one} and {other}"] = Group(Cells((*carrying[one], *carrying[other])))
    if len(carrying) > 2:
        found |= {
            f"all but {name}": Group(Cells(tuple(cell for cell in every if cell not in cells)))
            for name, cells in carrying.items()
        }
    found["all"] = Group(Cells(tuple(every)))
    sides = [role for role in LABELS if (batch.role == role).any()]
    for role in sides if len(sides) > 1 else []:
        side = f"of {KIND_OF[role]}"
        found[f"all, {side}"] = Group(Cells(tuple(every)), (role,))
        for kind in dict.fromkeys(kind for kind, _ in every):
            found[f"{kind}, {side}"] = Group(Cells(tuple(cell for cell in every if cell[0] == kind)), (role,))
    return {name: group for name, group in found.items() if not set(group.cells.members) <= set(idle.members)}


def pairs_of(
    model: PreTrainedModel, batch: Batch, carrying: Mapping[str, list[Cell]], most: int = MOST_PAIRS
) -> list[tuple[str, str]]:
    """Return the pairs within a kind of query, by name; of more than `most`, those that attend most to labels.

    A pair attends as much as the lesser of the two. Pairs that attend equally keep their order, so that the choice is
    the same in every run.
    """
    pairs = [pair for pair in combinations(carrying, 2) if len({carrying[name][0][0] for name in pair}) == 1]
    if len(pairs) <= most:
        return pairs
    attention = attention_on_labels(model, batch.rows(slice(ORDERED_BY)))

    def mass(name: str) -> float:
        return max(float(attention[kind][head]) for kind, head in carrying[name])

    return sorted(pairs, key=lambda pair: -min(map(mass, pair)))[:most]


def attention_on_labels(model: PreTrainedModel, batch: Batch) -> dict[str, Float[Tensor, "layer head"]]:
    """Return the mean attention of each head on labels, by kind of query. All prompts run at once."""
    anatomy = anatomy_of(raw_of(model))
    run, labels = trace(anatomy, batch.tokens), torch.isin(batch.role, torch.tensor(LABELS))
    layers = range(len(anatomy.blocks))
    masses = [pattern_of(anatomy, run, i)[..., labels].sum(dim=-1).double().mean(dim=0).cpu() for i in layers]
    by_query = torch.stack(masses)
    kinds = {kind: batch.role == role for kind, role in KINDS.items()}
    return {kind: by_query[..., queries].mean(dim=-1) for kind, queries in kinds.items() if queries.any()}
