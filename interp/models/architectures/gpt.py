"""Builders for GPT-2, GPT-BigCode, GPT-Neo, GPT-J, CodeGen and GPT-NeoX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.architectures.block import Block
from interp.models.architectures.parts import (
    Split,
    interleaved,
    longest,
    mlp_parts,
    plain_mlp,
    require,
    rotary,
    rotate_pairs,
    separate,
    stacked,
    tanh_gelu,
)
from interp.models.architectures.steps import Anatomy


def gpt_neox(raw: Any) -> Anatomy:
    """Take GPT-NeoX (Pythia) apart, with sequential or parallel blocks."""
    config, body = raw.config, raw.gpt_neox
    d_head = config.hidden_size // config.num_attention_heads
    blocks = tuple(
        Block(
            module=b,
            ln1=b.input_layernorm,
            ln2=b.post_attention_layernorm,
            qkv=(b.attention.query_key_value,),
            split=interleaved(config.num_attention_heads, d_head),
            out=b.attention.dense,
            scale=d_head**-0.5,
            rotation=rotary(raw, body.rotary_emb, b),
            parallel=config.use_parallel_residual,
            **plain_mlp(b.mlp.dense_h_to_4h, b.mlp.act, b.mlp.dense_4h_to_h),
        )
        for b in body.layers
    )
    return Anatomy(
        raw=raw,
        blocks=blocks,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_attention_heads,
        d_head=d_head,
        final_norm=body.final_layer_norm,
        start=body.embed_in,
        longest=longest(raw),
    )


def gpt2(raw: Any) -> Anatomy:
    """Take GPT-2, or GPT-BigCode with its multi-query attention, apart."""
    config, body = raw.config, raw.transformer
    require(raw, reorder_and_upcast_attn=False, add_cross_attention=False)
    multi_query = config.model_type == "gpt_bigcode" and config.multi_query
    n_heads, d_head = config.n_head, config.n_embd // config.n_head
    n_kv_heads = 1 if multi_query else n_heads
    split = interleaved(n_heads, d_head) if config.model_type == "gpt_bigcode" else stacked(n_heads, n_heads, d_head)
    own = body.h[0].mlp.act
    act = tanh_gelu(raw, own) if config.activation_function in ("gelu_new", "gelu_pytorch_tanh") else own
    scale = d_head**-0.5 if config.scale_attn_weights else 1.0
    by_layer = getattr(config, "scale_attn_by_inverse_layer_idx", False)
    blocks = tuple(
        Block(
            module=b,
            ln1=b.ln_1,
            ln2=b.ln_2,
            qkv=(b.attn.c_attn,),
            split=stacked(n_heads, 1, d_head) if multi_query else split,
            out=b.attn.c_proj,
            scale=scale / (i + 1) if by_layer else scale,
            **plain_mlp(b.mlp.c_fc, act, b.mlp.c_proj),
        )
        for i, b in enumerate(body.h)
    )
    return Anatomy(
        raw=raw,
        blocks=blocks,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        final_norm=body.ln_f,
        start=_learned_positions(body),
        softmax_dtype=torch.float32 if getattr(config, "attention_softmax_in_fp32", False) else None,
    )


def gpt_neo(raw: Any) -> Anatomy:
    """Take GPT-Neo apart: local and global layers, unscaled scores in float32."""
    config, body = raw.config, raw.transformer
    n_heads, d_head = config.num_heads, config.hidden_size // config.num_heads
    blocks = tuple(
        Block(
            module=b,
            ln1=b.ln_1,
            ln2=b.ln_2,
            qkv=(b.attn.attention.q_proj, b.attn.attention.k_proj, b.attn.attention.v_proj),
            split=separate(n_heads, n_heads, d_head),
            out=b.attn.attention.out_proj,
            scale=1.0,
            score_dtype=torch.float32,
            window=config.window_size if b.attn.attention_type == "local" else None,
            **mlp_parts(b.mlp),
        )
        for b in body.h
    )
    return Anatomy(
        raw=raw,
        blocks=blocks,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        final_norm=body.ln_f,
        start=_learned_positions(body),
        softmax_dtype=None,
        rounds_to=torch.float32,
    )


def gptj(raw: Any) -> Anatomy:
    """Take GPT-J apart: parallel blocks with one norm, rotated pairs, scores in float32."""
    config, body = raw.config, raw.transformer
    split = separate(config.n_head, config.n_head, config.n_embd // config.n_head)
    return _gptj(raw, lambda attention: (attention.q_proj, attention.k_proj, attention.v_proj), split, body)


def codegen(raw: Any) -> Anatomy:
    """Take CodeGen apart: GPT-J with a fused projection in four parts, each with its q, v and k."""
    config, body = raw.config, raw.transformer
    n_heads, d_head = config.n_head, config.n_embd // config.n_head

    def split(fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, v, k = fused.unflatten(-1, (4, 3, n_heads // 4, d_head)).unbind(-3)
        return q.flatten(-3, -2), k.flatten(-3, -2), v.flatten(-3, -2)

    return _gptj(raw, lambda attention: (attention.qkv_proj,), split, body)


def _gptj(raw: Any, projections: Callable[[Any], tuple[nn.Module, ...]], split: Split, body: Any) -> Anatomy:
    config = raw.config
    n_heads, d_head = config.n_head, config.n_embd // config.n_head

    def rotation(x: Tensor, positions: Tensor) -> Tensor:
        table = body.h[0].attn.embed_positions.to(x.device)[positions].to(x.dtype)
        return rotate_pairs(x, *table.chunk(2, dim=-1))

    blocks = tuple(
        Block(
            module=b,
            ln1=b.ln_1,
            ln2=b.ln_1,
            qkv=projections(b.attn),
            split=split,
            out=b.attn.out_proj,
            scale=d_head**-0.5,
            score_dtype=torch.float32,
            rotation=rotation,
            parallel=True,
            **plain_mlp(b.mlp.fc_in, b.mlp.act, b.mlp.fc_out),
        )
        for b in body.h
    )
    return Anatomy(
        raw=raw,
        blocks=blocks,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        final_norm=body.ln_f,
        start=body.wte,
        softmax_dtype=None,
        rounds_to=torch.float32,
    )


def _learned_positions(body: Any):  # type: ignore[no-untyped-def]
    def start(tokens: Tensor) -> Tensor:
        return body.wte(tokens) + body.wpe(torch.arange(tokens.shape[1], device=tokens.device))

    return start
