"""Presence, removal: take labels out of the attention of some cells, on the runs that interchanges keep.

`interp.patching.knock_out` does the same at any place of any model, on runs of its own; it is the reference.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.arguments import exclusive
from interp.patching.attention_changes import AttentionChange
from interp.patching.knockouts import Entry, Mode, masks_of
from interp.support.finite import require_finite
from probes.arms.presence_interchanges import Interchanges, Moved, joined, measure_all
from probes.arms.presence_sharing import ChangeOf, ChangesOf


def counted(src: Bool[Tensor, " pos"], added: float) -> ChangeOf:
    """Return the change that adds `added` to the scores of labels: minus infinity removes them, log 2 doubles them."""
    changes: dict[tuple[int, bytes], AttentionChange] = {}

    def change_of(layer: int, mask: Tensor, rows: Tensor) -> AttentionChange:
        del rows
        key = layer, mask.numpy().tobytes()
        if key not in changes:  # all prompts share it, with what is derived from it
            changes[key] = AttentionChange(edges=mask.unsqueeze(2) & src, added=added, reused=True)
        return changes[key]

    return change_of


def nulled(work: Interchanges, src: Bool[Tensor, " pos"]) -> ChangeOf:
    """Return the change in which the attention on labels reads zero."""
    at, anatomy = src.nonzero().flatten(), work.anatomy
    zero = torch.zeros(1, len(at), anatomy.n_heads, anatomy.d_head, dtype=anatomy.dtype, device=anatomy.device)
    return lambda layer, mask, rows: AttentionChange(cells=mask, src=at, values=zero)


def removed(work: Interchanges, entries: Mapping[str, Entry]) -> dict[str, Moved]:
    """Return what each knockout changes. One entry has one mode, and removes the same labels from all of its cells.

    Values are averaged by role. Raises the errors of `interp.patching.knock_out`.
    """
    means = _mean_values(work.anatomy.raw, work)
    measured = measure_all(work, {name: _changes_of(work, entry, means) for name, entry in entries.items()})
    return {name: joined(work.parts_moved([found])) for name, found in measured.items()}


def _changes_of(work: Interchanges, entry: Entry, means: Mapping[int, Tensor]) -> ChangesOf:
    ((mode, masks),) = masks_of(work.anatomy, work.batch, entry).items()
    changes = {layer: _change_of(work, mode, layer, mask, means) for layer, mask in masks.items()}
    return lambda rows: changes


def _change_of(
    work: Interchanges, mode: Mode, layer: int, mask: Bool[Tensor, "head dest src"], means: Mapping[int, Tensor]
) -> AttentionChange:
    if mode == "renormalise":
        return AttentionChange(edges=mask, reused=True)
    cells, src = mask.any(dim=-1), mask.any(dim=1).any(dim=0)
    edges = cells.unsqueeze(-1) & src
    assert torch.equal(mask, edges.tril() if work.anatomy.causal else edges), "all cells lose the same labels"
    change_of = nulled(work, src) if mode == "null" else _meant(work, src, means)
    return change_of(layer, cells, torch.empty(0))


def averaged_values(work: Interchanges, src: Bool[Tensor, " pos"]) -> ChangeOf:
    """Return the change in which attention on `src` reads the mean value of all prompts at positions of its role."""
    return _meant(work, src, _mean_values(work.anatomy.raw, work))


def _meant(work: Interchanges, src: Bool[Tensor, " pos"], means: Mapping[int, Tensor]) -> ChangeOf:
    at = src.nonzero().flatten()

    def change_of(layer: int, mask: Tensor, rows: Tensor) -> AttentionChange:
        del rows
        values = work.anatomy.expand_heads(means[layer][at.to(means[layer].device)])
        return AttentionChange(cells=mask, src=at, values=values.unsqueeze(0), reused=True)

    return change_of


@exclusive
@torch.no_grad()
def _mean_values(model: PreTrainedModel, work: Interchanges) -> dict[int, Float[Tensor, "pos kv_head d_head"]]:
    """Return the mean value by layer over all prompts, at positions of the same role."""
    del model  # locked
    total = dict[int, Tensor]()
    for rows in work.chunks():
        run = work.unpatched(rows)
        for layer in range(len(work.anatomy.blocks)):
            v = require_finite(run.kept["v", layer], f"a value of layer {layer}", rows, axis=0)
            total[layer] = total.get(layer, 0) + v.double().sum(dim=0)
    role = work.batch.role
    alike = (role.unsqueeze(1) == role).double()
    weights = (alike / alike.sum(dim=1, keepdim=True) / len(work.batch)).to(work.anatomy.device)
    return {i: torch.einsum("ps,she->phe", weights, x).to(work.anatomy.dtype) for i, x in total.items()}
