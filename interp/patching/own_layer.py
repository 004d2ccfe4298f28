"""The layer in which a patch is made: resid_post after patches of any site except resid_pre.

All sites but k and v change resid_post at their own positions only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy, Block
from interp.patching.cells import LOCAL_SITES, Cell, as_index
from interp.patching.tracing import Trace, pattern_of


class OwnLayer:
    """Patches of a site from `source` into `base`, up to the end of their own layer.

    `keys` and `values` are the base's as attention uses them, `[batch head pos d_head]` per layer. With `cache`,
    activations that a site needs in another form are kept for all layers, else for one.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        base: Trace,
        source: Trace,
        site: str,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        cache: bool,
    ) -> None:
        self.anatomy, self.base, self.source, self.site = anatomy, base, source, site
        self.keys, self.values, self.cache = keys, values, cache
        self.positions = torch.arange(base.tokens.shape[1], device=anatomy.device)
        self._kept: dict[tuple[str, int], Tensor] = {}

    def resid_post(
        self, layer: int, cells: Sequence[Cell], dest: Int[Tensor, " dest"], dest_list: Sequence[int]
    ) -> Float[Tensor, "cell batch dest d_model"]:
        """Return resid_post at positions `dest`, after each cell's patch. `dest_list` are the same positions."""
        if self.site in ("k", "v"):
            return self._keys_or_values(layer, cells, dest)
        column = {p: i for i, p in enumerate(dest_list)}
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
                cell, row, at, patched = torch.tensor(targets).to(rows.device, non_blocking=True).unbind(dim=1)
                rows[cell, :, at] = new[row, :, patched]
        return rows

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
            case "mlp_pre" | "mlp_post":
                post = self._neurons(layer, cells, *(take(self._mlp_reads(run, layer)) for run in (base, self.source)))
                return take(base.resid_mid[layer]) + block.mlp_write(post)
            case "attn_out":
                mid = resid + take(self.source.attn_out[layer])
                return mid + block.mlp_out(resid if block.parallel else mid)
            case _:
                z = take(base.z[layer]).clone()
                row = torch.arange(len(cells), device=z.device)
                head = self._heads(cells)
                z[row, :, :, head] = self._head_output(layer, at, head).transpose(0, 1).to(z.dtype)
                return after_attention(block, resid, z)

    def _mlp_reads(self, run: Trace, layer: int) -> Float[Tensor, "batch pos d_model"]:
        return (run.resid_pre if self.anatomy.blocks[layer].parallel else run.resid_mid)[layer]

    def _neurons(
        self, layer: int, cells: Sequence[Cell], own: Tensor, other: Tensor
    ) -> Float[Tensor, "cell batch position d_mlp"]:
        """Return mlp_post with each cell's neurons patched, from what the MLP reads in both runs."""
        block = self.anatomy.blocks[layer]
        own_pre, other_pre = block.mlp_pre(own), block.mlp_pre(other)
        mask = torch.zeros(len(cells), 1, 1, own_pre.shape[-1], dtype=torch.bool)
        for row, cell in enumerate(cells):
            mask[row, ..., slice(None) if cell.neurons is None else list(cell.neurons)] = True
        mask = mask.to(own.device, non_blocking=True)
        if self.site == "mlp_pre":
            return block.mlp_post(torch.where(mask, other_pre, own_pre), own)
        return torch.where(mask, block.mlp_post(other_pre, other), block.mlp_post(own_pre, own))

    def _heads(self, cells: Sequence[Cell]) -> Int[Tensor, " cell"]:
        heads = [cell.head for cell in cells if cell.head is not None]
        assert len(heads) == len(cells)
        return torch.tensor(heads).to(self.anatomy.device, non_blocking=True)

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
        row, position = torch.tensor(pairs).to(head.device, non_blocking=True).unbind(dim=1)
        edited[:, row, :, position] = source[:, position, head[row]].transpose(0, 1).unsqueeze(2)
        queries = self._encoded("base q", layer)[:, dest]  # [batch dest head d_head]
        q = queries[:, :, shared].permute(0, 2, 3, 1, 4)  # [batch cell shared dest d_head]
        bias = anatomy.bias(block, dest, self.positions)
        scores = block.cap(q @ keys.mT * block.scale) + (bias[shared] if len(bias) > 1 else bias[0])
        sink = anatomy.sink(block, queries, dest)  # [batch head dest 1]
        mixed = anatomy.softmax(scores, sink if sink is None else sink[:, shared]) @ values
        z = base.z[layer][:, dest].expand(len(cells), -1, -1, -1, -1).clone()
        z[torch.arange(len(cells), device=head.device).unsqueeze(1), :, :, shared] = mixed.permute(1, 2, 0, 3, 4).to(
            z.dtype
        )
        return after_attention(block, base.resid_pre[layer][:, dest], z)

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


def after_attention(
    block: Block, resid: Float[Tensor, "*stack d_model"], z: Float[Tensor, "*stack head d_head"]
) -> Float[Tensor, "*stack d_model"]:
    """Return resid_post from resid_pre and z at the same positions."""
    mid = resid + block.attn_out(z)
    return mid + block.mlp_out(resid if block.parallel else mid)


def _by_size(cells: Sequence[Cell]) -> list[list[int]]:
    """Return the numbers of the cells, grouped by how many positions they have."""
    sizes = sorted({len(cell.positions) for cell in cells})
    return [[i for i, cell in enumerate(cells) if len(cell.positions) == size] for size in sizes]
