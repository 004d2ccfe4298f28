"""The bias of all positions, kept or computed in few operators, is `Anatomy.bias`, bit by bit."""

from __future__ import annotations

import pytest
import torch

from interp.models.anatomy import Anatomy, anatomy_of
from interp.patching.biases import Biases, whole_bias
from tests.interp.models.architecture_cases import tiny as one_of
from tests.interp.patching.models import tiny


def expected(anatomy: Anatomy, layer: int, n_pos: int) -> torch.Tensor:
    positions = torch.arange(n_pos)
    return anatomy.bias(anatomy.blocks[layer], positions, positions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["alibi", "rotary", "grouped"])
def test_the_whole_bias_is_that_of_all_positions(architecture: str, dtype: torch.dtype):
    anatomy = anatomy_of(tiny(architecture, dtype), test=False)
    for n_pos in (1, 2, 9):
        found = whole_bias(anatomy, anatomy.blocks[0], n_pos)
        assert found.dtype == dtype
        assert torch.equal(found, expected(anatomy, 0, n_pos))
    assert (found[:, 0, 1] < -1e30).all()


def test_a_window_hides_keys_of_long_ago():
    anatomy = anatomy_of(one_of("mistral"), test=False)
    n_pos = 2 + (anatomy.blocks[0].window or 0)
    found = Biases().whole(anatomy, anatomy.blocks[0], n_pos)
    assert torch.equal(found, expected(anatomy, 0, n_pos))
    assert n_pos > 2
    assert (found[:, -1, 0] < -1e30).all()


def test_a_model_that_attends_in_both_directions_hides_nothing():
    anatomy = anatomy_of(tiny("rotary"))
    object.__setattr__(anatomy, "causal", False)
    assert not whole_bias(anatomy, anatomy.blocks[0], 5).any()
