"""The parts of norms, against the norms themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interp.models.anatomy import anatomy_of
from interp.models.architectures.norms import norm_parts
from tests.interp.models.architecture_cases import EXACT, tiny


@pytest.mark.parametrize("case", EXACT)
def test_the_parts_give_the_norms_of_every_architecture(case):
    anatomy = anatomy_of(tiny(case))
    resid = 3 * torch.randn(5, anatomy.d_model, generator=torch.Generator().manual_seed(0)) + 1
    for norm in (anatomy.blocks[1].ln1, anatomy.blocks[1].ln2, anatomy.final_norm):
        parts = norm_parts(norm, anatomy.d_model, anatomy.dtype, anatomy.device)
        expected = norm(resid).detach().double()
        assert (parts.apply(resid.double()) - expected).abs().max() <= 1e-5 * max(1, float(expected.abs().max()))


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("width", [15, 32])
def test_the_parts_are_those_that_the_norm_was_made_of(epsilon, width):
    layer, rms = nn.LayerNorm(width, eps=epsilon), nn.RMSNorm(width, eps=epsilon)
    for norm in (layer, rms):
        nn.init.normal_(norm.weight)
    nn.init.normal_(layer.bias)
    for norm, centres in ((layer, True), (rms, False)):
        parts = norm_parts(norm, width, torch.float32, torch.device("cpu"))
        assert parts.centres == centres
        assert parts.epsilon == pytest.approx(epsilon, rel=1e-2)
        assert torch.allclose(parts.gain, norm.weight.detach().double(), atol=1e-5)
    assert torch.allclose(
        norm_parts(layer, width, torch.float32, torch.device("cpu")).shift, layer.bias.double(), atol=1e-5
    )


def test_a_gain_is_exactly_the_weight_or_one_plus_it():
    layer = nn.LayerNorm(16)
    nn.init.normal_(layer.weight)
    assert torch.equal(norm_parts(layer, 16, torch.float32, torch.device("cpu")).gain, layer.weight.detach().double())
    anatomy = anatomy_of(tiny("gemma"))
    gemma: nn.Module = anatomy.final_norm
    weight = gemma.weight.detach().double()  # type: ignore[operator, union-attr]
    assert torch.equal(norm_parts(gemma, anatomy.d_model, anatomy.dtype, anatomy.device).gain, 1 + weight)


def test_what_is_no_norm_is_refused():
    with pytest.raises(ValueError, match="Tanh is no LayerNorm"):
        norm_parts(nn.Tanh(), 8, torch.float32, torch.device("cpu"))
