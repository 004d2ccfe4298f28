"""The tanh form of GELU without gradients is torch's, up to rounding; with gradients it is torch's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.architectures import checks, parts
from interp.models.architectures.parts import tanh_gelu
from tests.interp.patching.models import tiny


def gelu(x: Tensor) -> Tensor:
    return tanh_gelu(tiny("alibi"), F.gelu)(x)


@pytest.mark.parametrize("shape", [(3, 5), (2, parts.PIECE // 2 + 7), (3, parts.PIECE)], ids=["few", "pieces", "many"])
def test_gelu_without_gradients_is_exact_up_to_rounding(shape: tuple[int, ...]):
    x = 4 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    x.view(-1)[:4] = torch.tensor([0.0, -1e4, 1e4, -1e30])
    before = x.clone()
    with torch.no_grad():
        found, turned = gelu(x), gelu(x.T)
    assert torch.equal(x, before)
    torch.testing.assert_close(found.double(), F.gelu(x.double(), approximate="tanh"), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(turned, found.T, rtol=1e-6, atol=1e-6)
    assert (found - F.gelu(x)).abs().max() > 1e-5  # the other form is told apart


def test_gelu_with_gradients_is_torchs():
    x = torch.randn(3, parts.PIECE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gelu(x), F.gelu(x, approximate="tanh"))
    with torch.no_grad():
        assert not torch.equal(gelu(x), F.gelu(x, approximate="tanh"))


def test_double_precision_keeps_the_models_own():
    own = tanh_gelu(tiny("alibi", torch.float64), F.gelu)
    assert own is F.gelu


def test_the_device_and_the_dtype_are_those_of_the_first_parameter():
    model: Any = copy.deepcopy(tiny("alibi"))
    first = next(model.parameters())
    assert checks.first_parameter(model) is first
    assert (checks.device_of(model), checks.dtype_of(model)) == (model.device, model.dtype)
    body, meta = model.transformer, first.detach().to("meta", torch.bfloat16)
    body.word_embeddings.weight = nn.Parameter(meta)
    assert (checks.device_of(model), checks.dtype_of(model)) == (torch.device("meta"), torch.bfloat16)
    body.word_embeddings.weight = nn.Parameter(meta.to(torch.int8), requires_grad=False)
    assert checks.dtype_of(model) == model.dtype == torch.float32  # of the first that is floating
    assert checks.first_parameter(nn.Identity()) is None
