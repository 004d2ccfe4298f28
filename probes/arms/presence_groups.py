"""Presence, groups: the cells that presence by answer tests together.

Several heads can be each other's backups, or hide behind one that is always read (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
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
# Cells of a large model that are tested by themselves.
MOST_CELLS = 12
# Prompts whose attention orders pairs and cells where there are more.
ORDERED_BY = 8


@dataclass(frozen=True)
class Group:
    """Cells that are tested together, and the labels whose keys and values they read: one side, or both."""

    cells: Cells
    side: tuple[Role, ...] = LABELS


def groups_of(model: PreTrainedModel, batch: Batch, idle: Cells) -> dict[str, Group]:
    """Return by name what is tested, of the cells that carry something: each, pairs, all but one, all, all by side.

    In large models, cells of a layer, or of a band of layers (`probes.arms.bands`), are tested together in place of
    each; by themselves only the `MOST_CELLS` that attend most to labels. Groups of idle cells alone are left out:
    presence by cell tests them.
    """
    every = all_cells(model, batch)
    carrying, mass = {_name(cell): [cell] for cell in every if cell not in idle.members}, attention_of(model, batch)
    found = {f"{one} and {other}": (*carrying[one], *carrying[other]) for one, other in pairs_of(carrying, mass)}
    if len(all_heads(model)) > MANY_UNITS:
        by_attention = sorted(carrying, key=lambda name: -mass(carrying[name]))
        found |= {name: tuple(carrying[name]) for name in by_attention[:MOST_CELLS]}
        carrying = _by_bands(model, [cell for cell in every if cell not in idle.members])
    found = {name: tuple(cells) for name, cells in carrying.items()} | found
    if len(carrying) > 2:
        found |= {
            f"all but {name}": tuple(cell for cell in every if cell not in cells) for name, cells in carrying.items()
        }
    groups = {name: Group(Cells(cells)) for name, cells in found.items()} | {"all": Group(Cells(tuple(every)))}
    sides = [role for role in LABELS if (batch.role == role).any()]
    for role in sides if len(sides) > 1 else []:
        side = f"of {KIND_OF[role]}"
        groups[f"all, {side}"] = Group(Cells(tuple(every)), (role,))
        for kind in dict.fromkeys(kind for kind, _ in every):
            groups[f"{kind}, {side}"] = Group(Cells(tuple(cell for cell in every if cell[0] == kind)), (role,))
    return {name: group for name, group in groups.items() if not set(group.cells.members) <= set(idle.members)}


def _name(cell: Cell) -> str:
    kind, (layer, head) = cell
    return f"{kind}, layer {layer}, head {head}"


def _by_bands(model: PreTrainedModel, cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return cells by kind of query and band of layers."""
    band_of = {layer: name for name, band in layer_bands(model.config.num_hidden_layers).items() for layer in band}
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        kind, (layer, _) = cell
        found.setdefault(f"{kind}, {band_of[layer]}", []).append(cell)
    return found


def pairs_of(
    carrying: Mapping[str, list[Cell]], mass: Callable[[Sequence[Cell]], float], most: int = MOST_PAIRS
) -> list[tuple[str, str]]:
    """Return the pairs within a kind of query, by name; of more than `most`, those that attend most to labels.

    `mass` is `attention_of`. A pair attends as much as the lesser of the two. Pairs that attend equally keep their
    order, so that the choice is the same in every run.
    """
    pairs = [pair for pair in combinations(carrying, 2) if len({carrying[name][0][0] for name in pair}) == 1]
    if len(pairs) <= most:
        return pairs
    of = {name: mass(cells) for name, cells in carrying.items()}
    return sorted(pairs, key=lambda pair: -min(of[name] for name in pair))[:most]


def attention_of(model: PreTrainedModel, batch: Batch) -> Callable[[Sequence[Cell]], float]:
    """Return a function of cells: the attention on labels of that one which attends most to them.

    The prompts run when it is first called.
    """
    attention = cache(lambda: attention_on_labels(anatomy_of(raw_of(model)), batch.rows(slice(ORDERED_BY))))
    return lambda cells: max(float(attention()[kind][head]) for kind, head in cells)
