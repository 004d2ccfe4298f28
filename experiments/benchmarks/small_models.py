"""Random models for benchmarks that need no trained weights: of the families, and small ones of five architectures."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config

from interp.models import ModelConfig, build_model
from interp.tasks import default_vocabulary

VOCAB = 64
TYPES = ("gpt2", "gpt_neox", "bloom", "llama", "qwen2")


def family_model(family: str, n_layers: int, d_model: int, n_heads: int, vocabulary: int = 0) -> Any:
    """Return a random model of a family in evaluation mode, on a GPU where there is one.

    `vocabulary` is its number of tokens; 0 for that of the tasks.
    """
    config = ModelConfig(family, n_layers, d_model, n_heads)
    model: Any = build_model(config, vocabulary or len(default_vocabulary().ids), seed=0)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def small_model(model_type: str, n_layers: int, d_model: int, n_heads: int) -> Any:
    """Return a random model in evaluation mode, with weights so large that every site matters.

    GPT-NeoX has blocks one after the other; Qwen2 has two query heads per key-value head.
    """
    special: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    short: dict[str, Any] = {"n_embd": d_model, "n_layer": n_layers, "n_head": n_heads}
    long: dict[str, Any] = {
        "hidden_size": d_model,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "intermediate_size": 4 * d_model,
    }
    match model_type:
        case "gpt2":
            config = GPT2Config(**special, **short)
        case "gpt_neox":
            config = GPTNeoXConfig(**special, **long, use_parallel_residual=False)
        case "bloom":
            config = BloomConfig(**special, hidden_size=d_model, n_layer=n_layers, n_head=n_heads)
        case "llama":
            config = LlamaConfig(**special, **long)
        case "qwen2":
            config = Qwen2Config(**special, **long, num_key_value_heads=n_heads // 2)
        case _:
            raise ValueError(f"unknown model type {model_type!r}; types are {', '.join(TYPES)}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(0, 0.15)
    return model.eval()
