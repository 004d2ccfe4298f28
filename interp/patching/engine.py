"""The engine: many patches at once, without computing what a patch leaves unchanged.

Under a causal mask a patch at layer l and position p changes only layers from l and positions from p on. Patches that
start in the same bucket of positions are stacked. Each row joins at its own layer with the unpatched run's residual,
and attends to the unpatched keys and values of the positions before the bucket. The last layer and the unembedding
are computed only where the metric reads. Results differ from one forward pass per patch by rounding only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.cells import Cell
from interp.patching.metric import Metric
from interp.patching.own_layer import OwnLayer, after_attention
from interp.patching.tracing import Trace, pattern_of


class Engine:
    """Patches from one run (source) into another (base), both `[batch pos]` of the same layout.

    `prompts [batch]` are the numbers of these prompts in the whole set, which the metric knows them by. With `cache`,
    activations that a site needs in another form are kept for all layers, else for one.
    """

    @torch.no_grad()
    def __init__(
        self,
        anatomy: Anatomy,
        base: Trace,
        source: Trace,
        site: str,
        metric: Metric,
        prompts: Tensor,
        cache: bool = True,
    ) -> None:
        self.anatomy, self.base, self.source, self.site, self.metric = anatomy, base, source, site, metric
        self.prompts, self.cache = prompts, cache
        self.n_layers = len(anatomy.blocks)
        self.n_pos = base.tokens.shape[1]
        self.reads = metric.positions.to(anatomy.device)
        self.read_list = metric.positions.tolist()
        self.positions = torch.arange(self.n_pos, device=anatomy.device)
        # Unpatched keys and values as attention uses them, [batch head pos d_head].
        self.keys = [
            anatomy.expand_heads(anatomy.keys(block, k, self.positions)).transpose(1, 2)
            for block, k in zip(anatomy.blocks, base.k, strict=True)
        ]
        self.values = [anatomy.expand_heads(v).transpose(1, 2) for v in base.v]
        self.base_logits = anatomy.unembed(base.resid_pre[-1][:, self.reads])
        self.own = OwnLayer(anatomy, base, source, site, self.keys, self.values, cache)

    def between(self, source: Trace, site: str) -> Engine:
        """Return an engine with the same base and another source or site."""
        other = copy.copy(self)
        other.source, other.site = source, site
        other.own = OwnLayer(self.anatomy, self.base, source, site, self.keys, self.values, self.cache)
        return other

    @torch.no_grad()
    def measure(self, run: Trace) -> Float[Tensor, " batch"]:
        """Return the metric of an unpatched run of these prompts."""
        logits = self.base_logits if run is self.base else self.anatomy.unembed(run.resid_pre[-1][:, self.reads])
        return self.metric.measure(logits, self.prompts).double().cpu()

    @torch.no_grad()
    def differs(self) -> Bool[Tensor, "layer head pos"]:
        """Return where source and base differ in any bit, for any prompt. Sites without heads have one."""
        return torch.stack([self._differs(layer) for layer in range(self.n_layers)]).cpu()

    def _differs(self, layer: int) -> Bool[Tensor, "head pos"]:
        if self.site == "pattern":
            source, base = (pattern_of(self.anatomy, run, layer) for run in (self.source, self.base))
            return (source != base).any(dim=-1).any(dim=0)
        source, base = (run.site(self.site, layer) for run in (self.source, self.base))
        changed = (source != base).any(dim=-1).any(dim=0)  # [pos] or [pos head]
        return changed.unsqueeze(0) if changed.ndim == 1 else changed.T

    @torch.no_grad()
    def run(self, cells: Sequence[Cell], start: int) -> Float[Tensor, "cell batch"]:
        """Return the metric after each patch. Every cell's positions are at or after `start`."""
        order = sorted(range(len(cells)), key=lambda i: cells[i].layer)
        rows: Tensor | None = None  # [cell batch pos-from-start d_model], in `order`
        for layer in range(self.n_layers):
            here = [cells[i] for i in order if cells[i].layer == layer]
            entering = here if self.site == "resid_pre" else []
            if rows is not None or entering:
                rows = self._advance(layer, rows, entering, start)
            if self.site != "resid_pre" and here:
                new = self.own.resid_post(layer, here, self._dest(layer, start), self._dest_list(layer, start))
                rows = new if rows is None else torch.cat([rows, new])
        assert rows is not None
        values = self._measure_rows(rows, start)
        return values[torch.tensor(order).argsort()]

    def _dest(self, layer: int, start: int) -> Int[Tensor, " dest"]:
        """Return the positions that a layer has to compute: in the last layer, those that the metric reads."""
        return self.reads[self._early(start) :] if layer == self.n_layers - 1 else self.positions[start:]

    def _early(self, start: int) -> int:
        """Return how many of the positions read are before `start`."""
        return sum(position < start for position in self.read_list)

    def _edited(self, site: str, layer: int, cells: Sequence[Cell], start: int) -> Tensor:
        """Return copies of the base's `[batch pos ...]` from `start` on, with each cell's positions from the source."""
        base, source = (run.site(site, layer) for run in (self.base, self.source))
        rows = base[:, start:].expand(len(cells), *(-1 for _ in base.shape)).clone()
        pairs = [(row, position) for row, cell in enumerate(cells) for position in cell.positions]
        row, position = torch.tensor(pairs, device=rows.device).unbind(dim=1)
        rows[row, :, position - start] = source[:, position].transpose(0, 1)
        return rows

    def _advance(self, layer: int, rows: Tensor | None, entering: Sequence[Cell], start: int) -> Tensor:
        """Run one block over the stacked rows `[cell batch pos-from-start d_model]` and over the entering cells.

        Entering cells patch resid_pre of this layer. They differ from the base at their own positions only, where
        q, k and v are the source's, so nothing of theirs is projected.
        """
        anatomy, block, dest = self.anatomy, self.anatomy.blocks[layer], self._dest(layer, start)
        src, at = self.positions[start:], dest - start
        parts = [] if rows is None else [(rows, *block.project(rows))]
        if entering:
            resid, q, k, v = (self._edited(site, layer, entering, start) for site in ("resid_pre", "q", "k", "v"))
            parts.append((resid, q, k, v))
        resid, q, k, v = (p[0] if len(p) == 1 else torch.cat(p) for p in zip(*parts, strict=True))
        q = anatomy.queries(block, q[:, :, at], dest)
        sink = anatomy.sink(block, q, dest)  # [cell batch head dest 1]
        sink = sink if sink is None else sink.permute(1, 2, 0, 3, 4)
        q = q.permute(1, 3, 0, 2, 4) * block.scale  # [batch head cell dest d_head]
        k = anatomy.expand_heads(anatomy.keys(block, k, src)).permute(1, 3, 0, 2, 4)
        v = anatomy.expand_heads(v).permute(1, 3, 0, 2, 4)
        before_k, before_v = self.keys[layer][:, :, :start], self.values[layer][:, :, :start]
        n_cells, n_dest = q.shape[2], q.shape[3]
        # The prefix is the same for every cell: cells are folded into queries, so that it is never copied.
        prefix = (q.flatten(2, 3) @ before_k.mT).unflatten(2, (n_cells, n_dest))
        scores = block.cap(torch.cat([prefix, q @ k.mT], dim=-1))
        pattern = anatomy.softmax(scores.add_(anatomy.bias(block, dest, self.positions).unsqueeze(1)), sink)
        z = (pattern[..., :start].flatten(2, 3) @ before_v).unflatten(2, (n_cells, n_dest))
        z = z + pattern[..., start:] @ v
        return after_attention(block, resid[:, :, at], z.permute(2, 0, 3, 1, 4))

    def _dest_list(self, layer: int, start: int) -> list[int]:
        last = layer == self.n_layers - 1
        return [p for p in self.read_list if p >= start] if last else list(range(start, self.n_pos))

    def _measure_rows(self, rows: Tensor, start: int) -> Float[Tensor, "cell batch"]:
        """Return the metric, from final residuals `[cell batch read-from-start d_model]` and the base's logits."""
        logits = self.anatomy.unembed(rows)
        if early := self._early(start):
            logits = torch.cat([self.base_logits[:, :early].expand(len(rows), -1, -1, -1), logits], dim=2)
        return self.metric.measure(logits, self.prompts).double().cpu()
