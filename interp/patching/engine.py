"""How are many patches computed at once, and none of their unchanged parts?

Under a causal mask a patch at layer l and position p changes only layers from l and positions from p on. So
patches that start in the same bucket of positions are stacked; each row joins at its own layer, with the
unpatched run's residual, and attends to the unpatched keys and values of the positions before the bucket; the
last layer and the unembedding are computed only where the metric reads. Exact, not approximate: results differ
from one forward a patch by rounding alone (design, section 6).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.cells import LOCAL_SITES, Cell, as_index
from interp.patching.metrics import Metric
from interp.patching.tracing import Trace, pattern_of


class Engine:
    """Patches from one run (source) into another (base), both `[batch pos]` of the same layout.

    `prompts [batch]` are the numbers of these prompts in the whole batch, which the metric knows them by.
    """

    @torch.no_grad()
    def __init__(
        self, anatomy: Anatomy, base: Trace, source: Trace, site: str, metric: Metric, prompts: Tensor
    ) -> None:
        self.anatomy, self.base, self.source, self.site, self.metric = anatomy, base, source, site, metric
        self.prompts = prompts
        self.n_layers = len(anatomy.blocks)
        self.n_pos = base.tokens.shape[1]
        self.reads = metric.positions.to(anatomy.device)
        self.positions = torch.arange(self.n_pos, device=anatomy.device)
        # Unpatched keys and values as attention uses them, [batch head pos d_head].
        self.keys = [anatomy.expand_heads(anatomy.rotate(k, self.positions)).transpose(1, 2) for k in base.k]
        self.values = [anatomy.expand_heads(v).transpose(1, 2) for v in base.v]
        self.patterns: dict[int, Tensor] = {}
        self.base_logits = anatomy.unembed(base.resid_pre[-1][:, self.reads])

    @torch.no_grad()
    def measure_base(self) -> Float[Tensor, " batch"]:
        """The metric of the unpatched run."""
        return self.metric.compute(self.base_logits, self.prompts).double().cpu()

    @torch.no_grad()
    def differs(self, layer: int, head: int | None) -> Tensor:
        """`[pos]`: where source and base differ in any bit, for any prompt."""
        if self.site == "pattern":
            source, base = (pattern_of(self.anatomy, t, layer)[:, head] for t in (self.source, self.base))
            return (source != base).any(dim=-1).any(dim=0).cpu()
        source, base = (t.site(self.site, layer) for t in (self.source, self.base))
        if head is not None:
            source, base = source[:, :, head], base[:, :, head]
        return (source != base).any(dim=-1).any(dim=0).cpu()

    @torch.no_grad()
    def run(self, cells: Sequence[Cell], start: int) -> Float[Tensor, "cell batch"]:
        """The metric after each patch. Every cell's positions are at or after `start`."""
        order = sorted(range(len(cells)), key=lambda i: cells[i].layer)
        rows: Tensor | None = None  # [cell batch pos-from-start d_model], in `order`
        for layer in range(self.n_layers):
            here = [cells[i] for i in order if cells[i].layer == layer]
            entering = here if self.site == "resid_pre" else []
            if rows is not None or entering:
                rows = self._advance(layer, rows, entering, start)
            if self.site != "resid_pre" and here:
                rows = _joined(rows, self._enter(layer, here, start))
        assert rows is not None
        values = self._measure(rows, start)
        return values[torch.tensor(order).argsort()]

    def _dest(self, layer: int, start: int) -> Tensor:
        """Positions that a layer has to compute: in the last one, those that the metric reads."""
        return self.reads[self.reads >= start] if layer == self.n_layers - 1 else self.positions[start:]

    def _edited(self, site: str, layer: int, cells: Sequence[Cell], start: int) -> Tensor:
        """Copies of the base's `[batch pos ...]` from start on, with each cell's positions from the source."""
        base, source = (run.site(site, layer) for run in (self.base, self.source))
        rows = base[:, start:].expand(len(cells), *(-1 for _ in base.shape)).clone()
        for row, cell in enumerate(cells):
            for position in cell.positions:
                rows[row, :, position - start] = source[:, position]
        return rows

    def _advance(self, layer: int, rows: Tensor | None, entering: Sequence[Cell], start: int) -> Tensor:
        """One block over the stacked rows `[cell batch pos-from-start d_model]` and those whose resid_pre is patched.

        Rows that enter here differ from the base at their own positions alone, and there q, k and v are the
        source's: nothing of theirs is projected.
        """
        anatomy, block, dest = self.anatomy, self.anatomy.blocks[layer], self._dest(layer, start)
        src, at = self.positions[start:], dest - start
        parts = [] if rows is None else [(rows, *block.project(rows))]
        if entering:
            resid, q, k, v = (self._edited(site, layer, entering, start) for site in ("resid_pre", "q", "k", "v"))
            parts.append((resid, q, k, v))
        resid, q, k, v = (p[0] if len(p) == 1 else torch.cat(p) for p in zip(*parts, strict=True))
        q = anatomy.rotate(q[:, :, at], dest)
        sink = anatomy.sink(block, q, dest)  # [cell batch head dest 1]
        sink = sink if sink is None else sink.permute(1, 2, 0, 3, 4)
        q = q.permute(1, 3, 0, 2, 4) * anatomy.scale  # [batch head cell dest d_head]
        k = anatomy.expand_heads(anatomy.rotate(k, src)).permute(1, 3, 0, 2, 4)
        v = anatomy.expand_heads(v).permute(1, 3, 0, 2, 4)
        before_k, before_v = self.keys[layer][:, :, :start], self.values[layer][:, :, :start]
        n_cells, n_dest = q.shape[2], q.shape[3]
        # The prefix is the same for every cell: fold cells into queries, so that it is never copied.
        prefix = (q.flatten(2, 3) @ before_k.mT).unflatten(2, (n_cells, n_dest))
        scores = torch.cat([prefix, q @ k.mT], dim=-1)
        pattern = anatomy.softmax(scores.add_(anatomy.bias(dest, self.positions).unsqueeze(1)), sink)
        z = (pattern[..., :start].flatten(2, 3) @ before_v).unflatten(2, (n_cells, n_dest))
        z = z + pattern[..., start:] @ v
        return self._finish(layer, resid[:, :, at], z.permute(2, 0, 3, 1, 4))

    def _finish(self, layer: int, resid: Tensor, z: Tensor) -> Tensor:
        """resid_post from resid_pre and z at the same positions."""
        block = self.anatomy.blocks[layer]
        mid = resid + block.attn_out(z)
        return mid + block.mlp_out(resid if block.parallel else mid)

    def _enter(self, layer: int, cells: Sequence[Cell], start: int) -> Tensor:
        """resid_post of a layer's own patches, at the positions that the next layer needs."""
        if self.site in ("k", "v"):
            return torch.cat([self._keys_or_values(layer, cell, start) for cell in cells])
        base = self.base.resid_pre[layer + 1]
        dest = self._dest(layer, start)
        rows = base[:, dest].expand(len(cells), -1, -1, -1).clone()
        place = {int(p): i for i, p in enumerate(dest.tolist())}
        for size in sorted({len(c.positions) for c in cells}):
            group = [i for i, c in enumerate(cells) if len(c.positions) == size]
            new = self._local(layer, [cells[i] for i in group])  # [cell batch position d_model]
            for row, i in enumerate(group):
                for column, position in enumerate(cells[i].positions):
                    if position in place:
                        rows[i, :, place[position]] = new[row, :, column]
        return rows

    def _local(self, layer: int, cells: Sequence[Cell]) -> Float[Tensor, "cell batch position d_model"]:
        """resid_post at the patched positions, for sites that change nothing else in their layer."""
        assert self.site in LOCAL_SITES
        base, block = self.base, self.anatomy.blocks[layer]
        at = as_index(cells, self.anatomy.device)  # [cell position]

        def take(x: Tensor) -> Tensor:  # [batch pos ...] -> [cell batch position ...]
            return x[:, at].transpose(0, 1)

        resid = take(base.resid_pre[layer])
        match self.site:
            case "resid_post":
                return take(self.source.resid_pre[layer + 1])
            case "mlp_out":
                return take(base.resid_mid[layer]) + take(self.source.mlp_out[layer])
            case "resid_mid":
                mid = take(self.source.resid_mid[layer])
                return mid + block.mlp_out(mid)
            case "attn_out":
                mid = resid + take(self.source.attn_out[layer])
                return mid + block.mlp_out(resid if block.parallel else mid)
        z = take(base.z[layer]).clone()
        for row, cell in enumerate(cells):
            z[row, ..., cell.head, :] = self._head_output(layer, cell)
        return self._finish(layer, resid, z)

    def _head_output(self, layer: int, cell: Cell) -> Float[Tensor, "batch position d_head"]:
        """z of the patched head at the patched positions."""
        at, head = list(cell.positions), cell.head
        assert head is not None
        if self.site == "z":
            return self.source.z[layer][:, at, head]
        if self.site == "pattern":
            return self._source_pattern(layer)[:, head, at] @ self.values[layer][:, head]
        dest = self.positions[at]
        q = self.anatomy.rotate(self.source.q[layer][:, at, head : head + 1], dest)[:, :, 0]
        return self._attend(layer, head, q, self.keys[layer][:, head], dest) @ self.values[layer][:, head]

    def _attend(self, layer: int, head: int, q: Tensor, keys: Tensor, dest: Tensor) -> Tensor:
        """One head's pattern `[batch dest src]` from rotated q `[batch dest d_head]` and keys `[batch src d_head]`."""
        bias = self.anatomy.bias(dest, self.positions)
        sink = self.anatomy.sink(self.anatomy.blocks[layer], q.unsqueeze(2), dest, slice(head, head + 1))
        scores = q @ keys.mT * self.anatomy.scale + bias[head if len(bias) > 1 else 0]
        return self.anatomy.softmax(scores, sink if sink is None else sink[:, 0])

    def _source_pattern(self, layer: int) -> Tensor:
        if layer not in self.patterns:
            self.patterns[layer] = pattern_of(self.anatomy, self.source, layer)
        return self.patterns[layer]

    def _keys_or_values(self, layer: int, cell: Cell, start: int) -> Float[Tensor, "1 batch dest d_model"]:
        """resid_post after keys or values of one head are patched: all later positions of the layer change."""
        anatomy, base, dest, at = self.anatomy, self.base, self._dest(layer, start), list(cell.positions)
        assert cell.head is not None
        sharing = anatomy.n_heads // anatomy.n_kv_heads
        new = self.source.site(self.site, layer)[:, at, cell.head]  # [batch position d_head]
        z = base.z[layer][:, dest].clone()
        for head in range(cell.head * sharing, (cell.head + 1) * sharing):
            keys, values = self.keys[layer][:, head], self.values[layer][:, head]
            if self.site == "k":
                keys = keys.clone()
                keys[:, at] = anatomy.rotate(new.unsqueeze(2), self.positions[at])[:, :, 0]
            else:
                values = values.clone()
                values[:, at] = new
            q = anatomy.rotate(base.q[layer][:, dest, head : head + 1], dest)[:, :, 0]
            z[:, :, head] = self._attend(layer, head, q, keys, dest) @ values
        return self._finish(layer, base.resid_pre[layer][:, dest], z).unsqueeze(0)

    def _measure(self, rows: Tensor, start: int) -> Float[Tensor, "cell batch"]:
        """The metric, from final residuals `[cell batch read-from-start d_model]` and the base's earlier logits."""
        logits = self.anatomy.unembed(rows)
        early = int((self.reads < start).sum())
        if early:
            kept = self.base_logits[:, :early].expand(len(rows), -1, -1, -1)
            logits = torch.cat([kept, logits], dim=2)
        return self.metric.compute(logits, self.prompts).double().cpu()


def _joined(rows: Tensor | None, new: Tensor) -> Tensor:
    return new if rows is None else torch.cat([rows, new])
