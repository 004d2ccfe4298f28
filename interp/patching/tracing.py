"""Traces: the activations of an unpatched run at every site."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.editing import forward_with_edits
from interp.sites import Site

KEPT: tuple[Site, ...] = ("resid_pre", "attn_out", "mlp_out", "q", "k", "v", "z")


@dataclass(frozen=True)
class Trace:
    """Every site of one run, by layer. q, k and v are before rotation.

    Shapes: resid_pre (one more than layers: the last is the final residual), resid_mid, attn_out and mlp_out
    `[batch pos d_model]`; q, k, v and z `[batch pos head d_head]`.
    """

    tokens: Int[Tensor, "batch pos"]
    resid_pre: tuple[Float[Tensor, "batch pos d_model"], ...]
    resid_mid: tuple[Float[Tensor, "batch pos d_model"], ...]
    attn_out: tuple[Float[Tensor, "batch pos d_model"], ...]
    mlp_out: tuple[Float[Tensor, "batch pos d_model"], ...]
    q: tuple[Float[Tensor, "batch pos head d_head"], ...]
    k: tuple[Float[Tensor, "batch pos head d_head"], ...]
    v: tuple[Float[Tensor, "batch pos head d_head"], ...]
    z: tuple[Float[Tensor, "batch pos head d_head"], ...]

    def site(self, site: str, layer: int) -> Tensor:
        """Return a site's activations; `pattern` is not kept (see `pattern_of`)."""
        if site == "resid_post":
            return self.resid_pre[layer + 1]
        return getattr(self, site)[layer]

    @property
    def final(self) -> Float[Tensor, "batch pos d_model"]:
        """The residual after the last layer."""
        return self.resid_pre[-1]


SITES = tuple(field.name for field in fields(Trace) if field.name != "tokens")


@torch.no_grad()
def trace_together(
    anatomy: Anatomy, first: Int[Tensor, "batch pos"], second: Int[Tensor, "batch pos"]
) -> tuple[Trace, Trace]:
    """Return `trace` of two sets of prompts, from one pass."""
    both = trace(anatomy, torch.cat([first, second]))
    # Sites by layer, of either half; `chunk` does what `split` does without its checks in Python.
    halves = {site: zip(*(x.chunk(2) for x in getattr(both, site)), strict=True) for site in SITES}
    of_first, of_second = (
        Trace(tokens, **dict(zip(SITES, values, strict=True)))
        for tokens, *values in zip(both.tokens.chunk(2), *halves.values(), strict=True)
    )
    return of_first, of_second


@torch.no_grad()
def trace(anatomy: Anatomy, tokens: Int[Tensor, "batch pos"]) -> Trace:
    """Run the model step by step and keep every site except the patterns."""
    tokens = tokens.to(anatomy.device)
    layers = range(len(anatomy.blocks))
    final, kept = forward_with_edits(
        anatomy, anatomy.embed(tokens), keep=[(site, layer) for site in KEPT for layer in layers], fused=True
    )
    sites = {site: tuple(kept[site, layer] for layer in layers) for site in KEPT}
    mid = tuple(pre + out for pre, out in zip(sites["resid_pre"], sites["attn_out"], strict=True))
    return Trace(
        tokens,
        resid_pre=(*sites["resid_pre"], final),
        resid_mid=mid,
        attn_out=sites["attn_out"],
        mlp_out=sites["mlp_out"],
        q=sites["q"],
        k=sites["k"],
        v=sites["v"],
        z=sites["z"],
    )


@torch.no_grad()
def neurons_of(anatomy: Anatomy, run: Trace, site: str, layer: int) -> Float[Tensor, "batch pos d_mlp"]:
    """Return one layer's mlp_pre or mlp_post, recomputed from the residual that its MLP reads."""
    block = anatomy.blocks[layer]
    read = (run.resid_pre if block.parallel else run.resid_mid)[layer]
    pre = block.mlp_pre(read)
    return pre if site == "mlp_pre" else block.mlp_post(pre, read)


@torch.no_grad()
def pattern_of(anatomy: Anatomy, run: Trace, layer: int) -> Float[Tensor, "batch head dest_pos src_pos"]:
    """Return one layer's attention pattern, recomputed from its q and k."""
    positions = torch.arange(run.tokens.shape[1], device=anatomy.device)
    return anatomy.pattern(anatomy.blocks[layer], run.q[layer], run.k[layer], positions, positions)
