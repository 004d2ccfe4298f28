"""Builders for decoders that differ from Llama in norms, windows, rotation, multipliers, or the MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.models.architectures.parts import require, window_of_all
from interp.models.architectures.standard import decoder, soft_cap
from interp.models.architectures.steps import Anatomy


def llama(raw: Any) -> Anatomy:
    """Take a decoder with Llama's layout apart."""
    return decoder(raw)


def mistral(raw: Any) -> Anatomy:
    """Take a decoder apart whose layers share one sliding window, with experts or without (Mistral, Mixtral)."""
    return decoder(raw, window=window_of_all)


def qwen3(raw: Any) -> Anatomy:
    """Take a decoder with a norm of each head's q and k apart (Qwen3)."""
    return decoder(raw, head_norms=("q_norm", "k_norm"))


def ernie4_5_moe(raw: Any) -> Anatomy:
    """Take Llama with experts whose router multiplies in float32 apart (ERNIE 4.5)."""
    return decoder(raw, rounds_to=torch.float32)


def glm4_moe(raw: Any) -> Anatomy:
    """Take GLM-4 MoE or dots.llm1 apart: norms of q and k, and experts whose router multiplies in float32."""
    return decoder(raw, head_norms=("q_norm", "k_norm"), rounds_to=torch.float32)


def qwen3_moe(raw: Any) -> Anatomy:
    """Take Qwen3-MoE apart: experts in some layers, one sliding window."""
    return decoder(raw, head_norms=("q_norm", "k_norm"), window=window_of_all)


def gemma(raw: Any) -> Anatomy:
    """Take Gemma apart; its embedding module scales."""
    require(raw, use_bidirectional_attention=None)
    return decoder(raw)


def gemma2(raw: Any) -> Anatomy:
    """Take Gemma 2 apart: soft caps, norms after attention and MLP, alternating windows."""
    require(raw, use_bidirectional_attention=None)
    return decoder(
        raw,
        attn_norm="post_attention_layernorm",
        ln2="pre_feedforward_layernorm",
        mlp_norm="post_feedforward_layernorm",
        score_cap=raw.config.attn_logit_softcapping,
        finish=soft_cap(raw.config.final_logit_softcapping),
    )


def gemma3(raw: Any) -> Anatomy:
    """Take Gemma 3's text model apart: norms of q and k, and a rotary base per layer type."""
    require(raw, use_bidirectional_attention=False)
    return decoder(
        raw,
        attn_norm="post_attention_layernorm",
        ln2="pre_feedforward_layernorm",
        mlp_norm="post_feedforward_layernorm",
        head_norms=("q_norm", "k_norm"),
        rotary_by_type=True,
        finish=soft_cap(raw.config.final_logit_softcapping),
    )


def vaultgemma(raw: Any) -> Anatomy:
    """Take VaultGemma apart: Gemma 2 without the norms after attention and MLP."""
    return decoder(
        raw,
        ln2="pre_feedforward_layernorm",
        score_cap=raw.config.attn_logit_softcapping,
        finish=soft_cap(raw.config.final_logit_softcapping),
    )


def phi3(raw: Any) -> Anatomy:
    """Take Phi-3 apart: fused projections, one sliding window."""
    return decoder(raw, fused="qkv_proj", window=window_of_all)


def olmo(raw: Any) -> Anatomy:
    """Take OLMo or OLMoE apart: clipped q, k and v; OLMoE norms q and k over all heads."""
    require(raw, **({"clip_qkv": None} if raw.config.model_type == "olmoe" else {}))
    return decoder(raw, clip=raw.config.clip_qkv, head_norms=("q_norm", "k_norm"), wide_norms=True)


def olmo2(raw: Any) -> Anatomy:
    """Take OLMo 2 or 3 apart: norms of q and k over all heads, and norms after attention and MLP only."""
    return decoder(
        raw,
        ln1=None,
        attn_norm="post_attention_layernorm",
        ln2=None,
        mlp_norm="post_feedforward_layernorm",
        head_norms=("q_norm", "k_norm"),
        wide_norms=True,
        rotary_by_type=raw.config.model_type == "olmo3",
    )


def exaone4(raw: Any) -> Anatomy:
    """Take EXAONE 4 apart: norms after attention and MLP only, and no rotation in its global layers."""
    return decoder(
        raw,
        ln1=None,
        attn_norm="post_attention_layernorm",
        ln2=None,
        mlp_norm="post_feedforward_layernorm",
        head_norms=("q_norm", "k_norm"),
        rotates=lambda attention: attention.sliding_window is None or attention.is_sliding,
    )


def wide_qk_norm(raw: Any) -> Anatomy:
    """Take a decoder apart that norms q and k over all heads (FlexOlmo, MiniMax-M2)."""
    if raw.config.model_type == "flex_olmo":
        return olmo2(raw)
    return decoder(
        raw,
        head_norms=("q_norm", "k_norm"),
        wide_norms=True,
        window=None,
        rounds_to=torch.float32,  # its router's
    )


def smollm3(raw: Any) -> Anatomy:
    """Take SmolLM3 apart: some layers do not rotate."""
    return decoder(raw, rotates=lambda attention: bool(attention.use_rope))


def granite(raw: Any) -> Anatomy:
    """Take Granite apart, with experts or without: multipliers of the embedding, the residual and the logits."""
    config, body = raw.config, raw.model

    def start(tokens: Tensor) -> Tensor:
        return body.embed_tokens(tokens) * config.embedding_multiplier

    return decoder(
        raw,
        start=start,
        gain=config.residual_multiplier,
        finish=lambda logits: logits / config.logits_scaling,
        mlp="mlp" if config.model_type == "granite" else "block_sparse_moe",
        window=None,
    )


def glm(raw: Any) -> Anatomy:
    """Take GLM or GLM-4 apart; GLM-4 has norms after attention and MLP."""
    if raw.config.model_type == "glm":
        return decoder(raw)
    return decoder(raw, attn_norm="post_self_attn_layernorm", mlp_norm="post_mlp_layernorm")


def apertus(raw: Any) -> Anatomy:
    """Take Apertus apart: Llama with other names and norms of q and k."""
    return decoder(raw, ln1="attention_layernorm", ln2="feedforward_layernorm", head_norms=("q_norm", "k_norm"))


def hunyuan(raw: Any) -> Anatomy:
    """Take HunYuan's dense model apart: norms of q and k after rotation."""
    return decoder(raw, head_norms=("query_layernorm", "key_layernorm"), norm_after_rotation=True)


def gpt_oss(raw: Any) -> Anatomy:
    """Take gpt-oss apart: learned sinks, alternating windows, experts."""
    if raw.config._attn_implementation not in ("eager", None):
        raise ValueError(
            f"gpt_oss with attention {raw.config._attn_implementation!r} is not supported; load it with "
            "attn_implementation='eager'"
        )
    return decoder(raw, sinks="sinks", softmax_dtype=None)


def nanochat(raw: Any) -> Anatomy:
    """Take nanochat apart: norms of q and k after rotation, and a norm of the embedding."""
    body = raw.model
    return decoder(
        raw,
        head_norms=("q_norm", "k_norm"),
        norm_after_rotation=True,
        start=lambda tokens: body.norm(body.embed_tokens(tokens)),
        finish=soft_cap(raw.config.final_logit_softcapping),
    )
