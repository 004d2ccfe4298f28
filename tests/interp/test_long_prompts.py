"""Prompts that are longer than a model was made for are read with a warning, and a task's own lengths without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from experiments import load
from interp import capture


def llama(positions: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=20, max_position_embeddings=positions, **sizes)).eval()


def test_more_tokens_than_the_model_is_for_are_warned_of() -> None:
    tokens = torch.randint(0, 20, (2, 17), generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="17 tokens, more than the 16 that the model is for"):
        capture(llama(16), tokens, resid_pre=True)
    capture(llama(17), tokens, resid_pre=True)


def test_lengths_of_a_task_are_tested_without_a_warning() -> None:
    run = load("parity-aligned-rotary-seed2", device="cpu")
    run.raw.config.max_position_embeddings = 8
    capture(run, run.sample(1, 6, 0), resid_pre=True)
