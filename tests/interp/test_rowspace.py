"""What is said to be unread can be moved without anything seeing it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.models.anatomy import anatomy_of
from interp.rowspace import part_of, read_directions
from tests.interp.patching.models import ARCHITECTURES, tiny


def blind_to(raw: Any, direction: Tensor) -> Any:
    """A copy none of whose projections into heads and MLPs sees the direction behind its norm."""
    blind = copy.deepcopy(raw)
    for block in anatomy_of(blind).blocks:
        for norm in (block.ln1, block.ln2):
            torch.nn.init.ones_(norm.weight)  # type: ignore[arg-type]
        inner = [m for m in block.module.modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 2]
        for module in inner:
            weight: Any = module.weight
            if module is block.out or module is block.mlp_last:
                continue
            seen = weight if isinstance(module, torch.nn.Linear) else weight.T
            with torch.no_grad():
                seen -= torch.outer(seen @ direction, direction)
    return blind


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_direction_that_no_weight_reads_is_left_out(architecture):
    gen = torch.Generator().manual_seed(0)
    direction = torch.randn(16, generator=gen)
    direction = torch.nn.functional.normalize(direction - direction.mean(), dim=0)
    raw = blind_to(tiny(architecture), direction)
    read = read_directions(raw)
    ones = torch.ones(16) / 4
    mean_is_read = "grouped" in architecture  # RMSNorm does not take the mean away
    assert read.shape[1] == (15 if mean_is_read else 14)
    assert torch.allclose(read.T @ read, torch.eye(read.shape[1]), atol=1e-5)
    assert float((read.T @ direction).abs().max()) < 1e-3
    assert (float((read.T @ ones).norm()) > 0.9) == mean_is_read
    assert read_directions(tiny(architecture)).shape[1] == (16 if mean_is_read else 15)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_heads_queries_do_not_see_the_rest(architecture):
    raw = tiny(architecture)
    block = anatomy_of(raw).blocks[1]
    read = read_directions(raw, layers=[1], readers=["q"], heads=[(1, 2)])
    assert read.shape == (16, 4)
    unread = torch.linalg.svd(read, full_matrices=True).U[:, 4:]
    # Behind the norm's scale the map is linear, so what two residuals of one norm differ by is enough to see.
    weight: Any = block.ln1.weight
    rms = architecture == "grouped"
    moved = unread if rms else unread - unread.mean(dim=0)
    inputs = (weight.unsqueeze(1) * moved).T
    q, _, _ = block.split(*(p(inputs) for p in block.qkv))
    q0, _, _ = block.split(*(p(torch.zeros_like(inputs)) for p in block.qkv))
    change = (q - q0).detach().abs().amax(dim=(0, 2))
    assert float(change[2]) < 1e-4
    assert float(change[0]) > 1e-2


def test_answers_are_read_by_their_difference_alone():
    raw = tiny("alibi")
    with_answers = read_directions(raw, layers=[], answers=torch.tensor([31, 32]))
    assert with_answers.shape == (16, 1)
    with pytest.raises(ValueError, match="no reader is left"):
        read_directions(raw, layers=[])


def test_a_part_that_is_read_and_one_that_is_not_make_the_whole():
    read = torch.eye(6)[:, :3]
    basis = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]]), dim=1).T
    inside, outside = part_of(basis, read, inside=True), part_of(basis, read, inside=False)
    assert torch.allclose(inside @ inside.T, torch.diag(torch.tensor([1.0, 1, 0, 0, 0, 0])), atol=1e-6)
    assert torch.allclose(outside @ outside.T, torch.diag(torch.tensor([0.0, 0, 0, 1, 0, 0])), atol=1e-6)
    twice = torch.cat([basis, torch.zeros_like(basis)])
    assert part_of(twice, read, inside=True).shape == (12, 2)
    assert part_of(torch.eye(6)[:, :1], read, inside=False).shape == (6, 0)


def test_mistakes_are_named():
    raw = tiny("alibi")
    with pytest.raises(ValueError, match="readers are q, k, v, mlp"):
        read_directions(raw, readers=["o"])
    with pytest.raises(ValueError, match="layers are 0 to 2"):
        read_directions(raw, layers=[3])
    with pytest.raises(ValueError, match="heads 0 to 3"):
        read_directions(raw, heads=[(0, 4)])
    with pytest.raises(ValueError, match=r"heads \[\(0, 3\)\] are not in layers \[1\]"):
        read_directions(raw, layers=[1], heads=[(0, 3), (1, 2)])
