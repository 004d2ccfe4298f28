"""The base and source runs of pairs for interchange interventions, as far as a search or a test of one needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy, Block
from interp.pairs import ORDERS, Pairs, by_position
from interp.patching.biases import Biases
from interp.patching.editing import Place, forward_with_edits
from interp.patching.unpatched import BEFORE_ATTENTION, trace

# Most pairs in one pass, and on a CPU most tokens: more of them leave its caches.
CHUNK = 128
CPU_TOKENS = 1024
# Pairs of which the sites pass through an MLP together.
SITES = 512


def run_bases(
    anatomy: Anatomy, together: Sequence[Pairs], keep: Sequence[Place], to_search: bool
) -> tuple[dict[Place, Tensor], list[Float[Tensor, "pair symbol"]]]:
    """Return the kept places of the base runs, zero after the answers, and the answers' logits.

    resid_pre is `[pair pos d_model]`; keys and values are in the order of `ORDERS`. `together`: pairs with the same
    base prompts, which run once; logits are those of each.
    """
    whole, logits, base, biases = dict[Place, Tensor](), list[Tensor](), together[0].base, Biases()
    last, answers = len(anatomy.blocks) - 1, torch.stack([pairs.answer - 1 for pairs in together], dim=1)
    at_end: list[Place] = [(site, last) for site in BEFORE_ATTENTION]
    for rows, tokens in _chunks(anatomy, base.tokens, answers.amax(dim=1), to_search):
        if to_search:
            below = [place for place in keep if place[1] < last]
            resid, kept = forward_with_edits(anatomy, anatomy.embed(tokens), stop=last, keep=below)
            kept |= dict(zip(at_end, (resid, *anatomy.blocks[last].project(resid)), strict=True))
        else:
            _, kept = trace(anatomy, tokens, answers.new_tensor([0]), {*keep, *at_end}, final=False)
        resid, *projected = (kept[place] for place in at_end)
        reads = answers[rows].to(anatomy.device)
        parts = _attended(anatomy, anatomy.blocks[last], resid, projected, biases, reads, False)
        final = _after(anatomy.blocks[last], *parts)
        for site, layer in keep:
            if site == "k":
                positions = torch.arange(tokens.shape[1], device=anatomy.device)
                kept[site, layer] = anatomy.keys(anatomy.blocks[layer], kept[site, layer], positions)
        if not whole:
            logits = [final.new_zeros(len(pairs), len(pairs.symbols)) for pairs in together]
            whole = {place: _ordered_zeros(kept[place], len(base), base.n_pos, place[0]) for place in keep}
        for i, (found, pairs) in enumerate(zip(logits, together, strict=True)):
            found[rows] = anatomy.unembed(final[:, i])[:, pairs.symbols.to(anatomy.device)]
        for place, x in whole.items():
            by_position(x, place[0])[rows, : tokens.shape[1]] = kept[place]
    return whole, logits


def _ordered_zeros(like: Tensor, n_pairs: int, n_pos: int, site: str) -> Tensor:
    shape = (n_pairs, n_pos, *like.shape[2:])
    return like.new_zeros([shape[axis] for axis in ORDERS.get(site, range(len(shape)))])


def run_sources(
    anatomy: Anatomy, pairs: Pairs, layers: Sequence[int], to_search: bool
) -> dict[int, Float[Tensor, "pair site"]]:
    """Return the residual at the sites in the source runs, by layer, which rise.

    The block before the last of these layers is computed at the sites only, its MLP for all pairs at once; for a
    search, its attention is that of all positions.
    """
    found, biases, last = dict[int, Tensor](), Biases(), layers[-1]
    order, ends = list[Tensor](), list[tuple[Tensor, Tensor]]()
    for rows, tokens in _chunks(anatomy, pairs.source.tokens, pairs.site.amax(dim=1), to_search):
        numbers, sites = torch.arange(len(rows)).unsqueeze(1), pairs.site[rows].to(anatomy.device)
        resid = anatomy.embed(tokens)
        for layer in range(last + 1):
            if layer in layers and (layer < last or not last):
                here = resid[numbers, sites].flatten(1)
                found.setdefault(layer, here.new_zeros(len(pairs), here.shape[1]))[rows] = here
            if layer < last:
                block, at = anatomy.blocks[layer], sites if layer == last - 1 else None
                parts = _attended(anatomy, block, resid, block.project(resid), biases, at, to_search)
                resid = _after(block, *parts) if at is None else resid
        if last:
            order, ends = [*order, rows], [*ends, parts]
    if last:
        few = -(-len(pairs) // SITES)
        parts = zip(*(torch.cat(part).chunk(few) for part in zip(*ends, strict=True)), strict=True)
        at_end = torch.cat([_after(anatomy.blocks[last - 1], *part) for part in parts])
        found[last] = at_end.flatten(1)[torch.cat(order).argsort().to(anatomy.device)]
    return found


def _attended(
    anatomy: Anatomy,
    block: Block,
    resid: Float[Tensor, "row pos d_model"],
    projected: Sequence[Tensor],
    biases: Biases,
    sites: Int[Tensor, "row place"] | None,
    to_search: bool,
) -> tuple[Float[Tensor, "row dest d_model"], Float[Tensor, "row dest head d_head"]]:
    """Return resid_pre and z of a block at the sites of each row (None: all positions), from q, k and v at all.

    For a search, products of attention are those at all positions, which round otherwise than those at a few.
    """
    (q, k, v), dest = projected, torch.arange(resid.shape[1], device=resid.device)
    bias, keys = biases.of(anatomy, block, slice(None), len(dest)), anatomy.expand_heads(anatomy.keys(block, k, dest))
    numbers = torch.arange(len(resid), device=resid.device).unsqueeze(1)
    resid = resid if sites is None else resid[numbers, sites]
    if to_search:
        q = anatomy.queries(block, q, dest)
        scores = block.cap(torch.einsum("rdhe,rshe->rhds", q * block.scale, keys)) + bias
        if (sink := anatomy.sink(block, q, dest)) is not None:
            scores = scores - sink + sink  # as `forward_with_edits`, which runs the bases
        z = anatomy.mix(anatomy.softmax(scores, sink), v)
        return resid, (z if sites is None else z[numbers, sites])
    if sites is None:
        q = anatomy.queries(block, q, dest)
    else:
        dest, flat = sites, sites.flatten()
        q = anatomy.queries(block, q[numbers, sites].flatten(0, 1), flat).unflatten(0, sites.shape)
        bias = bias.index_select(1, flat).unflatten(1, sites.shape).transpose(0, 1)
    return resid, anatomy.attend(block, q, keys, anatomy.expand_heads(v), bias, anatomy.sink(block, q, dest))


def _after(block: Block, resid: Tensor, z: Tensor) -> Float[Tensor, "row dest d_model"]:
    """Return resid_post of a block from its resid_pre and z."""
    mid = resid + block.attn_out(z)
    return mid + block.mlp_out(resid if block.parallel else mid)


def _chunks(anatomy: Anatomy, tokens: Tensor, ends: Tensor, whole: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield numbers and tokens of some pairs, in the order of the positions at which they may end, if not `whole`."""
    size = max(1, min(CHUNK, CPU_TOKENS // tokens.shape[1])) if anatomy.device.type == "cpu" else CHUNK
    whole = whole or not anatomy.causal
    for rows in (torch.arange(len(ends)) if whole else ends.argsort(stable=True)).split(size):
        end = tokens.shape[1] if whole else int(ends[rows].max()) + 1
        yield rows, tokens[rows, :end].to(anatomy.device)
