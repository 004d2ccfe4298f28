"""The unpatched run of some prompts, with what patched runs take from it.

Its last layer is computed only at the positions that are read, and patterns only where they are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.biases import Biases
from interp.patching.editing import Place, difference_from_raw, forward_with_edits
from interp.patching.metric import Metric
from interp.patching.own_layer import after_attention
from interp.sites import Site

# Sites that this run can keep; runs that keep others are `forward_with_edits`.
BEFORE_ATTENTION: tuple[Site, ...] = ("resid_pre", "q", "k", "v")
KEPT: tuple[Site, ...] = (*BEFORE_ATTENTION, "pattern", "z")
# Prompts on which a run is compared with the raw model, as in `interp.forward.steps_of`.
CHECKED = 2


@dataclass(eq=False)
class Unpatched:
    """The unpatched run of prompts numbered `rows`, with the places of `kept`.

    Sites after the pattern, and the pattern, have only the positions `reads` in the last layer, as `final` has, the
    residual after it. `n_pos`: positions of the run, which may end before the prompts do. `metrics`: those of the
    prompts, limited to what these read. `raw_difference` is that of the first prompts from the raw model's logits (see
    `difference_from_raw`).
    """

    rows: Int[Tensor, " row"]
    reads: Int[Tensor, " read"]
    final: Float[Tensor, "row read d_model"]
    kept: Mapping[Place, Tensor]
    n_pos: int
    raw_difference: float = 0.0
    metrics: Sequence[Metric] = ()
    _keys: dict[int, Tensor] = field(default_factory=dict)
    biases: Biases = field(default_factory=Biases)

    def final_at(self, reads: Int[Tensor, " some"]) -> Float[Tensor, "row some d_model"]:
        """Return the residual after the last layer at some of the positions `reads`."""
        return self.final[:, torch.searchsorted(self.reads, reads)]

    def at(self, site: Site, layer: int, where: slice | Int[Tensor, " pos"]) -> Tensor:
        """Return a kept site at some positions; of "pattern" and "attn_scores" these are destinations."""
        return at_positions(self.kept[site, layer], site, where, self.reads)

    def bias(self, anatomy: Anatomy, layer: int, where: slice | Int[Tensor, " dest"]) -> Float[Tensor, "head dest src"]:
        """Return what is added to the scores of some positions."""
        return self.biases.of(anatomy, anatomy.blocks[layer], where, self.n_pos)

    def keys(self, anatomy: Anatomy, layer: int, before: int) -> Float[Tensor, "row src head d_head"]:
        """Return the keys of the positions before one, as attention uses them."""
        if layer not in self._keys:
            k = self.kept["k", layer]
            positions = torch.arange(k.shape[1], device=k.device)
            self._keys[layer] = anatomy.expand_heads(anatomy.keys(anatomy.blocks[layer], k, positions))
        return self._keys[layer][:, :before]


def at_positions(value: Tensor, site: Site, where: slice | Int[Tensor, " pos"], reads: Int[Tensor, " read"]) -> Tensor:
    """Return a site's value at some positions, from that at all positions or, in the last layer, at `reads`.

    A value of the last layer has no more positions than these; only numbers are asked of it, of the others slices too.
    """
    axis = 2 if site in ("pattern", "attn_scores") else 1
    if not isinstance(where, slice) and value.shape[axis] == len(reads):
        where = torch.searchsorted(reads, where)
    return value[:, :, where] if axis == 2 else value[:, where]


@torch.no_grad()
def run_unpatched(
    anatomy: Anatomy,
    rows: Int[Tensor, " row"],
    tokens: Tensor,
    reads: Int[Tensor, " read"],
    keep: Collection[Place],
    biases: Biases | None = None,
) -> Unpatched:
    """Run prompts numbered `rows`, whose tokens `[row pos]` may end at the last position that is read."""
    reads, biases = reads.to(anatomy.device), Biases() if biases is None else biases
    final, kept = trace(anatomy, tokens, reads, keep, biases=biases)
    assert final is not None
    return Unpatched(rows, reads, final, kept, tokens.shape[1], biases=biases)


def compare_with_raw(anatomy: Anatomy, tokens: Tensor, run: Unpatched, metric: Metric) -> float:
    """Return `difference_from_raw` of the first prompts of a run, where a metric reads; raise its errors."""
    tokens = tokens[:CHECKED]
    final = run.final.new_zeros(*tokens.shape, run.final.shape[-1])
    final[:, run.reads] = run.final[:CHECKED]
    return difference_from_raw(anatomy, tokens, final, metric)


@torch.no_grad()
def trace(
    anatomy: Anatomy,
    tokens: Tensor,
    reads: Int[Tensor, " read"],
    keep: Collection[Place],
    final: bool = True,
    biases: Biases | None = None,
) -> tuple[Tensor | None, dict[Place, Tensor]]:
    """Return the residual after the last layer at the positions `reads`, and the kept places.

    `final=False` ends the run, without the residual, as soon as the last of these places is known.
    """
    n_layers, kept = len(anatomy.blocks), dict[Place, Tensor]()
    stop = n_layers if final else 1 + max(layer for _, layer in keep)
    if any(site not in KEPT for site, _ in keep):
        resid, kept = forward_with_edits(anatomy, anatomy.embed(tokens), stop=stop, keep=sorted(keep))
        for site, layer in keep:
            if layer == n_layers - 1 and site in ("attn_scores", "pattern"):
                kept[site, layer] = kept[site, layer][:, :, reads]
            elif layer == n_layers - 1 and site in ("z", "attn_out", "mlp_out"):
                kept[site, layer] = kept[site, layer][:, reads]
        return (resid[:, reads] if final else None), kept
    resid, positions = anatomy.embed(tokens), torch.arange(tokens.shape[1], device=anatomy.device)
    biases = Biases() if biases is None else biases
    for layer in range(stop):
        block, at_end = anatomy.blocks[layer], layer == n_layers - 1
        q, k, v = block.project(resid)
        for site, value in zip(BEFORE_ATTENTION, (resid, q, k, v), strict=True):
            if (site, layer) in keep:
                kept[site, layer] = value
        if not final and len(kept) == len(keep):
            return None, kept
        q, resid, dest = (q[:, reads], resid[:, reads], reads) if at_end else (q, resid, positions)
        q, k = anatomy.queries(block, q, dest), anatomy.expand_heads(anatomy.keys(block, k, positions))
        bias = biases.of(anatomy, block, reads if at_end else slice(None), len(positions))
        sink = anatomy.sink(block, q, dest)
        if ("pattern", layer) in keep:
            scores = block.cap((q * block.scale).transpose(1, 2) @ k.permute(0, 2, 3, 1)).add_(bias)
            kept["pattern", layer] = anatomy.softmax(scores, sink)
        if not final and len(kept) == len(keep):
            return None, kept
        z = anatomy.attend(block, q, k, anatomy.expand_heads(v), bias, sink)
        if ("z", layer) in keep:
            kept["z", layer] = z
        resid = after_attention(block, resid, z)
    return (resid if final else None), kept


@torch.no_grad()
def run_after(anatomy: Anatomy, run: Unpatched, tokens: Int[Tensor, "row pos"], first: int, keep: bool) -> Unpatched:
    """Run other tokens of the same prompts, which are those of `run` before position `first`.

    Keys and values of those positions are taken from `run`, which has kept them in all layers; with `keep` this run
    keeps its own, so that others can follow. It is read where `run` is. Of a model that is not causal nothing can be
    taken: `first` is 0. Where nothing is read from `first` on, nothing is run, and no run may follow this one later.
    """
    reads, last, kept = run.reads[run.reads >= first], len(anatomy.blocks) - 1, dict[Place, Tensor]()
    final = run.final.clone()
    if not len(reads):
        return replace(run, final=final)
    resid, positions = anatomy.embed(tokens)[:, first:], torch.arange(first, run.n_pos, device=anatomy.device)
    for layer, block in enumerate(anatomy.blocks):
        where, dest = slice(first, run.n_pos), positions
        q, k, v = block.project(resid)
        v = torch.cat([run.kept["v", layer][:, :first], v], dim=1)
        if keep:
            kept["v", layer], kept["k", layer] = v, torch.cat([run.kept["k", layer][:, :first], k], dim=1)
        if layer == last:
            where, dest = reads, reads
            q, resid = q[:, reads - first], resid[:, reads - first]
        q, k = anatomy.queries(block, q, dest), anatomy.expand_heads(anatomy.keys(block, k, positions))
        k = torch.cat([run.keys(anatomy, layer, first), k], dim=1)
        bias, sink = run.bias(anatomy, layer, where), anatomy.sink(block, q, dest)
        resid = after_attention(block, resid, anatomy.attend(block, q, k, anatomy.expand_heads(v), bias, sink))
    final[:, len(run.reads) - len(reads) :] = resid
    return replace(run, final=final, kept=kept, _keys={})
