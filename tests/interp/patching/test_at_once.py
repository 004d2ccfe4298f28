"""Small sweeps of resid_pre in one pass: the same numbers as the engine and the literal loop, and the same checks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from interp.models.anatomy import anatomy_of
from interp.models.architectures.block import Block
from interp.patching import Joint, PatchEffect, at_once, checking, chunks, logit_diff, patch, plan, probability
from interp.patching.cost import engine_flops, lower_bound_flops
from interp.patching.reference import literal, record
from interp.patching.sweep import Sweep
from interp.support.finite import NotFinite
from interp.tasks import Batch, Prompts, counterfactual
from tests.interp.patching.models import ARCHITECTURES, prompts, tiny

# Arguments of `plan` that choose patches, all of which are few enough for one pass.
CHOICES = {
    "the last layers": {"layers": [1, 2], "positions": [*range(13)]},
    "any order": {"layers": [2, 0], "positions": [9, 3, 13, 4]},
    "the last layer": {"layers": 2},
    "joint": {"positions": [Joint(0, 4, 6), 3, Joint(*range(14))]},
    "noise": {"positions": [3, 11], "direction": "noise"},
}


def pair(n: int = 2) -> tuple[Batch, Batch]:
    clean = prompts(n)
    return clean, counterfactual.redraw(clean, seed=5)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_pass_gives_what_the_engine_and_the_literal_loop_give(architecture: str, choice: str, monkeypatch):
    clean, corrupted = pair()
    model, options, metric = tiny(architecture), CHOICES[choice], logit_diff(clean, 3)
    at, by_units = (plan(model, clean, corrupted, "resid_pre", metric, **options) for _ in range(2))
    assert at._at_once is not None
    effect = at.run()
    monkeypatch.setattr(Sweep, "_at_once", None)
    expected = by_units.run()
    assert by_units.alive == at.alive
    for found, other in ((effect.values, expected.values), (effect.base, expected.base)):
        assert torch.allclose(found, other, rtol=0, atol=1e-5)
    anatomy = anatomy_of(model)
    kept = {layer: record(anatomy, at.source.tokens, "resid_pre", layer) for layer in range(3)}
    rows = torch.arange(2)
    for cell, values in zip(at.cells, effect.values.flatten(0, -2), strict=True):
        exact = literal(anatomy, at.base.tokens, "resid_pre", cell, kept[cell.layer], at.metric, rows)
        assert torch.allclose(values, exact, rtol=0, atol=1e-5)
    assert effect.change.abs().max() > 1e-3


def test_units_computed_one_by_one_give_the_same():
    sweep, other = (plan(tiny("alibi"), *pair(), "resid_pre", logit_diff(pair()[0], 3), 2) for _ in range(2))
    assert len(sweep.units) == 1
    values = sweep.blank()
    for unit in sweep.units:
        sweep.put(values, unit, sweep.compute(unit))
    effect, whole = sweep.finish(values), other.run()
    assert torch.equal(effect.values, whole.values)
    assert effect.cost is not None
    assert whole.cost is not None
    assert effect.cost.chunk_rows == 2 * sum(sweep.alive)
    assert effect.cost.flops == whole.cost.flops


def test_each_block_runs_once_and_the_raw_model_once(monkeypatch):
    calls: list[str] = []
    mlp_out = Block.mlp_out
    monkeypatch.setattr(Block, "mlp_out", lambda self, resid: calls.append("block") or mlp_out(self, resid))
    model = tiny("alibi")
    handle = model.register_forward_pre_hook(lambda *_: calls.append("raw"))
    try:
        patch(model, *pair(), "resid_pre", logit_diff(pair()[0], 3), layers=[1, 2], positions=[*range(13)])
    finally:
        handle.remove()
    assert calls == ["block"] * 3 + ["raw"]


def test_a_token_that_is_embedded_alike_changes_nothing_in_layer_0(monkeypatch):
    right, gen = at_once.after_attention, torch.Generator().manual_seed(0)  # rows round differently
    noise = 1e-7 * torch.randn(20, 1, 1, generator=gen)
    monkeypatch.setattr(at_once, "after_attention", lambda *args: (x := right(*args)) + noise[: len(x)])
    model, clean = copy.deepcopy(tiny("alibi")), prompts(1)
    tokens = clean.tokens.clone()
    tokens[0, 2], tokens[0, 7] = 40, 41
    embedding: Any = model.get_input_embeddings().weight
    with torch.no_grad():
        embedding[40] = embedding[tokens[0, 7]] = 0  # no metric reads these tokens
        embedding[40] = embedding[clean.tokens[0, 2]]
    base = Prompts(tokens)
    sweep = plan(model, Prompts(clean.tokens), base, "resid_pre", logit_diff(3, 5), layers=[0, 1], positions=[2, 7])
    effect = sweep.run()
    assert sweep._at_once is not None
    assert sweep.alive == (False, True, False, True)  # position 2 in both layers: nothing before position 7 differs
    assert (effect.values.flatten(0, -2)[[0, 2]] == effect.base).all()
    assert effect.change.abs().max() > 1e-4
    assert effect.cost is not None
    assert effect.cost.skipped == 2


def rearranged(order: Callable[[int], list[int]]) -> Callable:
    """`_places` with the joining rows in another order: everything, the negative control, then the cells."""
    right = at_once._places
    return lambda joins, *sizes: right(joins, *sizes)[order(len(joins))]


AFTER = at_once.after_attention
BREAKS = {
    "positive control": ("_places", rearranged(lambda n: [1, *range(1, n)])),  # nothing is patched
    "negative control": ("_places", rearranged(lambda n: [0, 0, *range(2, n)])),  # everything is
    "spot": ("_places", rearranged(lambda n: [0, 1, *range(n - 1, 1, -1)])),
    "differs from the raw model": ("after_attention", lambda *args: AFTER(*args) * 1.01),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_wrong_pass_is_caught_as_it_runs(what: str, monkeypatch):
    monkeypatch.setattr(at_once, *BREAKS[what])
    with pytest.raises(RuntimeError, match=what):
        patch(tiny("alibi"), *pair(), "resid_pre", logit_diff(pair()[0], 3), layers=[1, 2], spot_cells=60)


@pytest.mark.parametrize("last", [0, 1])
def test_a_check_that_gives_nan_fails(last: int, monkeypatch):
    """`max` of numbers and a NaN depends on their order."""
    right = checking.literal_beside

    def with_nan(*args: Any) -> tuple:
        values, both = right(*args)
        values[0, last] = torch.nan
        return values, both

    monkeypatch.setattr(checking, "literal_beside", with_nan)
    with pytest.raises(RuntimeError, match="spot check failed: it differs by nan"):
        patch(tiny("alibi"), *pair(), "resid_pre", logit_diff(pair()[0], 3), layers=2)


def test_nan_names_the_run_and_the_prompt():
    clean, corrupted = pair(3)
    others = {int(t) for run in (clean, corrupted) for t in run.tokens.flatten()}
    model: Any = copy.deepcopy(tiny("alibi"))
    fresh = next(t for t in range(model.config.vocab_size) if t not in others)
    with torch.no_grad():
        model.get_input_embeddings().weight[fresh] = torch.nan
    for tokens, what in ((corrupted, "base"), (clean, "source")):
        ids = tokens.tokens.clone()
        ids[1, 3] = fresh
        one, other = (Prompts(ids) if run is tokens else Prompts(run.tokens) for run in (clean, corrupted))
        with pytest.raises(ValueError, match=f"of the {what} run is NaN or infinite, first in prompt 1"):
            patch(model, one, other, "resid_pre", logit_diff(3, 5), layers=2)


def test_a_logit_of_the_raw_model_that_is_nan_is_an_error_where_the_metric_does_not_read_it():
    model: Any = copy.deepcopy(tiny("alibi"))
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.lm_head.weight[7] = torch.nan
    with pytest.raises(NotFinite, match="a logit of the model is NaN or infinite, first in prompt 0"):
        patch(model, *pair(), "resid_pre", logit_diff(3, 5), layers=2)


def _scaled(model: Any) -> None:
    model.transformer.h[1].mlp.dense_h_to_4h.weight.mul_(1.5)


def _assigned(model: Any) -> None:
    weight = model.transformer.h[0].self_attention.query_key_value.weight
    weight.data = weight.data.flip(0)


def _replaced(model: Any) -> None:
    model.transformer.h[2].mlp.dense_4h_to_h = copy.deepcopy(model.transformer.h[0].mlp.dense_4h_to_h)


def _shortened(model: Any) -> None:
    model.transformer.h = model.transformer.h[1:]


@pytest.mark.parametrize("change", [_scaled, _assigned, _replaced, _shortened, lambda model: model.double()])
@torch.no_grad()
def test_a_model_that_changes_between_two_sweeps_gives_what_a_fresh_copy_gives(change: Callable[[Any], None]):
    """Nothing that is kept of the first sweep may hold weights, modules or their dtype."""
    model, metric = copy.deepcopy(tiny("alibi")), logit_diff(pair()[0], 3)
    before = patch(model, *pair(), "resid_pre", metric, layers=1)
    change(model)
    after, fresh = (patch(m, *pair(), "resid_pre", metric, layers=1) for m in (model, copy.deepcopy(model)))
    assert torch.equal(after.values, fresh.values)
    assert torch.equal(after.source, fresh.source)
    assert not torch.equal(after.values, before.values)


@pytest.mark.parametrize(
    ("change", "used"),
    [
        ({}, True),
        ({"site": "resid_post"}, False),
        ({"matmul": "bfloat16"}, False),
        ({"memory": 2**18}, False),
        ({"layers": None}, False),  # more patches than are stacked on a CPU
    ],
)
def test_which_sweeps_take_one_pass(change: dict, used: bool):
    clean, corrupted = pair()
    given = {"site": "resid_pre", "metric": logit_diff(clean, 3), "layers": 2} | change
    assert (plan(tiny("alibi"), clean, corrupted, **given)._at_once is not None) is used


def test_a_sweep_whose_computation_takes_longer_than_its_operators_is_run_in_units(monkeypatch):
    given = tiny("alibi"), *pair(), "resid_pre", logit_diff(pair()[0], 3), None, Joint(*range(14))
    sweep = plan(*given)
    whole = 2 * engine_flops(sweep._sizes, sweep.cells, "resid_pre", 0)
    for starting, used in ((1.01, True), (0.99, False)):
        monkeypatch.setitem(chunks.STARTING, "cpu", starting * whole / at_once.SMALL / 3)
        assert (plan(*given)._at_once is not None) is used


def test_patches_that_start_late_do_not_compute_what_is_before_them(monkeypatch):
    clean = prompts(1, length=15)
    tokens = clean.tokens.clone()
    tokens[0, -8] += 1
    given = tiny("alibi"), Prompts(clean.tokens), Prompts(tokens), "resid_pre", logit_diff(3, 5)
    sweep = plan(*given)
    cells = [cell for cell, alive in zip(sweep.cells, sweep.alive, strict=True) if alive]
    whole = engine_flops(sweep._sizes, cells, "resid_pre", 0)
    assert lower_bound_flops(sweep._sizes, cells, "resid_pre") < 0.15 * whole
    for starting, used in ((1.01, True), (0.82, False)):  # of 8 passes through 3 layers; .8 would do for all of it
        monkeypatch.setitem(chunks.STARTING, "cpu", starting * whole / 8 / 3)
        assert (plan(*given)._at_once is not None) is used


def test_metrics_of_the_whole_vocabulary_and_of_several_positions():
    clean, corrupted = pair()
    for metric in (probability(clean, 3), logit_diff(clean)):
        sweep = plan(tiny("rotary"), clean, corrupted, "resid_pre", metric, layers=1)
        assert sweep._at_once is not None
        effect: PatchEffect = sweep.run(spot_cells=14)
        assert effect.checks is not None
        assert effect.checks.spot_cells == 14
