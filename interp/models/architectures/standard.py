"""The builder of Llama-type decoders: `model.layers` with `self_attn` and `mlp`; options say what differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.architectures.block import Block, HeadNorm
from interp.models.architectures.parts import (
    Rotation,
    longest,
    mlp_parts,
    rotary,
    separate,
    shared_norm,
    stacked,
    window_by_type,
)
from interp.models.architectures.steps import Anatomy


def decoder(
    raw: Any,
    *,
    ln1: str | None = "input_layernorm",
    ln2: str | None = "post_attention_layernorm",
    attn_norm: str | None = None,
    mlp_norm: str | None = None,
    final_norm: str = "norm",
    out: str = "o_proj",
    fused: str | None = None,
    mlp: str = "mlp",
    parallel: bool = False,
    head_norms: tuple[str, str] | None = None,
    norm_heads: Callable[[nn.Module], HeadNorm] = shared_norm,
    wide_norms: bool = False,
    norm_after_rotation: bool = False,
    clip: float | None = None,
    score_cap: float | None = None,
    gain: float = 1.0,
    window: Callable[[Any, int], int | None] | None = window_by_type,
    rotates: Callable[[Any], bool] = lambda attention: True,
    rotary_by_type: bool = False,
    sinks: str | None = None,
    softmax_dtype: torch.dtype | None = torch.float32,
    start: Callable[[Tensor], Tensor] | None = None,
    finish: Callable[[Tensor], Tensor] | None = None,
    rounds_to: torch.dtype | None = None,
) -> Anatomy:
    """Take a Llama-type decoder apart.

    Args:
        raw: the model, with `model.layers`, `model.embed_tokens` and `model.rotary_emb`.
        ln1, ln2, attn_norm, mlp_norm: names of a layer's norms; None for the identity, or for no norm.
        final_norm, out, mlp: names of these modules in the model, in attention, in a layer.
        fused: the name of a projection that holds q, k and v, one after the other.
        parallel: whether the MLP reads resid_pre.
        head_norms: names of the norms of q and k in attention; `norm_heads` makes a `HeadNorm` of one.
        wide_norms: these norms run over all heads at once, and q and k are taken after them.
        norm_after_rotation: these norms come after the rotation.
        clip, score_cap, gain: as in `Block`.
        window: the sliding window of a layer, from the configuration and the layer.
        rotates: whether an attention module rotates.
        rotary_by_type: the rotary module takes the layer's type.
        sinks: the name of the learned sinks in attention.
        softmax_dtype, start, finish, rounds_to: as in `Anatomy`.
    """
    config, body = raw.config, raw.model
    n_heads, n_kv_heads = config.num_attention_heads, config.num_key_value_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads

    def block(i: int, layer: Any) -> Block:
        attention = layer.self_attn
        qkv = (getattr(attention, fused),) if fused else (attention.q_proj, attention.k_proj, attention.v_proj)
        norms = [getattr(attention, name, None) for name in head_norms or ()]
        q_norm, k_norm = norms if norms and norms[0] is not None else (None, None)
        projections = None
        if wide_norms and q_norm is not None and k_norm is not None:
            q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
            projections = (_chain(q, q_norm), _chain(k, k_norm), v)
            qkv, q_norm, k_norm = (q_norm, k_norm, v), None, None
        first = nn.Identity() if ln1 is None else getattr(layer, ln1)
        rotation: Rotation | None = None
        if rotates(attention):
            rotation = rotary(raw, body.rotary_emb, attention, config.layer_types[i] if rotary_by_type else None)
        return Block(
            module=layer,
            ln1=first,
            ln2=nn.Identity() if ln2 is None else getattr(layer, ln2),
            qkv=qkv,
            split=(stacked if fused else separate)(n_heads, n_kv_heads, d_head),
            projections=projections,
            clip=clip,
            query_norm=None if q_norm is None else norm_heads(q_norm),
            key_norm=None if k_norm is None else norm_heads(k_norm),
            norm_after_rotation=norm_after_rotation,
            rotation=rotation,
            out=getattr(attention, out),
            scale=getattr(attention, "scaling", d_head**-0.5),
            score_cap=score_cap,
            window=None if window is None else window(config, i),
            sink_logit=None if sinks is None else getattr(attention, sinks),
            attn_norm=None if attn_norm is None else getattr(layer, attn_norm),
            mlp_norm=None if mlp_norm is None else getattr(layer, mlp_norm),
            parallel=parallel,
            gain=gain,
            **mlp_parts(getattr(layer, mlp)),
        )

    return Anatomy(
        raw=raw,
        blocks=tuple(block(i, layer) for i, layer in enumerate(body.layers)),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        final_norm=getattr(body, final_norm),
        start=body.embed_tokens if start is None else start,
        softmax_dtype=softmax_dtype,
        finish=finish,
        rounds_to=rounds_to,
        longest=longest(raw),
    )


def _chain(projection: nn.Module, norm: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: norm(projection(x))


def soft_cap(cap: float | None) -> Callable[[Tensor], Tensor] | None:
    """Return the soft cap of the final logits, c tanh(logit / c); None for none."""
    return None if cap is None else lambda logits: torch.tanh(logits / cap) * cap
