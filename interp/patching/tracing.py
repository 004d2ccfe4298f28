"""What did each step of an unpatched run compute?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy


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
        """A site's activations; `pattern` is not kept (see `pattern_of`)."""
        if site == "resid_post":
            return self.resid_pre[layer + 1]
        return getattr(self, site)[layer]


@torch.no_grad()
def trace(anatomy: Anatomy, tokens: Int[Tensor, "batch pos"]) -> Trace:
    """Runs the model step by step and keeps every site."""
    tokens = tokens.to(anatomy.device)
    positions = torch.arange(tokens.shape[1], device=anatomy.device)
    kept: dict[str, list[Tensor]] = {s: [] for s in ("resid_mid", "attn_out", "mlp_out", "q", "k", "v", "z")}
    resid = [anatomy.embed(tokens)]
    for block in anatomy.blocks:
        q, k, v = block.project(resid[-1])
        z = anatomy.mix(anatomy.pattern(q, k, positions, positions), v)
        attn_out = block.attn_out(z)
        mid = resid[-1] + attn_out
        mlp_out = block.mlp_out(resid[-1] if block.parallel else mid)
        for name, value in (("resid_mid", mid), ("attn_out", attn_out), ("mlp_out", mlp_out), ("z", z),
                            ("q", q), ("k", k), ("v", v)):  # fmt: skip
            kept[name].append(value)
        resid.append(mid + mlp_out)
    return Trace(tokens, tuple(resid), **{name: tuple(values) for name, values in kept.items()})


@torch.no_grad()
def pattern_of(anatomy: Anatomy, run: Trace, layer: int) -> Float[Tensor, "batch head dest_pos src_pos"]:
    """One layer's attention pattern, recomputed from its q and k."""
    positions = torch.arange(run.tokens.shape[1], device=anatomy.device)
    return anatomy.pattern(run.q[layer], run.k[layer], positions, positions)
