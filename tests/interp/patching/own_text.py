"""A small random GPT-2 with a tokenizer of whole words, and prompts of text, shared by tests."""

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from interp.models import Run, load

CLEAN = "When Mary and John went to the store , John gave a drink to"
CORRUPTED = "When Mary and John went to the store , Mary gave a drink to"


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<pad>", *dict.fromkeys((CLEAN + " him her").split())]
    fast = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="<unk>", pad_token="<pad>")


@cache
def model() -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.3}
        sizes |= {"vocab_size": len(tokenizer()), "attn_implementation": "eager"}
        return GPT2LMHeadModel(GPT2Config(**sizes)).eval()


@cache
def run() -> Run:
    return load(model(), tokenizer=tokenizer())
