"""The builder for models that TransformerLens itself wrote (see `interp.models.native`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from interp.models.architectures.block import Block
from interp.models.architectures.parts import plain_mlp, separate
from interp.models.architectures.steps import Anatomy


def native(raw: Any) -> Anatomy:
    """Take a native model apart: learned positions, plain MLPs or none, causal or not."""
    body, config = raw.body, raw.config
    n_heads, n_kv_heads, d_head = config.num_attention_heads, config.num_key_value_heads, body.cfg.d_head

    def mlp(b: Any) -> dict[str, Any]:
        if body.cfg.attn_only:
            nothing = nn.Linear(1, config.hidden_size, bias=False, device="meta")
            nothing.weight = nn.Parameter(torch.zeros(nothing.weight.shape, dtype=raw.dtype, device=raw.device))
            body_of_none = {"ln2": nn.Identity(), "mlp_body": lambda x: x[..., :1], "mlp_last": nothing}
            return {**body_of_none, "has_mlp": False}
        return {"ln2": b.ln2, **plain_mlp(b.mlp.fc_in, b.mlp.act, b.mlp.fc_out)}

    def start(tokens: Tensor) -> Tensor:
        return body.tok_embed(tokens) + body.pos(torch.arange(tokens.shape[1], device=tokens.device))

    return Anatomy(
        raw=raw,
        blocks=tuple(
            Block(
                module=b,
                ln1=b.ln1,
                qkv=(b.attn.q, b.attn.k, b.attn.v),
                split=separate(n_heads, n_kv_heads, d_head),
                out=b.attn.o,
                scale=1 / b.attn.scale,
                **mlp(b),
            )
            for b in body.layers
        ),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        final_norm=body.ln_out,
        start=start,
        softmax_dtype=None,
        causal=body.layers[0].attn.causal,
    )
