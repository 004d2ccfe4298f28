"""Tiny models of every supported architecture, and prompts to patch, shared by the tests of patching."""

from functools import cache

import torch
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from interp.models import ModelConfig, build_model
from interp.tasks import Batch, default_vocabulary, sample

VOCAB = len(default_vocabulary().ids)
BRIDGED = ("alibi", "rotary", "none", "absolute", "parallel", "grouped")
ARCHITECTURES = (*BRIDGED, "alibi_sink")
SMALL = {"n_layers": 3, "d_model": 16, "n_heads": 4, "n_ctx": 64, "initializer_range": 0.3}


@cache
def tiny(architecture: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model: the families, NeoX with parallel blocks, Llama with grouped key-value heads."""
    common = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "initializer_range": 0.3,
        "attn_implementation": "eager",
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        match architecture:
            case "parallel":
                model = GPTNeoXForCausalLM(GPTNeoXConfig(**common))
            case "grouped":
                model = LlamaForCausalLM(LlamaConfig(**common, num_key_value_heads=2))
            case _:
                model = build_model(ModelConfig(architecture, **SMALL), VOCAB, seed=0)
                for name, weight in model.named_parameters():
                    if name.endswith("sink_key"):  # zero at the start: all heads would leak alike
                        nn.init.normal_(weight)
    model.to(dtype)  # type: ignore[arg-type]
    return model.eval()


def prompts(size: int = 3, length: int = 3, seed: int = 0) -> Batch:
    """Aligned parity prompts."""
    return sample("parity-aligned", size, length, seed)
