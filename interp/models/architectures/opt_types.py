"""Builders for OPT and XGLM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from interp.models.architectures.block import Block
from interp.models.architectures.parts import plain_mlp, require, separate
from interp.models.architectures.steps import Anatomy


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

    return Anatomy(
        raw=raw,
        blocks=_blocks(body.layers, n_heads, d_head),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        final_norm=nn.Identity() if body.final_layer_norm is None else body.final_layer_norm,
        before_head=body.project_out,
        start=start,
    )


def xglm(raw: Any) -> Anatomy:
    """Take XGLM apart: sinusoidal positions with an offset, a scaled embedding."""
    config, body = raw.config, raw.model
    n_heads, d_head = config.attention_heads, config.d_model // config.attention_heads

    def start(tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
        return body.embed_tokens(tokens) + body.embed_positions(positions, 0)

    return Anatomy(
        raw=raw,
        blocks=_blocks(body.layers, n_heads, d_head),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        final_norm=body.layer_norm,
        start=start,
        softmax_dtype=None,
    )


def _blocks(layers: Any, n_heads: int, d_head: int) -> tuple[Block, ...]:
    return tuple(
        Block(
            module=b,
            ln1=b.self_attn_layer_norm,
            ln2=b.final_layer_norm,
            qkv=(b.self_attn.q_proj, b.self_attn.k_proj, b.self_attn.v_proj),
            split=separate(n_heads, n_heads, d_head),
            out=b.self_attn.out_proj,
            scale=d_head**-0.5,
            **plain_mlp(b.fc1, b.activation_fn, b.fc2),
        )
        for b in layers
    )
