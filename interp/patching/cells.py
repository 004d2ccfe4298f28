"""The cells of a sweep: which patches it consists of, and which of them cannot change the metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

import torch
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.sites import NEURON_SITES, PATCH_SITES, Site, head_count, require_site

# Sites that change resid_post at their own position only; resid_pre, k and v change later positions of their layer.
LOCAL_SITES: tuple[Site, ...] = ("resid_mid", "resid_post", "attn_out", "mlp_out", "q", "z", "pattern", *NEURON_SITES)


@dataclass(frozen=True)
class Cell:
    """One patch: a site's layer, one or several positions jointly, and a head if the site has heads.

    `neurons`: the neurons that are patched together, at a site with neurons; None for all.
    """

    layer: int
    positions: tuple[int, ...]
    head: int | None = None
    neurons: tuple[int, ...] | None = None


def chosen(what: str, numbers: int | Sequence[int] | None, count: int) -> list[int]:
    """Return layers or heads as a list; None is all. Raises `ValueError` for one that does not exist."""
    given = range(count) if numbers is None else [numbers] if isinstance(numbers, int) else list(numbers)
    if any(isinstance(n, bool) for n in given):
        raise ValueError(f"a {what} is a whole number; got {given!r}")
    try:
        listed = [index(n) for n in given]  # of tensors and arrays too
    except TypeError as error:
        raise ValueError(f"a {what} is a whole number; got {given!r}") from error
    if not listed:
        raise ValueError(f"no {what} was given; there are {count}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"the same {what} is given twice: {', '.join(map(str, listed))}")
    if bad := [n for n in listed if not 0 <= n < count]:
        raise ValueError(f"there is no {what} {bad[0]}; {what}s run from 0 to {count - 1}")
    return listed


def check_site(site: str, anatomy: Anatomy) -> None:
    """Raise `ValueError` for a site that cannot be patched, or that this architecture does not have."""
    require_site(site, PATCH_SITES, "patch")
    if site == "resid_mid" and anatomy.blocks[0].parallel:
        raise ValueError("parallel blocks have no resid_mid: attention and MLP both read resid_pre; patch attn_out")
    if site == "mlp_out" and not anatomy.blocks[0].has_mlp:
        raise ValueError("this model has no MLPs, so there is no mlp_out")
    if site in NEURON_SITES and not any(block.has_neurons for block in anatomy.blocks):
        what = "no MLPs" if not anatomy.blocks[0].has_mlp else "experts, whose neurons are not taken apart"
        raise ValueError(f"this model has {what}, so there is no {site}")


def heads_at(site: str, anatomy: Anatomy) -> int:
    """Return how many heads a site has; 0 for sites of the residual stream."""
    return head_count(site, anatomy.n_heads, anatomy.n_kv_heads)


def neuron_groups(
    site: str, anatomy: Anatomy, layers: Sequence[int], neurons: int | Sequence[int | Sequence[int]]
) -> list[tuple[int, ...]]:
    """Return the groups of neurons that are patched together: each number is a group of one.

    Raises `ValueError` at a site without neurons, for a neuron that does not exist and for the same group twice.
    """
    require_neurons(site, anatomy, layers)
    width = min(anatomy.n_neurons(layer) for layer in layers)
    listed = [neurons] if isinstance(neurons, int) else list(neurons)
    groups = [(group,) if isinstance(group, int) else tuple(sorted(group)) for group in listed]
    if not groups or not all(groups):
        raise ValueError("no neuron was given; leave `neurons` out for all of a layer together")
    if len(set(groups)) < len(groups):
        raise ValueError("the same neurons are given twice")
    for group in groups:
        chosen("neuron", group, width)
    return groups


def require_neurons(site: str, anatomy: Anatomy, layers: Sequence[int]) -> None:
    """Raise `ValueError` unless the site has neurons in each of these layers."""
    if site not in NEURON_SITES:
        raise ValueError(f"{site} has no neurons; {' and '.join(NEURON_SITES)} have")
    if without := [layer for layer in layers if not anatomy.blocks[layer].has_neurons]:
        raise ValueError(f"layer {without[0]} has experts, whose neurons are not taken apart; leave it out")


def live(cell: Cell, site: str, differs: Sequence[bool], reads: set[int], n_layers: int) -> bool:
    """Return whether a patch can change the metric; False is exact.

    `differs [pos]`: where source and base activations differ in any bit. A patch after the last position read has no
    effect. In the last layer a local change has no effect at a position that is not read.
    """
    at = [p for p in cell.positions if differs[p]]
    if not at or min(at) > max(reads):
        return False
    return not (site in LOCAL_SITES and cell.layer == n_layers - 1 and not reads.intersection(at))


def which_live(
    cells: Sequence[Cell], site: str, differs: Sequence[Sequence[Sequence[bool]]], reads: Sequence[int]
) -> list[bool]:
    """Return `live` of each cell, by where source and base activations differ, `[layer][head][pos]`."""
    read = set(reads)
    return [live(cell, site, differs[cell.layer][cell.head or 0], read, len(differs)) for cell in cells]


def first(cell: Cell) -> int:
    """Return the first position that a patch changes."""
    return min(cell.positions)


def as_index(cells: Sequence[Cell], device: torch.device) -> Tensor:
    """Return the positions of cells that have equally many, `[cell position]`."""
    return torch.tensor([c.positions for c in cells]).to(device, non_blocking=True)
