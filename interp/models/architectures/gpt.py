"""Builders for the GPT-2 generation: BLOOM, GPT-2, GPT-Neo, GPT-J, CodeGen, GPT-NeoX, OPT, Falcon, MPT, GPT-BigCode."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.architectures.block import Block
from interp.models.architectures.parts import (
    grouped,
    interleaved,
    longest,
    mlp_parts,
    require,
    rotary,
    rotate_pairs,
    separate,
    stacked,
    tanh_gelu,
)
from interp.models.architectures.steps import Anatomy


def bloom(raw: Any) -> Anatomy:
    """Take BLOOM apart, with or without key sinks."""
    from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

    config, body = raw.config, raw.transformer
    require(raw, apply_residual_connection_post_layernorm=False)
    d_head = config.hidden_size // config.n_head
    act = tanh_gelu(raw, body.h[0].mlp.gelu_impl)
    slopes = _get_alibi_slopes(config.n_head, raw.device)
    blocks = tuple(
        Block(
            module=b,
            ln1=b.input_layernorm,
            ln2=b.post_attention_layernorm,
            qkv=(b.self_attention.query_key_value,),
            split=interleaved(config.n_head, d_head),
            out=b.self_attention.dense,
            scale=d_head**-0.5,
            key_bias=lambda positions: positions.unsqueeze(-1) * slopes,
            mlp_body=lambda x, mlp=b.mlp: act(mlp.dense_h_to_4h(x)),
            mlp_last=b.mlp.dense_4h_to_h,
            sink_key=getattr(b.self_attention, "sink_key", None),
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
            mlp_body=lambda x, mlp=b.mlp: mlp.act(mlp.dense_h_to_4h(x)),
            mlp_last=b.mlp.dense_4h_to_h,
            parallel=config.use_parallel_residual,
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
            mlp_body=lambda x, mlp=b.mlp: act(mlp.c_fc(x)),
            mlp_last=b.mlp.c_proj,
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
        softmax_dtype=None,
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
    )


def gptj(raw: Any) -> Anatomy:
    """Take GPT-J apart: parallel blocks with one norm, rotated pairs, scores in float32."""
    config, body = raw.config, raw.transformer
    n_heads, d_head = config.n_head, config.n_embd // config.n_head

    def rotation(x: Tensor, positions: Tensor) -> Tensor:
        table = body.h[0].attn.embed_positions.to(x.device)[positions].to(x.dtype)
        return rotate_pairs(x, *table.chunk(2, dim=-1))

    blocks = tuple(
        Block(
            module=b,
            ln1=b.ln_1,
            ln2=b.ln_1,
            qkv=(b.attn.q_proj, b.attn.k_proj, b.attn.v_proj),
            split=separate(n_heads, n_heads, d_head),
            out=b.attn.out_proj,
            scale=d_head**-0.5,
            score_dtype=torch.float32,
            rotation=rotation,
            mlp_body=lambda x, mlp=b.mlp: mlp.act(mlp.fc_in(x)),
            mlp_last=b.mlp.fc_out,
            parallel=True,
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
    )


def opt(raw: Any) -> Anatomy:
    """Take OPT apart: learned positions with an offset, a narrower embedding where the configuration asks for it."""
    config, body = raw.config, raw.model.decoder
    require(raw, do_layer_norm_before=True)
    n_heads, d_head = config.num_attention_heads, config.hidden_size // config.num_attention_heads

    def start(tokens: Tensor) -> Tensor:
        embedded = body.embed_tokens(tokens)
        embedded = embedded if body.project_in is None else body.project_in(embedded)
        positions = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
        return embedded + body.embed_positions(torch.ones_like(positions), position_ids=positions)

    blocks = tuple(
        Block(
            module=b,
            ln1=b.self_attn_layer_norm,
            ln2=b.final_layer_norm,
            qkv=(b.self_attn.q_proj, b.self_attn.k_proj, b.self_attn.v_proj),
            split=separate(n_heads, n_heads, d_head),
            out=b.self_attn.out_proj,
            scale=d_head**-0.5,
            mlp_body=lambda x, b=b: b.activation_fn(b.fc1(x)),
            mlp_last=b.fc2,
        )
        for b in body.layers
    )
    return Anatomy(
        raw=raw,
        blocks=blocks,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        final_norm=nn.Identity() if body.final_layer_norm is None else body.final_layer_norm,
        before_head=body.project_out,
        start=start,
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
            key_bias=_falcon_alibi(raw, n_heads, d_head) if config.alibi else None,
            mlp_body=lambda x, mlp=b.mlp: mlp.act(mlp.dense_h_to_4h(x)),
            mlp_last=b.mlp.dense_4h_to_h,
            parallel=parallel,
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


def _falcon_alibi(raw: Any, n_heads: int, d_head: int):  # type: ignore[no-untyped-def]
    """Falcon's ALiBi: rounded to bfloat16, and scaled as q.k is. Transformers 5.23 adds it to the mask as well, which
    its eager attention adds once more."""
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    slopes = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long, device=raw.device), n_heads, torch.float32)[:, 0, 1]
    times = 1 if raw.config._attn_implementation == "sdpa" else 2

    def key_bias(positions: Tensor) -> Tensor:
        return (slopes.bfloat16() * positions.unsqueeze(-1)).to(raw.dtype) / math.sqrt(d_head) * times

    return key_bias


def mpt(raw: Any) -> Anatomy:
    """Take MPT apart: ALiBi, optionally clipped q, k and v."""
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    config, body = raw.config, raw.transformer
    options = config.attn_config
    n_heads, d_head = config.n_heads, config.d_model // config.n_heads
    table = build_mpt_alibi_tensor(n_heads, 2, device=raw.device)  # of two positions: -slope and 0
    slopes = -table[:, 0, 0]
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
            key_bias=lambda positions: positions.unsqueeze(-1) * slopes,
            mlp_body=lambda x, ffn=b.ffn: ffn.act(ffn.up_proj(x)),
            mlp_last=b.ffn.down_proj,
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
    )


def _learned_positions(body: Any):  # type: ignore[no-untyped-def]
    def start(tokens: Tensor) -> Tensor:
        return body.wte(tokens) + body.wpe(torch.arange(tokens.shape[1], device=tokens.device))

    return start
