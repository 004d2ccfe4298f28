"""Measured rounding of random models stays below the stated bound, and is not far below it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from interp.support.rounding import TF32, tolerance

SIZES = [(2, 64), (4, 128), (6, 256), (12, 384), (12, 768)]


def random_model(kind: str, depth: int, width: int) -> PreTrainedModel:
    common: dict[str, Any] = {"vocab_size": 100, "initializer_range": 0.08, "attn_implementation": "eager"}
    heads = max(2, width // 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "bloom":
            return BloomForCausalLM(BloomConfig(hidden_size=width, n_layer=depth, n_head=heads, **common)).eval()
        config = GPT2Config(n_embd=width, n_layer=depth, n_head=heads, n_positions=64, **common)
        return GPT2LMHeadModel(config).eval()


@torch.no_grad()
def margins(model: PreTrainedModel) -> torch.Tensor:
    tokens = torch.randint(100, (2, 40), generator=torch.Generator().manual_seed(0))
    logits = model(tokens).logits.double()
    return logits[..., 0] - logits[..., 1]


@pytest.mark.parametrize("kind", ["gpt2", "bloom"])
@pytest.mark.parametrize(("depth", "width"), SIZES)
def test_measured_differences_from_float64_are_below_the_bound(kind: str, depth: int, width: int):
    model = random_model(kind, depth, width)
    measured = {torch.float32: margins(model)}
    if width < 384:  # half precision is slow on a CPU
        measured |= {d: margins(copy.deepcopy(model).to(d)) for d in (torch.float16, torch.bfloat16)}  # pyright: ignore
    exact = margins(model.double())
    for dtype, values in measured.items():
        difference = float((values - exact).abs().max() / exact.abs().max())
        assert tolerance(dtype, depth, width) / 1000 < difference < tolerance(dtype, depth, width) / 4, dtype


def test_the_bound_grows_with_depth_and_width_and_never_shrinks_below_its_anchor():
    f32 = torch.float32
    assert tolerance(f32, 4, 128) == tolerance(f32, 1, 1) == 1e-5
    assert tolerance(f32, 16, 128) == tolerance(f32, 4, 512) == 2e-5
    assert tolerance(torch.float64, 4, 128) == 1e-9
    assert tolerance(f32, 12, 768) == pytest.approx(1e-5 * math.sqrt(18))
    assert tolerance(torch.bfloat16, 4, 128) == 10 * torch.finfo(torch.bfloat16).eps
    assert tolerance(torch.float16, 4, 128) == 10 * torch.finfo(torch.float16).eps


def test_tf32_products_are_allowed_their_own_epsilon(monkeypatch: pytest.MonkeyPatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert tolerance(torch.float32, 4, 128, cuda) == 1e-5
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert tolerance(torch.float32, 4, 128, cuda) == 1e-5 * TF32
    assert tolerance(torch.float32, 4, 128, cpu) == 1e-5
    assert tolerance(torch.float64, 4, 128, cuda) == 1e-9


@pytest.mark.parametrize(
    ("dtype", "depth", "width", "message"),
    [
        (torch.int8, 4, 128, "no tolerance is stated for int8; data types are float64, float32"),
        (torch.float32, 0, 128, "must be at least 1; got 0 and 128"),
    ],
)
def test_what_has_no_bound_is_refused(dtype: torch.dtype, depth: int, width: int, message: str):
    with pytest.raises(ValueError, match=message):
        tolerance(dtype, depth, width)
