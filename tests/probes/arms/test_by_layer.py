"""Entries by layer: in a deep model they are measured on some of the trials, and as on all of them."""

import pytest
import torch

from interp import load
from probes import keys
from probes.arms import by_layer
from probes.arms.inputs import FEW
from probes.arms.m04_routes import measure_routes
from probes.arms.m05_history import measure_history
from probes.evidence import Evidence
from probes.trials.parity import choose

RUN = load("parity-aligned-alibi", device="cpu")


def trials_of(size: int):
    """Return trials of a trained model, whose margins differ between prompts."""
    return choose(RUN.sample(600, 10, seed=0), 0, size)


def is_by_layer(e: Evidence) -> bool:
    return ", L" in e.name


@pytest.mark.parametrize("measure", [measure_routes, measure_history])
def test_a_deep_model_is_patched_by_layer_on_few_trials(measure, monkeypatch):
    model, trials = RUN.raw, trials_of(48)
    shallow = {e.key: e for e in measure(model, trials)}
    monkeypatch.setattr(by_layer, "FEW_LAYERS", 1)
    deep = {e.key: e for e in measure(model, trials)}
    rows = by_layer._described(trials, model.config.num_hidden_layers)
    few = {e.key: e for e in measure(model, trials.rows(rows))}
    assert list(deep) == list(shallow)
    assert trials.cell[rows].bincount().tolist() == [FEW // 4] * 4
    for key, e in deep.items():
        expected = few[key] if is_by_layer(e) else shallow[key]
        assert e.n == expected.n == (FEW if is_by_layer(e) else 48)
        assert (e.value.value, e.value.low) == pytest.approx((expected.value.value, expected.value.low), abs=1e-5)
        assert (e.control is None) == (expected.control is None)


def test_by_layer_is_not_zero():
    assert max(abs(e.value.value) for e in measure_routes(RUN.raw, trials_of(24)) if is_by_layer(e)) > 0.1


@pytest.mark.parametrize(("layers", "size", "expected"), [(12, 48, 48), (13, 48, FEW), (13, 24, 24)])
def test_rows_by_layer(layers, size, expected):
    trials = trials_of(size)
    rows = by_layer._described(trials, layers)
    assert len(rows) == expected
    few = trials.rows(torch.arange(size) > size // 2)  # cells need not be equally large
    assert len(by_layer._described(few, layers)) == len(few)
    assert len(rows) < size or torch.equal(rows, torch.arange(size))


def test_rows_and_their_full_effect_are_of_the_same_trials(monkeypatch):
    """The full effect is one number per trial; another trial's would make rho another number."""
    monkeypatch.setattr(by_layer, "FEW_LAYERS", 1)
    model, trials = RUN.raw, trials_of(48)
    full = torch.arange(1.0, 49) / 1000
    rows = by_layer._described(trials, 2)
    deep = {e.key: e.value.value for e in measure_history(model, trials, full)}
    few = {e.key: e.value.value for e in measure_history(model, trials.rows(rows), full[rows])}
    layer = keys.HISTORY_V_LAYER.at("L1")
    assert deep[layer] == pytest.approx(few[layer], rel=1e-3)
    assert abs(deep[layer]) > 1e-3
