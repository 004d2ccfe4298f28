"""The part of a model after a site, as a TransformerLens module for `fit_das` and its interchange.

Importing this module imports TransformerLens, which takes seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

from interp.changed import Changed, mixed, scores_of
from interp.models.anatomy import Anatomy
from interp.pairs import Pairs, by_position


class Tail(HookedRootModule):
    """Returns logits of the symbols at each pair's answer, from numbers of pairs; n and above are the sources.

    `kept` is that of `interp.pair_runs.run_bases`. The model's own modules are not registered, since TransformerLens
    would write names on them.
    """

    def __init__(self, anatomy: Anatomy, layer: int, pairs: Pairs, kept: dict[Any, Tensor], sources: Tensor):
        super().__init__()
        self.site = HookPoint()
        self.anatomy, self.layer, self.pairs, self.kept, self.sources = anatomy, layer, pairs, kept, sources
        every = torch.arange(kept["resid_pre", layer].shape[1], device=sources.device)
        self.biases = {i: anatomy.bias(anatomy.blocks[i], every, every) for i in range(layer, len(anatomy.blocks))}
        self.eval()
        self.setup()

    def forward(self, index: Tensor) -> Tensor:
        n = len(self.pairs)
        if (index >= n).all():  # TransformerLens reads the hook's value only
            return self.site(self.sources[(index - n).to(self.sources.device)])
        anatomy, device = self.anatomy, self.sources.device
        index = index.to(device)
        numbers = torch.arange(len(index), device=device).unsqueeze(1)
        places, read = (x.to(device)[index] for x in (self.pairs.site, self.pairs.answer - 1))
        base, start = self.kept["resid_pre", self.layer], places[:, :1]
        width = int((read - start[:, 0]).max()) + 1
        # A short window extends past its answer, which does not affect what is read.
        window = (start + torch.arange(width, device=device)).clamp_max(base.shape[1] - 1)
        within, read_at = places - start, (read - start[:, 0]).unsqueeze(1)
        resid = base.flatten(0, 1).index_select(0, (index.unsqueeze(1) * base.shape[1] + window).flatten())
        resid = resid.unflatten(0, window.shape)
        changed = self.site(resid[numbers, within].flatten(1)).unflatten(1, (places.shape[1], -1))
        apart = self.layer == len(anatomy.blocks) - 1 and bool((places < read.unsqueeze(1)).all())
        if not apart:  # else no site is where the last layer is read, and it has no gradient
            resid = resid.index_put((numbers, within), changed)
        for layer in range(self.layer, len(anatomy.blocks)):
            block, last = anatomy.blocks[layer], layer == len(anatomy.blocks) - 1
            if last and layer == self.layer:  # keys and values change at the places, and one query is read
                resid, at, window = resid[numbers, read_at], places, read.unsqueeze(1)
                q, (_, k, v) = block.project(resid)[0], block.project(changed)
            else:
                (q, k, v), at = block.project(resid), window
                if last:  # in the last layer only the answer is read
                    q, resid, window = q[numbers, read_at], resid[numbers, read_at], read.unsqueeze(1)
            k = anatomy.keys(block, k.flatten(0, 1), at.flatten()).unflatten(0, at.shape)
            changes = (self._change(site, layer, index, at, new) for site, new in (("k", k), ("v", v)))
            mid = resid + block.attn_out(self._attend(layer, q, *changes, window))
            resid = mid + block.mlp_out(resid if block.parallel else mid)
        return anatomy.unembed(resid[:, 0], self.pairs.symbols)

    def _change(self, site: str, layer: int, index: Tensor, at: Tensor, new: Tensor) -> Changed:
        """Return keys or values of some pairs, with new ones `[row place kv_head d_head]` at the positions `at`."""
        own, by_head = self.kept[site, layer].index_select(0, index), new.detach().transpose(1, 2)
        rows, heads = (torch.arange(own.shape[axis], device=at.device) for axis in (0, 1))
        rows, heads, places = rows[:, None, None], heads[:, None], at.unsqueeze(1)
        if site == "k":
            own[rows, heads, :, places] = by_head
        else:
            own[rows, heads, places] = by_head
        sharing = self.anatomy.n_heads // self.anatomy.n_kv_heads
        own = own if sharing == 1 else own.repeat_interleave(sharing, dim=1)
        return Changed(own, at, self.anatomy.expand_heads(new))

    def _attend(self, layer: int, q: Tensor, k: Changed, v: Changed, window: Tensor) -> Tensor:
        """Return z of queries whose positions differ between rows.

        With gradients, operations keep their order: a search amplifies rounding until other directions are found.
        """
        anatomy, block, flat = self.anatomy, self.anatomy.blocks[layer], window.flatten()
        q = anatomy.queries(block, q.flatten(0, 1), flat).unflatten(0, window.shape)
        bias = self.biases[layer].index_select(1, flat).unflatten(1, window.shape).transpose(0, 1)
        sink = anatomy.sink(block, q, window)
        if not torch.is_grad_enabled():
            return anatomy.attend(block, q, by_position(k.all, "k"), by_position(v.all, "v"), bias, sink)
        scores = block.cap(scores_of(q, k) * block.scale) + bias
        return mixed(anatomy.softmax(scores, sink), v)
