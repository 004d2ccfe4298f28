"""The base and source runs of pairs for interchange interventions, as far as a search or a test of one needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.pairs import ORDERS, Pairs, by_position
from interp.patching.editing import Place, forward_with_edits
from interp.patching.unpatched import trace

# Most pairs in one pass, and on a CPU most tokens: more of them leave its caches.
CHUNK = 128
CPU_TOKENS = 1024


def run_bases(
    anatomy: Anatomy, together: Sequence[Pairs], keep: Sequence[Place], to_search: bool
) -> tuple[dict[Place, Tensor], list[Float[Tensor, "pair symbol"]]]:
    """Return the kept places of the base runs, zero after the answers, and the answers' logits.

    resid_pre is `[pair pos d_model]`; keys and values are in the order of `ORDERS`. `together`: pairs with the same
    base prompts, which run once; logits are those of each.
    """
    whole, logits, base = dict[Place, Tensor](), list[Tensor](), together[0].base
    last, answers = len(anatomy.blocks) - 1, torch.stack([pairs.answer - 1 for pairs in together])
    for rows, tokens in _chunks(anatomy, base.tokens, answers.amax(dim=0), to_search):
        reads = (answers if to_search else answers[:, rows]).unique().to(anatomy.device)
        if to_search:
            below = [place for place in keep if place[1] < last]
            resid, kept = forward_with_edits(anatomy, anatomy.embed(tokens), stop=last, keep=below)
            q, k, v = anatomy.blocks[last].project(resid)
            kept |= {("resid_pre", last): resid, ("q", last): q, ("k", last): k, ("v", last): v}
            final = anatomy.block_at(anatomy.blocks[last], resid, reads)
        else:
            final, kept = trace(anatomy, tokens, reads, keep)
            assert final is not None
        if not whole:
            logits = [final.new_zeros(len(pairs), len(pairs.symbols)) for pairs in together]
            whole = {place: _ordered_zeros(kept[place], len(base), base.n_pos, place[0]) for place in keep}
        for found, pairs, answer in zip(logits, together, answers, strict=True):
            at = torch.searchsorted(reads, answer[rows].to(anatomy.device))
            found[rows] = anatomy.unembed(final[torch.arange(len(rows)), at])[:, pairs.symbols.to(anatomy.device)]
        for place, x in whole.items():
            by_position(x, place[0])[rows, : tokens.shape[1]] = kept[place]
    return whole, logits


def _ordered_zeros(like: Tensor, n_pairs: int, n_pos: int, site: str) -> Tensor:
    shape = (n_pairs, n_pos, *like.shape[2:])
    return like.new_zeros([shape[axis] for axis in ORDERS.get(site, range(len(shape)))])


def run_sources(
    anatomy: Anatomy, pairs: Pairs, layers: Sequence[int], to_search: bool
) -> dict[int, Float[Tensor, "pair site"]]:
    """Return the residual at the sites in the source runs, by layer."""
    sources, keep = dict[int, Tensor](), list[Place](("resid_pre", layer) for layer in layers)
    for rows, tokens in _chunks(anatomy, pairs.source.tokens, pairs.site.amax(dim=1), to_search):
        if to_search:
            resid, kept = forward_with_edits(anatomy, anatomy.embed(tokens), stop=layers[-1], keep=keep[:-1])
            kept["resid_pre", layers[-1]] = resid
        else:
            last = torch.tensor([tokens.shape[1] - 1], device=anatomy.device)
            _, kept = trace(anatomy, tokens, last, keep, final=False)
        numbers, sites = torch.arange(len(rows)).unsqueeze(1), pairs.site[rows].to(anatomy.device)
        for layer in layers:
            found = kept["resid_pre", layer][numbers, sites].flatten(1)
            sources.setdefault(layer, found.new_zeros(len(pairs), found.shape[1]))[rows] = found
    return sources


def _chunks(anatomy: Anatomy, tokens: Tensor, ends: Tensor, whole: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield numbers and tokens of some pairs, in the order of the positions at which they may end, if not `whole`."""
    size = max(1, min(CHUNK, CPU_TOKENS // tokens.shape[1])) if anatomy.device.type == "cpu" else CHUNK
    whole = whole or not anatomy.causal
    for rows in (torch.arange(len(ends)) if whole else ends.argsort(stable=True)).split(size):
        end = tokens.shape[1] if whole else int(ends[rows].max()) + 1
        yield rows, tokens[rows, :end].to(anatomy.device)
