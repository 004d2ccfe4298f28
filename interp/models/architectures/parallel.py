"""Builders for decoders with Llama's modules and parallel blocks, or with norms per head: Phi, StableLM, Cohere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from interp.models.architectures.block import HeadNorm
from interp.models.architectures.standard import decoder
from interp.models.architectures.steps import Anatomy


def phi(raw: Any) -> Anatomy:
    """Take Phi apart: parallel blocks with one norm, part of each head rotated."""
    return decoder(
        raw,
        ln2="input_layernorm",
        parallel=True,
        out="dense",
        final_norm="final_layernorm",
        head_norms=("q_layernorm", "k_layernorm"),
    )


def stablelm(raw: Any) -> Anatomy:
    """Take StableLM apart: sequential or parallel blocks, optionally a norm of its own for each head's q and k."""
    parallel = raw.config.use_parallel_residual
    return decoder(
        raw,
        ln2="input_layernorm" if parallel else "post_attention_layernorm",
        parallel=parallel,
        head_norms=("q_layernorm", "k_layernorm"),
        norm_heads=_norm_per_head,
    )


def cohere(raw: Any) -> Anatomy:
    """Take Cohere's Command models apart: parallel blocks with one norm, scaled logits; Command R7B has windows, and
    rotates in the layers that have one."""
    scale = raw.config.logit_scale
    windowed = raw.config.model_type == "cohere2"
    return decoder(
        raw,
        ln2="input_layernorm",
        parallel=True,
        head_norms=("q_norm", "k_norm"),
        norm_heads=_norm_with_weights_per_head,
        rotates=(lambda attention: attention.sliding_window is not None) if windowed else (lambda attention: True),
        finish=lambda logits: logits * scale,
    )


def _norm_per_head(module: Any) -> HeadNorm:
    """StableLM's list of norms, one per head."""

    def norm(x: Tensor, heads: slice) -> Tensor:
        norms = list(module.norms)[heads]
        return torch.cat([n(part) for n, part in zip(norms, x.split(1, dim=-2), strict=True)], dim=-2)

    return norm


def _norm_with_weights_per_head(module: nn.Module) -> HeadNorm:
    """Cohere's norm, whose weight is `[head d_head]`."""
    # One head broadcasts against the weights of all of them; its own are then selected.
    return lambda x, heads: module(x)[..., heads, :]
