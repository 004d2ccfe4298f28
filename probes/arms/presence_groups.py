"""Presence, groups: the cells that presence by answer tests together.

Several heads can be each other's backups, or hide behind one that is always read (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from transformers import PreTrainedModel

from interp.models.anatomy import anatomy_of
from interp.models.resolve import raw_of
from interp.tasks import Batch, Role
from probes.arms.bands import layer_bands
from probes.arms.group_search import MANY_UNITS
from probes.arms.idle_heads import LABELS, all_heads
from probes.arms.presence_attention import attention_on_labels
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

    In large models cells are those of a layer together, or of a band of layers (`probes.arms.bands`). Groups of idle
    cells alone are left out: presence by cell tests them.
    """
    every = all_cells(model, batch)
    together = len(all_heads(model)) > MANY_UNITS
    band_of = {layer: name for name, band in layer_bands(model.config.num_hidden_layers).items() for layer in band}
    carrying: dict[str, list[Cell]] = {}
    for cell in every:
        if cell not in idle.members:
            kind, (layer, head) = cell
            name = f"{kind}, {band_of[layer]}" if together else f"{kind}, layer {layer}, head {head}"
            carrying.setdefault(name, []).append(cell)
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
    attention = attention_on_labels(anatomy_of(raw_of(model)), batch.rows(slice(ORDERED_BY)))

    def mass(name: str) -> float:
        return max(float(attention[kind][head]) for kind, head in carrying[name])

    return sorted(pairs, key=lambda pair: -min(map(mass, pair)))[:most]
