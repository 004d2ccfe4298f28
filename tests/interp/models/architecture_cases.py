"""A small random model of every architecture, with windows that are shorter than the prompts.

A case is named by its model type, and by the option that makes it another case of the same type.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from interp.tasks import default_vocabulary

VOCAB = len(default_vocabulary().ids)
LAYERS = 3
WINDOW = 4
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 24,
}
ROUTED = {
    **EXPERTS,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
GPT = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}
GEMMA = {"head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 16, "final_logit_softcapping": 5.0}
MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.3,
    "logits_scaling": 2.0,
}
MPT = {"d_model": 32, "n_heads": 4, "n_layers": LAYERS, "max_seq_len": 64}
COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
# Types whose key-value heads have another name, or are as many as the heads.
OWN_KEYS = ("falcon", "gpt_neo", "gpt_neox", "opt")
# Types whose configurations name their sizes otherwise.
OWN_SIZES = ("bloom", "codegen", "gpt2", "gpt_bigcode", "gptj", "mpt", "openai-gpt", "xglm")

# Each case: its model type, and the options of its configuration beside `COMMON`.
EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "apertus": ("apertus", {"head_dim": 8}),
    "arcee": ("arcee", {"head_dim": 8}),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": LAYERS, "n_head": 4}),
    "codegen": ("codegen", {**GPT, "rotary_dim": 4, "n_ctx": 64}),
    "cohere": ("cohere", {"use_qk_norm": True, "logit_scale": 0.5}),
    "cohere2": ("cohere2", {"head_dim": 8, "sliding_window": WINDOW, "layer_types": TYPES, "logit_scale": 0.5}),
    "cwm": (
        "cwm",
        {
            "head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": TYPES,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "dots1": ("dots1", {**ROUTED, "head_dim": 8}),
    "ernie4_5": ("ernie4_5", {"head_dim": 8}),
    "ernie4_5_moe": ("ernie4_5_moe", {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1}),
    "exaone4": (
        "exaone4",
        {"head_dim": 8, "sliding_window": WINDOW, "layer_types": TYPES, "sliding_window_pattern": None},
    ),
    "falcon": ("falcon", {"multi_query": True, "parallel_attn": True}),
    "falcon, alibi": ("falcon", {"alibi": True, "multi_query": False, "parallel_attn": False}),
    "falcon, new_decoder_architecture": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "flex_olmo": ("flex_olmo", EXPERTS),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": ("gemma2", {**GEMMA, "attn_logit_softcapping": 3.0}),
    "gemma3_text": ("gemma3_text", {**GEMMA, "layer_types": TYPES}),
    "glm": ("glm", {"head_dim": 8}),
    "glm4": ("glm4", {"head_dim": 8}),
    "glm4_moe": ("glm4_moe", {**ROUTED, "head_dim": 8, "use_qk_norm": True}),
    "gpt2": ("gpt2", {**GPT, "scale_attn_by_inverse_layer_idx": True}),
    "gpt_bigcode": ("gpt_bigcode", GPT),
    "gpt_neo": (
        "gpt_neo",
        {
            "num_layers": LAYERS,
            "num_heads": 4,
            "window_size": WINDOW,
            "attention_types": [[["local", "global"], 1], [["local"], 1]],
        },
    ),
    "gpt_neox": ("gpt_neox", {"rotary_pct": 0.5}),
    "gpt_oss": (
        "gpt_oss",
        {
            **EXPERTS,
            "head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": TYPES,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "gptj": ("gptj", {**GPT, "rotary_dim": 4}),
    "granite": ("granite", MULTIPLIERS),
    "granitemoe": ("granitemoe", {**EXPERTS, **MULTIPLIERS}),
    "helium": ("helium", {"head_dim": 8}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"head_dim": 8}),
    "jais2": ("jais2", {"head_dim": 8}),
    "llama": ("llama", {"head_dim": 8, "attention_bias": True, "mlp_bias": True}),
    "minimax_m2": ("minimax_m2", {**EXPERTS, "head_dim": 8}),
    "ministral": ("ministral", {"head_dim": 8, "sliding_window": WINDOW, "layer_types": TYPES}),
    "mistral": ("mistral", {"head_dim": 8, "sliding_window": WINDOW}),
    "mixtral": ("mixtral", {**EXPERTS, "head_dim": 8, "sliding_window": WINDOW}),
    "mpt": ("mpt", MPT),
    "mpt, clip_qkv": ("mpt", {**MPT, "attn_config": {"clip_qkv": 1.0}}),
    "nanochat": ("nanochat", {}),
    "nemotron": ("nemotron", {"head_dim": 8}),
    "olmo": ("olmo", {}),
    "olmo, clip_qkv": ("olmo", {"clip_qkv": 1.0}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"sliding_window": WINDOW, "layer_types": TYPES}),
    "olmoe": ("olmoe", EXPERTS),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 16}),
    "phi": ("phi", {}),
    "phi, qk_layernorm": ("phi", {"qk_layernorm": True}),
    "phi3": ("phi3", {"sliding_window": WINDOW}),
    "phimoe": ("phimoe", {**EXPERTS, "sliding_window": WINDOW}),
    "qwen2": ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen2_moe": (
        "qwen2_moe",
        {**EXPERTS, "use_sliding_window": True, "sliding_window": WINDOW, "layer_types": TYPES},
    ),
    "qwen3": (
        "qwen3",
        {"head_dim": 8, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {**EXPERTS, "head_dim": 8, "use_sliding_window": True, "sliding_window": WINDOW, "mlp_only_layers": [0]},
    ),
    "seed_oss": ("seed_oss", {"head_dim": 8}),
    "smollm3": (
        "smollm3",
        {"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": WINDOW, "layer_types": TYPES},
    ),
    "stablelm": ("stablelm", {"qk_layernorm": True, "partial_rotary_factor": 0.5}),
    "stablelm, use_parallel_residual": ("stablelm", {"use_parallel_residual": True, "use_qkv_bias": True}),
    "starcoder2": ("starcoder2", {"sliding_window": WINDOW}),
    "vaultgemma": ("vaultgemma", {**GEMMA, "layer_types": TYPES, "attn_logit_softcapping": 3.0}),
    "xglm": ("xglm", {"d_model": 32, "num_layers": LAYERS, "attention_heads": 4, "ffn_dim": 48}),
}
GENERIC: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3_text, use_bidirectional_attention": (
        "gemma3_text",
        {**GEMMA, "layer_types": TYPES, "use_bidirectional_attention": True},
    ),
    "jetmoe": ("jetmoe", {"num_local_experts": 2, "kv_channels": 8}),
    "mamba": ("mamba", {"state_size": 4}),
    "openai-gpt": ("openai-gpt", GPT),
    "opt, do_layer_norm_before=False": ("opt", {"ffn_dim": 48, "do_layer_norm_before": False}),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3n_text": (
        "gemma3n_text",
        {
            "head_dim": 8,
            "num_kv_shared_layers": 1,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCAB,
            "laurel_rank": 4,
            "layer_types": [*TYPES[:2], TYPES[0]],
        },
    ),
}
CASES = {**EXACT, **GENERIC, **REFUSED}
# TransformerLens 4.3 has no bridge for these, or its bridge fails.
NO_BRIDGE = {
    "cwm",
    "dots1",
    "falcon, new_decoder_architecture",
    "helium",
    "ministral",
    "phi, qk_layernorm",
    "phimoe",
}
# Hugging Face's own forward pass fails in float64.
NO_FLOAT64 = ("xglm",)


@cache
def tiny(case: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a random model with large weights, so that attention is far from uniform; the same at every call."""
    return build(case, dtype)


def build(case: str, dtype: torch.dtype = torch.float32, attention: str = "eager", **changes: Any) -> PreTrainedModel:
    """Return a new random model of a case, with some options of its configuration changed."""
    model_type, options = CASES[case]
    sizes = {} if model_type in OWN_SIZES else dict(COMMON)
    if model_type in OWN_KEYS:
        sizes.pop("num_key_value_heads")
    tokens = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        config = CONFIG_MAPPING[model_type](**{**sizes, **tokens, **options, **changes})
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim >= 2 and "embed" not in name:
                    weight.normal_(0, 0.25)
                else:
                    weight.add_(0.3 * torch.randn_like(weight))
    if dtype == torch.float64 and model._can_set_experts_implementation():
        model.set_experts_implementation("eager")  # the default has no float64
    return model.eval().to(dtype)
