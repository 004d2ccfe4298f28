"""Low-rank adapters (LoRA, 2106.09685) in place of full fine-tuning: the pretrained weights stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# The update of a weight matrix is ALPHA / rank * B A, so a rank can change without another learning rate (section 4.1).
ALPHA = 16


def add_adapters(model: PreTrainedModel, rank: int, seed: int) -> dict[str, Any]:
    """Freeze a model and add an adapter to each linear map of its blocks, in place; return peft's configuration.

    The adapters change nothing at first: B is zero, and A is random from `seed`. Embeddings, unembedding and norms get
    none. Raises `ValueError` where the package `peft` is missing (extra `pretrained`).
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("LoRA needs the peft package: pip install 'mnemoscope[pretrained]'") from error
    config = LoraConfig(
        r=rank,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's transposed weights
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    settings = {**config.to_dict(), "base_model_name_or_path": None}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapters' weights in float16, by the names that peft gives them in files."""
    return {
        f"base_model.model.{name.replace('.default.', '.')}": weight.detach().cpu().half().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


@torch.no_grad()
def round_adapters(model: nn.Module) -> None:
    """Round the adapters in place to what is stored of them, so that the run's accuracy is the stored run's."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.copy_(weight.half())
