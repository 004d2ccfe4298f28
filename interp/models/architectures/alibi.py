"""Builders for architectures with ALiBi: BLOOM, MPT, and Falcon, which may rotate instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.architectures.block import Block
from interp.models.architectures.checks import device_of
from interp.models.architectures.parts import (
    grouped,
    interleaved,
    longest,
    plain_mlp,
    require,
    rotary,
    stacked,
    tanh_gelu,
)
from interp.models.architectures.steps import Anatomy


def bloom(raw: Any) -> Anatomy:
    """Take BLOOM apart, with or without key sinks."""
    config, body = raw.config, raw.transformer
    require(raw, apply_residual_connection_post_layernorm=False)
    d_head = config.hidden_size // config.n_head
    act = tanh_gelu(raw, body.h[0].mlp.gelu_impl)
    key_bias = _alibi(_bloom_slopes(config.n_head, device_of(raw)))
    blocks = tuple(
        Block(
            module=b,
            ln1=b.input_layernorm,
            ln2=b.post_attention_layernorm,
            qkv=(b.self_attention.query_key_value,),
            split=interleaved(config.n_head, d_head),
            out=b.self_attention.dense,
            scale=d_head**-0.5,
            key_bias=key_bias,
            sink_key=getattr(b.self_attention, "sink_key", None),
            **plain_mlp(b.mlp.dense_h_to_4h, act, b.mlp.dense_4h_to_h),
        )
        for b in body.h
    )
    return Anatomy(
        raw=raw,
        blocks=blocks,
        n_heads=config.n_head,
        n_kv_heads=config.n_head,
        d_head=d_head,
        final_norm=body.ln_f,
        start=lambda tokens: body.word_embeddings_layernorm(body.word_embeddings(tokens)),
    )


@lru_cache(maxsize=16)
def _bloom_slopes(n_heads: int, device: torch.device) -> Float[Tensor, " head"]:
    """Return BLOOM's slopes, which depend on nothing else."""
    from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

    return _get_alibi_slopes(n_heads, device)


def mpt(raw: Any) -> Anatomy:
    """Take MPT apart: ALiBi, optionally clipped q, k and v."""
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    config, body = raw.config, raw.transformer
    options = config.attn_config
    n_heads, d_head = config.n_heads, config.d_model // config.n_heads
    table = build_mpt_alibi_tensor(n_heads, 2, device=raw.device)  # of two positions: -slope and 0
    key_bias = _alibi(-table[:, 0, 0])
    blocks = tuple(
        Block(
            module=b,
            ln1=b.norm_1,
            ln2=b.norm_2,
            qkv=(b.attn.Wqkv,),
            split=stacked(n_heads, n_heads, d_head),
            clip=options.clip_qkv or None,
            out=b.attn.out_proj,
            scale=b.attn.softmax_scale,
            key_bias=key_bias,
            **plain_mlp(b.ffn.up_proj, b.ffn.act, b.ffn.down_proj),
        )
        for b in body.blocks
    )
    return Anatomy(
        raw=raw,
        blocks=blocks,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        final_norm=body.norm_f,
        start=body.wte,
        rounds_to=torch.float32,
    )


def falcon(raw: Any) -> Anatomy:
    """Take Falcon apart: rotary or ALiBi, sequential or parallel blocks, one or two norms, grouped or one key."""
    config, body = raw.config, raw.transformer
    n_heads, d_head = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    new = config.new_decoder_architecture
    n_kv_heads = config.num_kv_heads if new else 1 if config.multi_query else n_heads
    split = grouped(n_heads, n_kv_heads, d_head) if new or config.multi_query else interleaved(n_heads, d_head)
    parallel = new or config.parallel_attn

    def norms(b: Any) -> tuple[nn.Module, nn.Module]:
        if new and config.num_ln_in_parallel_attn == 2:
            return b.ln_attn, b.ln_mlp
        return b.input_layernorm, b.input_layernorm if parallel else b.post_attention_layernorm

    rotation = None if config.alibi else rotary(raw, body.rotary_emb, body)
    key_bias = _falcon_alibi(raw, n_heads, d_head) if config.alibi else None
    blocks = tuple(
        Block(
            module=b,
            ln1=norms(b)[0],
            ln2=norms(b)[1],
            qkv=(b.self_attention.query_key_value,),
            split=split,
            out=b.self_attention.dense,
            scale=d_head**-0.5,
            rotation=rotation,
            key_bias=key_bias,
            parallel=parallel,
            **plain_mlp(b.mlp.dense_h_to_4h, b.mlp.act, b.mlp.dense_4h_to_h),
        )
        for b in body.h
    )
    return Anatomy(
        raw=raw,
        blocks=blocks,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        final_norm=body.ln_f,
        start=body.word_embeddings,
        softmax_dtype=None,
        longest=None if config.alibi else longest(raw),
    )


def _alibi(slopes: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what a key's position adds to scores, `[... head]`: one function, so that all blocks share its values."""
    return lambda positions: positions.unsqueeze(-1) * slopes


def _falcon_alibi(raw: Any, n_heads: int, d_head: int):  # type: ignore[no-untyped-def]
    """Falcon's ALiBi: rounded to bfloat16, and scaled as q.k is. Transformers 5.23 adds it to the mask as well, which
    its eager attention adds once more."""
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    slopes = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long, device=raw.device), n_heads, torch.float32)[:, 0, 1]
    times = 1 if raw.config._attn_implementation == "sdpa" else 2

    def key_bias(positions: Tensor) -> Tensor:
        return (slopes.bfloat16() * positions.unsqueeze(-1)).to(raw.dtype) / math.sqrt(d_head) * times

    return key_bias
