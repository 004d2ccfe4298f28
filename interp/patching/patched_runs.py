"""A patched run, layer by layer: only what differs from the unpatched run is computed.

Under a causal mask nothing changes in the layers before the first patch, or at the positions before it: keys and
values there are the unpatched run's. In the first patched layer q, k and v are the unpatched run's too, except where
its input is edited. Where only some queries change there, the next layer projects these positions alone. From then on
everything after the first of them differs. The last layer is computed only where it is read.
`interp.patching.editing.forward_with_edits` computes all of it and is the reference.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.attention_changes import attend_with
from interp.patching.changes import Changes, Moved, State, Where
from interp.patching.editing import Place
from interp.patching.unpatched import Unpatched
from interp.sites import Site

# Sites whose patch changes the attention pattern of its own layer.
BEFORE_PATTERN: tuple[Site, ...] = ("resid_pre", "q", "k", "attn_scores")
# Sites whose edit needs the pattern in memory.
OF_PATTERN: tuple[Site, ...] = ("attn_scores", "pattern", "z")
# What the first layers take from the unpatched run in place of projecting its residual.
PROJECTED: tuple[Site, ...] = ("resid_pre", "q", "k", "v")


def reused_places(
    anatomy: Anatomy, starts: Mapping[int, Collection[Site]], first: int, narrow: Collection[int] = ()
) -> set[Place]:
    """Return what patched runs take from the unpatched one.

    `starts` has the sites that are patched in each first layer, `first` is the largest first position of a run.
    `narrow`: first layers of runs with `Changes.at` or `Changes.dest`.
    """
    places: set[Place] = {("resid_pre", layer) for layer in starts}
    for layer, sites in starts.items():
        if any(site in BEFORE_PATTERN for site in sites):
            places |= {(site, layer) for site in PROJECTED}
        if any(site not in BEFORE_PATTERN for site in sites):
            reused: tuple[Site, ...] = ("v", "pattern", "z")
            places |= {(site, layer) for site in reused}
    places |= {(site, layer + 1) for layer in narrow if layer + 1 < len(anatomy.blocks) for site in PROJECTED}
    if first > 0:
        prefix: tuple[Site, ...] = ("k", "v")
        places |= {(site, layer) for layer in range(min(starts), len(anatomy.blocks)) for site in prefix}
    return places


@torch.no_grad()
def final_patched(
    anatomy: Anatomy,
    run: Unpatched,
    changes: Changes,
    reads: Int[Tensor, " read"],
    begun: State | None = None,
    kept: dict[int, State | None] | None = None,
) -> Float[Tensor, "row read d_model"]:
    """Return the residual of a patched run after the last layer, at some of the positions that `run` reads.

    `begun`: the state of another patched run of the same prompts, whose changes are equal in all layers before it; the
    run continues from there where it `serves`. `kept`: layers whose state is put there as the run comes to them.
    """
    later, last = reads[reads >= changes.first], len(anatomy.blocks) - 1
    final = run.final_at(reads)
    if not len(later):
        return final
    start, moved = changes.start, Moved(later[:0], final[:, :0])  # nothing differs before the first layer
    if begun is not None and begun.serves(changes):
        start, moved = begun.layer, begun.moved
    for layer in range(start, last + 1):
        if kept is not None and layer in kept:
            kept[layer] = State(changes, layer, moved)
        moved = _Layer(anatomy, run, changes, layer, later if layer == last else None).output(moved)
    assert moved.at is not None, "the last layer is computed where it is read"
    final[:, torch.searchsorted(reads, moved.at)] = moved.resid
    return final


class _Layer:
    """One layer of a patched run. `reads`: the positions at which it is read; None in all layers but the last."""

    def __init__(self, anatomy: Anatomy, run: Unpatched, changes: Changes, layer: int, reads: Tensor | None) -> None:
        self.anatomy, self.run, self.changes, self.layer = anatomy, run, changes, layer
        self.block, self.first, self.enters = anatomy.blocks[layer], changes.first, layer == changes.start
        self.src = torch.arange(run.n_pos, device=run.final.device)
        self.every: Where = slice(self.first, run.n_pos)
        # The positions that are computed: numbers, and as edits take them.
        narrow = changes.dest if self.enters else None
        self.is_suffix = narrow is None and reads is None
        self.dest = self.src[self.first :] if narrow is None else narrow
        if reads is not None:
            self.dest = reads if narrow is None else reads[torch.isin(reads, narrow)]
        self.where = self.every if self.is_suffix else self.dest if reads is not None else _as_slice(self.dest)
        self.computed: dict[Site, Tensor] = {}

    def edits(self, *sites: Site) -> bool:
        """Return whether one of the sites is edited in this layer."""
        return any((site, self.layer) in self.changes.edits for site in sites)

    def at(self, site: Site, value: Tensor, positions: Where) -> Tensor:
        """Return a site's value after its edit, if there is one."""
        edit = self.changes.edits.get((site, self.layer))
        self.computed[site] = value if edit is None else edit(value, self.computed, positions)
        return self.computed[site]

    def output(self, moved: Moved) -> Moved:
        """Return resid_post where it is computed, from what differs of resid_pre."""
        block = self.block
        if not len(self.dest):
            return Moved(self.dest, moved.resid[:, :0])
        moved = self._entered(moved)
        z = self.at("z", self._z(moved), self.where)
        resid = self._here("resid_pre", moved, moved.resid)
        mid = resid + self.at("attn_out", block.attn_out(z), self.where)
        mlp_in = self.at("mlp_in", resid if block.parallel else mid, self.where)
        resid = mid + self.at("mlp_out", block.mlp_out(mlp_in), self.where)
        return Moved(None if self.is_suffix else self.dest, resid)

    def _entered(self, moved: Moved) -> Moved:
        """Return what differs of resid_pre after its edit, if there is one."""
        if not self.edits("resid_pre"):
            return moved
        at = self.changes.at if self.enters else None
        if at is not None:
            kept = self.run.kept["resid_pre", self.layer][:, at]
            return Moved(at, self.at("resid_pre", kept, at))
        return Moved(None, self.at("resid_pre", self._suffix("resid_pre", moved, moved.resid), self.every))

    def _z(self, moved: Moved) -> Float[Tensor, "row dest head d_head"]:
        """Return z at the positions that are computed, before its edit."""
        anatomy, run, layer, given = self.anatomy, self.run, self.layer, self.layer in self.changes.patterns
        entering = self.enters and layer not in self.changes.attention and not self.edits(*BEFORE_PATTERN)
        q, k, v = (None, None, None) if moved.at is not None and not len(moved.at) else self.block.project(moved.resid)
        own_v = v is None and not self.edits("v")
        v = self._all("v", moved, v)
        self.computed["v"] = v
        if given or entering:
            pattern = self.changes.patterns[layer](self.where) if given else run.at("pattern", layer, self.where)
            same = entering and own_v and not given and not self.edits("pattern")
            pattern = self.at("pattern", pattern, self.where)
            return run.at("z", layer, self.where) if same else anatomy.mix(pattern, v)
        q = anatomy.queries(self.block, self.at("q", self._here("q", moved, q), self.where), self.dest)
        keys = self._keys(moved, k)
        bias = run.bias(anatomy, layer, self.where)
        if not self.edits(*OF_PATTERN):
            change = self.changes.attention.get(layer)
            return attend_with(anatomy, self.block, change, q, keys, anatomy.expand_heads(v), bias, self.dest)
        scores = self.block.cap(torch.einsum("rdhe,rshe->rhds", q * self.block.scale, keys))
        scores, sink = scores.add_(bias), anatomy.sink(self.block, q, self.dest)
        # Scores are edited relative to the sink's logit, as in `forward_with_edits`.
        edited = self.at("attn_scores", scores if sink is None else scores - sink, self.where)
        scores = edited if sink is None else edited + sink
        return anatomy.mix(self.at("pattern", anatomy.softmax(scores, sink), self.where), v)

    def _keys(self, moved: Moved, k: Tensor | None) -> Float[Tensor, "row src head d_head"]:
        """Return the keys of all positions as attention uses them."""
        anatomy, n_pos = self.anatomy, self.run.n_pos
        if self.edits("k"):
            k = self._all("k", moved, k)[:, self.first :]
            at = None
        else:
            at = moved.at
        if k is None:
            return self.run.keys(anatomy, self.layer, n_pos)
        positions = self.src[self.first :] if at is None else at
        new = anatomy.expand_heads(anatomy.keys(self.block, k, positions))
        if at is not None:
            return self.run.keys(anatomy, self.layer, n_pos).index_copy(1, at, new)
        return new if self.first == 0 else torch.cat([self.run.keys(anatomy, self.layer, self.first), new], dim=1)

    def _all(self, site: Site, moved: Moved, new: Tensor | None) -> Float[Tensor, "row pos ..."]:
        """Return k or v of all positions after its edit, from the new value where the residual differs."""
        if not self.edits(site):
            if new is None:
                return self.run.kept[site, self.layer]
            if moved.at is not None:
                return self.run.kept[site, self.layer].index_copy(1, moved.at, new)
        value = self.at(site, self._suffix(site, moved, new), self.every)
        return value if self.first == 0 else torch.cat([self.run.kept[site, self.layer][:, : self.first], value], dim=1)

    def _suffix(self, site: Site, moved: Moved, new: Tensor | None) -> Float[Tensor, "row pos ..."]:
        """Return a site at all positions from the first on, from the new value where the residual differs."""
        if moved.at is None and new is not None:
            return new
        kept = self.run.kept[site, self.layer][:, self.first :]
        if new is None or moved.at is None or not len(moved.at):
            return kept
        return kept.index_copy(1, moved.at - self.first, new)

    def _here(self, site: Site, moved: Moved, new: Tensor | None) -> Float[Tensor, "row dest ..."]:
        """Return a site where the layer is computed, from the new value where the residual differs."""
        if moved.at is None:
            assert new is not None
            return new if self.is_suffix else new.index_select(1, self.dest - self.first)
        kept, where = self.run.kept[site, self.layer], self.where
        here = kept[:, where] if isinstance(where, slice) else kept.index_select(1, where)
        if new is None or not len(moved.at):
            return here
        column = torch.isin(self.dest, moved.at).nonzero().flatten()
        if len(column) < len(moved.at):
            new = new.index_select(1, torch.searchsorted(moved.at, self.dest[column]))
        return (here.clone() if isinstance(self.where, slice) else here).index_copy_(1, column, new)


def _as_slice(positions: Int[Tensor, " pos"]) -> Where:
    """Return positions in rising order as a slice, which takes no copy, where they are neighbours."""
    if not len(positions):
        return positions
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first == len(positions) - 1 else positions


def rows_of(mask: Tensor, where: Where, n_src: int | None = None) -> Tensor:
    """Return a mask `[head dest src]` at some destinations, whose indices may be on another device.

    `n_src`: the positions of the run, which may end before the prompts do (None: all).
    """
    return mask[:, where if isinstance(where, slice) else where.to(mask.device)][..., :n_src]


def pattern_from_scores(anatomy: Anatomy, layer: int, scores: Float[Tensor, "row head dest src"]) -> Tensor:
    """Return the pattern that scores give, which are relative to the sink's logit where the block has a sink."""
    block = anatomy.blocks[layer]
    if block.sink_key is None and block.sink_logit is None:
        return anatomy.softmax(scores, None)
    return anatomy.softmax(scores, torch.zeros_like(scores[..., :1]))
