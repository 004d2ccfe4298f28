"""The part of a model after a site, as a TransformerLens module for `fit_das` and its interchange.

Importing this module imports TransformerLens, which takes seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

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
            k, v = (self._with(site, layer, index, at, new) for site, new in (("k", k), ("v", v)))
            mid = resid + block.attn_out(self._attend(layer, q, k, v, window))
            resid = mid + block.mlp_out(resid if block.parallel else mid)
        return anatomy.unembed(resid[:, 0], self.pairs.symbols)

    def _with(self, site: str, layer: int, index: Tensor, at: Tensor, new: Tensor) -> Tensor:
        """Return keys or values `[row pos kv_head d_head]` of some pairs, with new ones at the positions `at`."""
        own, new = self.kept[site, layer].index_select(0, index), new.transpose(1, 2)
        rows, heads = (torch.arange(own.shape[axis], device=at.device) for axis in (0, 1))
        rows, heads, at = rows[:, None, None], heads[:, None], at.unsqueeze(1)
        if site == "k":
            own[rows, heads, :, at] = new
        else:
            own[rows, heads, at] = new
        return by_position(own, site)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: Tensor) -> Tensor:
        """Return z of queries whose positions differ between rows.

        With gradients, operations keep their order: a search amplifies rounding until other directions are found.
        """
        anatomy, block, flat = self.anatomy, self.anatomy.blocks[layer], window.flatten()
        src = torch.arange(k.shape[1], device=k.device)
        q = anatomy.queries(block, q.flatten(0, 1), flat).unflatten(0, window.shape)
        bias = self.biases[layer].index_select(1, flat).unflatten(1, window.shape).transpose(0, 1)
        keys = anatomy.expand_heads(anatomy.keys(block, k, src))
        if not torch.is_grad_enabled():
            return anatomy.attend(block, q, keys, anatomy.expand_heads(v), bias, anatomy.sink(block, q, window))
        scores = block.cap(torch.einsum("rdhe,rshe->rhds", q, keys) * block.scale) + bias
        return anatomy.mix(anatomy.softmax(scores, anatomy.sink(block, q, window)), v)
