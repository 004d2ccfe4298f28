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
from interp.patching.cells import LOCAL_SITES, Cell, as_index
from interp.patching.metric import Metric
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
        self._kept: dict[tuple[str, int], Tensor] = {}

    def between(self, source: Trace, site: str) -> Engine:
        """Return an engine with the same base and another source or site."""
        other = copy.copy(self)
        other.source, other.site, other._kept = source, site, {}
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
                rows = _joined(rows, self._enter(layer, here, start))
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
        return self._finish(layer, resid[:, :, at], z.permute(2, 0, 3, 1, 4))

    def _finish(self, layer: int, resid: Tensor, z: Tensor) -> Tensor:
        """Return resid_post from resid_pre and z at the same positions."""
        block = self.anatomy.blocks[layer]
        mid = resid + block.attn_out(z)
        return mid + block.mlp_out(resid if block.parallel else mid)

    def _enter(self, layer: int, cells: Sequence[Cell], start: int) -> Tensor:
        """Return resid_post of a layer's own patches, at the positions that the next layer needs."""
        dest = self._dest(layer, start)
        if self.site in ("k", "v"):
            return self._keys_or_values(layer, cells, dest)
        column = {p: i for i, p in enumerate(self._dest_list(layer, start))}
        rows = self.base.resid_pre[layer + 1][:, dest].expand(len(cells), -1, -1, -1).clone()
        for group in _by_size(cells):
            new = self._local(layer, [cells[i] for i in group])  # [cell batch position d_model]
            targets = [
                (i, row, column[p], c)
                for row, i in enumerate(group)
                for c, p in enumerate(cells[i].positions)
                if p in column
            ]
            if targets:
                cell, row, at, patched = torch.tensor(targets, device=rows.device).unbind(dim=1)
                rows[cell, :, at] = new[row, :, patched]
        return rows

    def _dest_list(self, layer: int, start: int) -> list[int]:
        last = layer == self.n_layers - 1
        return [p for p in self.read_list if p >= start] if last else list(range(start, self.n_pos))

    def _local(self, layer: int, cells: Sequence[Cell]) -> Float[Tensor, "cell batch position d_model"]:
        """Return resid_post at the patched positions, for sites that change nothing else in their layer."""
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
            case _:
                z = take(base.z[layer]).clone()
                row = torch.arange(len(cells), device=z.device)
                head = self._heads(cells)
                z[row, :, :, head] = self._head_output(layer, at, head).transpose(0, 1)
                return self._finish(layer, resid, z)

    def _heads(self, cells: Sequence[Cell]) -> Int[Tensor, " cell"]:
        heads = [cell.head for cell in cells if cell.head is not None]
        assert len(heads) == len(cells)
        return torch.tensor(heads, device=self.anatomy.device)

    def _head_output(
        self, layer: int, at: Int[Tensor, "cell position"], head: Int[Tensor, " cell"]
    ) -> Float[Tensor, "batch cell position d_head"]:
        """Return z of each cell's patched head at its patched positions."""
        heads = head.unsqueeze(1)
        match self.site:
            case "z":
                return self.source.z[layer][:, at, heads]
            case "pattern":
                pattern = self._encoded("pattern", layer)[:, heads, at]  # [batch cell position src]
            case "q":
                pattern = self._pattern_of_queries(layer, self._encoded("source q", layer), at, heads)
            case site:
                raise AssertionError(f"{site} has no z of its own")
        return pattern @ self.values[layer][:, head]

    def _pattern_of_queries(
        self, layer: int, queries: Tensor, at: Int[Tensor, "cell position"], heads: Int[Tensor, "cell 1"]
    ) -> Float[Tensor, "batch cell position src"]:
        """Return the pattern of encoded queries `[batch pos head d_head]` on the base's keys."""
        anatomy, block = self.anatomy, self.anatomy.blocks[layer]
        scores = block.cap(queries[:, at, heads] @ self.keys[layer][:, heads.squeeze(1)].mT * block.scale)
        bias = anatomy.bias(block, at.flatten(), self.positions).unflatten(1, at.shape)
        bias = bias[heads.squeeze(1), torch.arange(len(at))] if len(bias) > 1 else bias[0]  # [cell position src]
        sink = anatomy.sink(block, queries, self.positions)  # [batch head pos 1]
        return anatomy.softmax(scores + bias, sink if sink is None else sink[:, heads, at])

    def _keys_or_values(
        self, layer: int, cells: Sequence[Cell], dest: Int[Tensor, " dest"]
    ) -> Float[Tensor, "cell batch dest d_model"]:
        """Return resid_post after keys or values of one head per cell are patched: later positions change too."""
        anatomy, block, base = self.anatomy, self.anatomy.blocks[layer], self.base
        sharing = anatomy.n_heads // anatomy.n_kv_heads
        head = self._heads(cells)
        shared = head.unsqueeze(1) * sharing + torch.arange(sharing, device=head.device)  # [cell shared]
        keys, values = self.keys[layer][:, shared], self.values[layer][:, shared]  # [batch cell shared src d_head]
        edited = keys if self.site == "k" else values
        source = self._encoded("source k", layer) if self.site == "k" else self.source.v[layer]
        pairs = [(row, position) for row, cell in enumerate(cells) for position in cell.positions]
        row, position = torch.tensor(pairs, device=head.device).unbind(dim=1)
        edited[:, row, :, position] = source[:, position, head[row]].transpose(0, 1).unsqueeze(2)
        queries = self._encoded("base q", layer)[:, dest]  # [batch dest head d_head]
        q = queries[:, :, shared].permute(0, 2, 3, 1, 4)  # [batch cell shared dest d_head]
        bias = anatomy.bias(block, dest, self.positions)
        scores = block.cap(q @ keys.mT * block.scale) + (bias[shared] if len(bias) > 1 else bias[0])
        sink = anatomy.sink(block, queries, dest)  # [batch head dest 1]
        mixed = anatomy.softmax(scores, sink if sink is None else sink[:, shared]) @ values
        z = base.z[layer][:, dest].expand(len(cells), -1, -1, -1, -1).clone()
        z[torch.arange(len(cells), device=head.device).unsqueeze(1), :, :, shared] = mixed.permute(1, 2, 0, 3, 4)
        return self._finish(layer, base.resid_pre[layer][:, dest], z)

    def _encoded(self, what: str, layer: int) -> Tensor:
        """Return a layer's pattern, queries or keys as attention uses them."""
        if (what, layer) not in self._kept:
            anatomy, block = self.anatomy, self.anatomy.blocks[layer]
            match what:
                case "pattern":
                    value = pattern_of(anatomy, self.source, layer)
                case "source q":
                    value = anatomy.queries(block, self.source.q[layer], self.positions)
                case "base q":
                    value = anatomy.queries(block, self.base.q[layer], self.positions)
                case "source k":
                    value = anatomy.keys(block, self.source.k[layer], self.positions)
                case _:
                    raise AssertionError(what)
            if not self.cache:
                self._kept = {key: kept for key, kept in self._kept.items() if key[1] == layer}
            self._kept[what, layer] = value
        return self._kept[what, layer]

    def _measure_rows(self, rows: Tensor, start: int) -> Float[Tensor, "cell batch"]:
        """Return the metric, from final residuals `[cell batch read-from-start d_model]` and the base's logits."""
        logits = self.anatomy.unembed(rows)
        if early := self._early(start):
            logits = torch.cat([self.base_logits[:, :early].expand(len(rows), -1, -1, -1), logits], dim=2)
        return self.metric.measure(logits, self.prompts).double().cpu()


def _joined(rows: Tensor | None, new: Tensor) -> Tensor:
    return new if rows is None else torch.cat([rows, new])


def _by_size(cells: Sequence[Cell]) -> list[list[int]]:
    """Return the numbers of the cells, grouped by how many positions they have."""
    sizes = sorted({len(cell.positions) for cell in cells})
    return [[i for i, cell in enumerate(cells) if len(cell.positions) == size] for size in sizes]
