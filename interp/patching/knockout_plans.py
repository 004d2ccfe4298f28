"""What an entry of knockouts changes in a run, layer by layer, and from where on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.attention_changes import AttentionChange
from interp.patching.changes import Changes, Where, WhereEdit
from interp.patching.editing import Place
from interp.patching.knockouts import MODES, Masks, Mode
from interp.patching.patched_runs import pattern_from_scores, rows_of
from interp.patching.unpatched import Unpatched
from interp.sites import Site


class KnockoutPlan:
    """One checked entry: the edges that it removes, and where its run begins to differ."""

    def __init__(self, anatomy: Anatomy, masks: Masks, mean_by: str | None) -> None:
        self.anatomy, self.mean_by = anatomy, mean_by
        # An edge that is nulled has no attention left to carry a mean.
        nulled = masks.get("null", {})
        averaged = {i: x & ~nulled[i] if i in nulled else x for i, x in masks.get("mean", {}).items()}
        self.masks: Masks = {**masks, "mean": {layer: mask for layer, mask in averaged.items() if mask.any()}}
        self.start = min(layer for by_layer in masks.values() for layer in by_layer)
        dest = [mask.any(dim=-1).any(dim=0) for by_layer in masks.values() for mask in by_layer.values()]
        self.first = min(int(x.nonzero()[0]) for x in dest) if anatomy.causal else 0
        # The queries that change in the first layer.
        changed = [by_layer[self.start].any(dim=-1).any(dim=0) for by_layer in masks.values() if self.start in by_layer]
        self.dest = torch.stack(changed).any(dim=0).nonzero().flatten().to(anatomy.device)
        # Layers whose change needs no pattern. In the first layer a pattern is at hand, which is cheaper for few heads.
        self.attention = {
            layer: change for layer in range(self.start, len(anatomy.blocks)) if (change := self._of(layer))
        }

    @property
    def sites(self) -> set[Site]:
        """The sites that are edited in the first layer."""
        if self.start in self.attention:
            return {"attn_scores"}
        by_mode: dict[Mode, Site] = {"renormalise": "attn_scores", "null": "pattern", "mean": "z"}
        return {site for mode, site in by_mode.items() if self.start in self.masks.get(mode, {})}

    def changes(self, run: Unpatched, means: Mapping[str, Mapping[int, Tensor]], freeze_later: bool) -> Changes:
        """Return the changes of the entry; with `freeze_later` all layers attend as in the unpatched run."""
        edits: dict[Place, WhereEdit] = {}
        patterns: dict[int, Callable[[Where], Tensor]] = {}
        attention: dict[int, AttentionChange] = {}
        for layer in range(self.start, len(self.anatomy.blocks)):
            if layer in self.attention and not freeze_later:
                attention[layer] = self._with_values(layer, means)
                continue
            removed, nulled, averaged = self._masks_of(layer)
            if freeze_later:
                patterns[layer] = partial(_frozen_pattern, self.anatomy, run, layer, removed)
            elif removed is not None:
                edits["attn_scores", layer] = partial(_masked, removed, -torch.inf)
            if nulled is not None and averaged is None and _are_few(nulled):
                edits["z", layer] = partial(_replaced, self.anatomy, nulled, None)  # of few heads: the cheaper form
            elif nulled is not None:
                edits["pattern", layer] = partial(_masked, nulled, 0.0)
            if averaged is not None:
                edits["z", layer] = partial(_replaced, self.anatomy, averaged, means[self.mean_by or ""][layer])
        dest = self.dest[self.dest < run.n_pos]
        return Changes(self.start, self.first, edits, patterns, attention, dest=dest)

    def _masks_of(self, layer: int) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        removed, nulled, averaged = (self.masks.get(mode, {}).get(layer) for mode in MODES)
        return removed, nulled, averaged

    def _of(self, layer: int) -> AttentionChange | None:
        """Return the change of a layer, without the values that queries read instead; None where it needs a pattern."""
        removed, nulled, averaged = self._masks_of(layer)
        if nulled is None and averaged is None:
            return None if removed is None else AttentionChange(edges=removed)
        if removed is not None or (nulled is not None and averaged is not None):
            return None
        mask = averaged if nulled is None else nulled
        assert mask is not None
        if layer == self.start and _are_few(mask):
            return None
        cells, src = mask.any(dim=-1), mask.any(dim=1).any(dim=0)
        rows = cells.unsqueeze(-1) & src
        same = torch.equal(mask, rows.tril() if self.anatomy.causal else rows)
        return AttentionChange(cells=cells, src=src.nonzero().flatten()) if same else None

    def _with_values(self, layer: int, means: Mapping[str, Mapping[int, Tensor]]) -> AttentionChange:
        change, averaged = self.attention[layer], self.masks.get("mean", {}).get(layer)
        if change.src is None:
            return change
        anatomy = self.anatomy
        if averaged is None:
            values = torch.zeros(1, anatomy.n_heads, anatomy.d_head).expand(len(change.src), -1, -1)
        else:
            values = anatomy.expand_heads(means[self.mean_by or ""][layer][change.src.to(anatomy.device)])
        return replace(change, values=values.unsqueeze(0))


def _are_few(mask: Tensor) -> bool:
    """Return whether edges of at most half of the heads are removed."""
    return 2 * int(mask.any(dim=(1, 2)).sum()) <= len(mask)


def _frozen_pattern(anatomy: Anatomy, run: Unpatched, layer: int, removed: Tensor | None, where: Where) -> Tensor:
    """Return the unpatched run's pattern, without the edges that are removed."""
    if removed is None:
        return run.at("pattern", layer, where)
    scores = run.at("attn_scores", layer, where)
    return pattern_from_scores(anatomy, layer, _masked(removed, -torch.inf, scores, {}, where))


def _masked(mask: Tensor, value: float, x: Tensor, _: Mapping[Site, Tensor], where: Where) -> Tensor:
    return x.masked_fill(rows_of(mask, where, x.shape[-1]).to(x.device), value)


def _replaced(
    anatomy: Anatomy, mask: Tensor, mean: Tensor | None, z: Tensor, computed: Mapping[Site, Tensor], where: Where
) -> Tensor:
    """Return z with the values at masked edges replaced by their mean; None for zero, which deletes numerators."""
    here = rows_of(mask, where, computed["pattern"].shape[-1])
    heads, dest, src = (here.any(dim=other).nonzero().flatten() for other in ((1, 2), (0, 2), (0, 1)))
    edges = (heads[:, None, None], dest[:, None], src)
    weights = computed["pattern"][:, *(x.to(z.device) for x in edges)] * here[edges].to(z.device)
    heads, dest, src = (x.to(z.device) for x in (heads, dest, src))
    v = computed["v"][:, src]
    difference = anatomy.expand_heads(-v if mean is None else mean[src] - v)[:, :, heads]
    z = z.clone()
    z[:, dest.unsqueeze(1), heads] += torch.einsum("rhds,rshe->rdhe", weights, difference)
    return z
