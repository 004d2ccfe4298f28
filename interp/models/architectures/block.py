"""Block: the modules of one decoder layer, and the steps between TransformerLens's sites within it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

HeadNorm = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True, kw_only=True)
class Block:
    """The modules of one block, and what its attention adds to plain causal attention.

    Attention:
        module: the decoder layer of the raw model.
        ln1: the norm before attention; the identity where there is none.
        qkv: the modules (one fused, or three) whose outputs `split` turns into q, k and v, `[... pos head d_head]`.
        split: rearranges these outputs and does nothing else.
        projections: what gives these outputs from the normed residual, where that is more than `qkv` (OLMo2 norms
            q and k over all heads, and its q and k are taken after that norm).
        clip: bound of the absolute values of q, k and v.
        query_norm, key_norm: norms of each head's q and k, called with the heads that are given. q and k are taken
            before them.
        rotation: the rotary encoding, from q or k and positions; None where there is none.
        norm_after_rotation: whether these norms come after the rotation.
        scale: factor of q.k.
        score_cap: soft cap c of the scores, c tanh(score / c).
        score_dtype: the dtype of q.k, where the architecture casts q and k.
        key_bias: ALiBi: what a key's position adds to scores, `[... head]` from positions `[...]`.
        window: a query reads the last `window` keys, its own among them; None for all.
        sink_key: one more key per head, whose value is zero (see `interp.models.sink`).
        sink_logit: one more score per head, whose value is zero (gpt-oss).
        out: the output projection.
        attn_norm: a norm of the attention's output.

    MLP:
        ln2: the norm before the MLP; the same as ln1 in parallel blocks with a shared norm.
        mlp_body: the MLP up to its last projection, or all of it where `mlp_last` is None (experts).
        mlp_last: the last projection.
        mlp_first: the projection whose output is mlp_pre (in a gated MLP, the gate's); None where neurons have no
            projection of their own (experts).
        mlp_act: mlp_post from mlp_pre and the normed residual, which a gated MLP reads once more.
        fused_gate: whether mlp_pre is the first half of `mlp_first`'s output, and the second half what it gates.
        mlp_module: the MLP as the raw model calls it, where `mlp_last` is None.
        mlp_norm: a norm of the MLP's output.
        parallel: whether the MLP reads resid_pre, so that there is no resid_mid.
        has_mlp: False for models without MLPs; here their MLP adds zero.
        gain: factor of both outputs as they are added to the residual stream.
    """

    module: nn.Module
    ln1: nn.Module
    ln2: nn.Module
    qkv: tuple[nn.Module, ...]
    split: Callable[..., tuple[Tensor, Tensor, Tensor]]
    out: nn.Module
    scale: float
    mlp_body: Callable[[Tensor], Tensor]
    mlp_last: nn.Module | None = None
    mlp_module: nn.Module | None = None
    mlp_first: nn.Module | None = None
    mlp_act: Callable[[Tensor, Tensor], Tensor] | None = None
    fused_gate: bool = False
    parallel: bool = False
    has_mlp: bool = True
    projections: tuple[Callable[[Tensor], Tensor], ...] | None = None
    clip: float | None = None
    query_norm: HeadNorm | None = None
    key_norm: HeadNorm | None = None
    rotation: Callable[[Tensor, Int[Tensor, " pos"]], Tensor] | None = None
    norm_after_rotation: bool = False
    score_cap: float | None = None
    score_dtype: torch.dtype | None = None
    key_bias: Callable[[Tensor], Tensor] | None = None
    window: int | None = None
    sink_key: Float[Tensor, "head d_head"] | None = None
    sink_logit: Float[Tensor, " head"] | None = None
    attn_norm: nn.Module | None = None
    mlp_norm: nn.Module | None = None
    gain: float = 1.0

    @property
    def attn_end(self) -> nn.Module:
        """The module whose output, times `gain`, is attn_out."""
        return self.out if self.attn_norm is None else self.attn_norm

    @property
    def mlp_end(self) -> nn.Module:
        """The module whose output (the first, of a tuple), times `gain`, is mlp_out."""
        end = self.mlp_norm or self.mlp_last or self.mlp_module
        assert end is not None
        return end

    @property
    def has_neurons(self) -> bool:
        """Whether mlp_pre and mlp_post exist."""
        return self.mlp_act is not None and self.has_mlp

    @property
    def linear_inputs(self) -> bool:
        """Whether q, k and v are affine in the normed residual."""
        return self.projections is None and self.clip is None

    def is_normed_over_heads(self, site: str) -> bool:
        """Return whether a site is q or k after a norm over all heads: before it, no head's q or k is its own."""
        return self.projections is not None and site in ("q", "k")

    @property
    def linear_output(self) -> bool:
        """Whether attn_out is affine in z, so that it is a sum over heads."""
        return self.attn_norm is None

    def heads_of(self, *projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v, each `[... pos head d_head]`, from the outputs of `qkv`."""
        q, k, v = self.split(*projected)
        if self.clip is None:
            return q, k, v
        return q.clamp(-self.clip, self.clip), k.clamp(-self.clip, self.clip), v.clamp(-self.clip, self.clip)

    def project(self, resid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v before rotation, each `[... pos head d_head]`, from resid_pre `[... pos d_model]`."""
        return self.heads_of(*self.projected(resid))

    def projected(self, resid: Tensor) -> list[Tensor]:
        """Return what `heads_of` turns into q, k and v before rotation, from resid_pre `[... pos d_model]`."""
        normed = self.ln1(resid)
        return [projection(normed) for projection in self.projections or self.qkv]

    def encode(self, norm: HeadNorm | None, x: Tensor, positions: Int[Tensor, " pos"], heads: slice) -> Tensor:
        """Return q or k of `heads` as attention uses it: normed by `norm`, rotated, and cast."""
        if norm is not None and not self.norm_after_rotation:
            x = norm(x, heads)
        if self.rotation is not None:
            x = self.rotation(x, positions)
        if norm is not None and self.norm_after_rotation:
            x = norm(x, heads)
        return x if self.score_dtype is None else x.to(self.score_dtype)

    def attn_out(self, z: Tensor) -> Tensor:
        """Return what attention adds to the residual `[... pos d_model]`, from z `[... pos head d_head]`."""
        out = self.out(z.flatten(-2).contiguous())  # Conv1D of GPT-2 takes views
        out = out if self.attn_norm is None else self.attn_norm(out)
        return out if self.gain == 1 else out * self.gain

    def mlp_out(self, resid: Tensor) -> Tensor:
        """Return what the MLP adds, from the residual that it reads: resid_mid, or resid_pre in parallel blocks."""
        return self.mlp_write(self.mlp_body(self.ln2(resid)))

    def mlp_pre(self, resid: Tensor) -> Tensor:
        """Return what enters the non-linearity `[... pos d_mlp]`, from the residual that the MLP reads."""
        assert self.mlp_first is not None, "only blocks with `has_neurons` have mlp_pre"
        pre = self.mlp_first(self.ln2(resid))
        return pre.chunk(2, dim=-1)[0] if self.fused_gate else pre

    def mlp_post(self, pre: Tensor, resid: Tensor) -> Tensor:
        """Return what the last projection reads `[... pos d_mlp]`, from mlp_pre and the residual that the MLP reads."""
        assert self.mlp_act is not None, "only blocks with `has_neurons` have mlp_post"
        return self.mlp_act(pre, self.ln2(resid))

    def mlp_write(self, post: Tensor) -> Tensor:
        """Return what the MLP adds, from mlp_post (of experts, from their output)."""
        out = post if self.mlp_last is None else self.mlp_last(post)
        out = out if self.mlp_norm is None else self.mlp_norm(out)
        return out if self.gain == 1 else out * self.gain

    def cap(self, scores: Tensor) -> Tensor:
        """Return the scores after the soft cap, if there is one."""
        return scores if self.score_cap is None else torch.tanh(scores / self.score_cap) * self.score_cap
