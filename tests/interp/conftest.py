"""Tiny random runs, saved once: 2 layers, 2 heads, 16 dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from interp.models import FAMILIES, ModelConfig, build_model, save_run
from interp.tasks import default_tokenizer, default_vocabulary


@pytest.fixture(scope="session")
def saved_families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved random run of each family, by family name. Read only: copy to edit."""
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        config = ModelConfig(family, n_layers=2, d_model=16, n_heads=2)
        model = build_model(config, len(default_vocabulary().ids), seed=0)
        record = {"format": "parity-aligned", "vocabulary": default_vocabulary().to_json()}
        save_run(folder / family, model, default_tokenizer(), record)
    return folder


@pytest.fixture(scope="session")
def saved_foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of other origin, without run.json: `llama-default`, `llama-foreign`, `opt-default`, ..."""
    folder = tmp_path_factory.mktemp("foreign")
    for name, tokenizer in (("default", default_tokenizer()), ("foreign", foreign_tokenizer())):
        sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        opt = OPTConfig(ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=40, **sizes)
        for kind, model in (
            ("llama", LlamaForCausalLM(LlamaConfig(intermediate_size=32, **sizes))),
            ("opt", OPTForCausalLM(opt)),
        ):
            model.save_pretrained(folder / f"{kind}-{name}")
            tokenizer.save_pretrained(folder / f"{kind}-{name}")
    return folder


def foreign_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer without the symbols of the tasks: letters, punctuation, words with leading-space marks."""
    words = [f"Ġ{a}{b}n" for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u")]
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *"!?.,:;()", *"abcdefgh", "0", "1", *words]
    model = WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>")
    fast = Tokenizer(model)
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=fast, clean_up_tokenization_spaces=False, **names)
