"""Attention of stacked rows: the fused kernel, the shared prefix and whole keys give the same; and what they check."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interp.models.anatomy import Anatomy, anatomy_of
from interp.patching import engine, logit_diff, patch, plan, stacks
from interp.patching.row_attention import attend_rows
from interp.tasks import counterfactual
from tests.interp.patching.models import prompts, tiny

N_POS, HEADS, D_HEAD, CELLS, BATCH = 9, 4, 4, 3, 2


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute attention in steps, as on a GPU."""
    monkeypatch.setattr(Anatomy, "is_fused", lambda *_: False)


def whole_attention(anatomy: Anatomy, before, q, k, v, bias, start: int) -> torch.Tensor:
    """z of each row by itself, from all of its keys and values."""
    block, rows = anatomy.blocks[0], []
    for cell in range(len(q)):
        keys, values = (
            torch.cat([x[:, :, :start].transpose(1, 2), own[cell]], dim=1)
            for x, own in zip(before, (k, v), strict=True)
        )
        scores = torch.einsum("bdhe,bshe->bhds", q[cell], keys) * block.scale + bias
        rows.append(torch.einsum("bhds,bshe->bdhe", scores.softmax(-1), values))
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("n_dest", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 5])
def test_rows_attend_to_the_shared_prefix_and_to_their_own_keys(start: int, n_dest: int, monkeypatch):
    anatomy, gen = anatomy_of(tiny("alibi")), torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=gen)

    before = random(BATCH, HEADS, N_POS, D_HEAD), random(BATCH, HEADS, N_POS, D_HEAD)
    k, v = (random(CELLS, BATCH, N_POS - start, HEADS, D_HEAD) for _ in range(2))
    q, bias = random(CELLS, BATCH, n_dest, HEADS, D_HEAD), random(HEADS, n_dest, N_POS)
    fused, kernel = [], nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *args, **kw: fused.append(1) or kernel(*args, **kw)
    )
    expected = whole_attention(anatomy, before, q, k, v, bias, start)
    found = attend_rows(anatomy, anatomy.blocks[0], before, q, k, v, bias, None, start)
    assert len(fused) == (start == 0 or 2 * n_dest >= D_HEAD)  # copied keys pay where there are many queries
    monkeypatch.setattr(Anatomy, "is_fused", lambda *_: False)
    in_steps = attend_rows(anatomy, anatomy.blocks[0], before, q, k, v, bias, None, start)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(in_steps, expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["alibi", "grouped", "absolute"])
@pytest.mark.parametrize("site", ["resid_pre", "v"])
def test_a_sweep_in_steps_gives_the_fused_one(architecture: str, site: str, request):
    clean = prompts(2)
    given = tiny(architecture), clean, counterfactual.flip_input(clean, 2), site, logit_diff(clean, 3)
    fused = patch(*given)
    request.getfixturevalue("unfused")
    assert torch.allclose(patch(*given).values, fused.values, atol=1e-5)


def test_both_controls_are_rows_of_the_first_stack(monkeypatch):
    clean = prompts(2)
    sweep = plan(tiny("alibi"), clean, counterfactual.redraw(clean, seed=5), "resid_pre", logit_diff(clean, 3))
    passes: list[int] = []

    def counted(groups, start):
        passes.append(len(groups))
        return engine.run_together(groups, start)

    monkeypatch.setattr(stacks, "run_together", counted)
    monkeypatch.setattr("interp.patching.checking.run_together", lambda *_: pytest.fail("a pass for the controls"))
    effect = sweep.run()
    assert passes == [3]  # the cells, everything, and the base into itself
    monkeypatch.undo()
    apart = plan(tiny("alibi"), clean, counterfactual.redraw(clean, seed=5), "resid_pre", logit_diff(clean, 3))
    values = apart.blank()
    for unit in apart.units:
        apart.put(values, unit, apart.compute(unit))
    assert torch.allclose(apart.finish(values).values, effect.values, atol=1e-5)


@pytest.mark.parametrize("control", [0, 1])
def test_a_control_that_is_off_is_an_error(control: int, monkeypatch):
    clean = prompts(2)
    sweep = plan(tiny("alibi"), clean, counterfactual.redraw(clean, seed=5), "resid_pre", logit_diff(clean, 3))

    def off(groups, start):
        values = engine.run_together(groups, start)
        values[len(values) - 2 + control] += 1
        return values

    monkeypatch.setattr(stacks, "run_together", off)
    with pytest.raises(RuntimeError, match=f"the {('positive', 'negative')[control]} control check failed"):
        sweep.run()
