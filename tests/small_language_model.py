"""A small random GPT-2 with a byte-level BPE tokenizer, for tests on English text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

SENTENCES = (
    "When Mary and John went to the store, John gave a drink to",
    "When Mary and John went to the store, Mary gave a drink to",
    "When Alice and Robert went to the market, Robert handed a book to",
    "The capital of France is Paris and the capital of Italy is Rome",
)


def trained_byte_level(corpus: list[str], vocab_size: int, special_tokens: list[str]) -> Tokenizer:
    """Return byte-level BPE trained on a corpus; words that occur at least twice become one token, if there is room."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def word_tokenizer(texts: tuple[str, ...] = SENTENCES, vocab_size: int = 600) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer in which every word of `texts` is one token with its leading space."""
    tokenizer = trained_byte_level([text for text in texts for _ in range(3)], vocab_size, ["<|endoftext|>"])
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def small_gpt2(tokenizer: PreTrainedTokenizerFast, n_layers: int = 3, seed: int = 0) -> GPT2LMHeadModel:
    """Return a random GPT-2 of width 32 whose attention is not uniform."""
    torch.manual_seed(seed)
    shape = {"n_embd": 32, "n_layer": n_layers, "n_head": 4, "n_positions": 128}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    options: dict[str, Any] = {**shape, **ids, "attn_implementation": "eager"}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), initializer_range=0.2, **options)).eval()


def save_small_gpt2(folder: Path) -> Path:
    """Write the model and its tokenizer to a folder; return it."""
    tokenizer = word_tokenizer()
    small_gpt2(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
