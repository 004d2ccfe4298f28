"""Coarser products change values by less than they state, and only where they were asked for."""

import pytest
import torch

from interp.models import ModelConfig, build_model
from interp.patching import logit_diff, patch, plan
from interp.patching.metric import Metric
from interp.patching.sweep import Sweep
from interp.tasks import counterfactual, default_vocabulary, sample

SITES = ("resid_pre", "z", "k", "mlp_out")


def inputs(family: str = "alibi"):
    config = ModelConfig(family, n_layers=2, d_model=32, n_heads=4, initializer_range=0.2)
    model = build_model(config, len(default_vocabulary().ids), seed=0).eval()
    clean = sample("parity-aligned", 2, 4, seed=0)
    return model, clean, counterfactual.redraw(clean, seed=1), logit_diff(clean, step=4)


@pytest.mark.parametrize("site", SITES)
def test_bfloat16_states_the_error_that_it_makes(site: str, monkeypatch: pytest.MonkeyPatch):
    model, clean, corrupted, metric = inputs("rotary" if site == "k" else "alibi")
    monkeypatch.setattr(Sweep, "_at_once", None)  # coarse products are no part of that pass
    exact = patch(model, clean, corrupted, site, metric)
    coarse = patch(model, clean, corrupted, site, metric, matmul="bfloat16", spot_cells=10**6)
    error = (coarse.values - exact.values).abs()
    assert 0 < error.max() < 0.05 * exact.values.abs().max()
    assert coarse.details["matmul"] == "bfloat16"
    assert coarse.details["measured error"] == pytest.approx(float(error.max()), rel=0.02)
    assert coarse.details["of cells"] == exact.values[..., 0].numel()
    assert torch.equal(coarse.base, exact.base)
    assert coarse.checks
    assert exact.checks
    assert coarse.checks.positive <= exact.checks.tolerance  # the controls are exact
    assert exact.details == {}


def test_the_error_is_measured_on_sixteen_cells_by_default():
    model, clean, corrupted, metric = inputs()
    effect = patch(model, clean, corrupted, "resid_pre", metric, matmul="bfloat16")
    assert effect.details["of cells"] == 16


def test_an_error_beyond_rounding_is_refused(monkeypatch: pytest.MonkeyPatch):
    model, clean, corrupted, metric = inputs()
    sweep = plan(model, clean, corrupted, "resid_pre", metric, matmul="bfloat16")
    monkeypatch.setattr("interp.patching.checking.coarse_tolerance", lambda *_: 1e-6)
    with pytest.raises(RuntimeError, match="the spot check failed"):
        sweep.run()


@pytest.mark.parametrize(
    ("matmul", "words"), [("tf32", "needs a CUDA device; the model is on cpu"), ("fp8", "'exact', 'tf32', 'bfloat16'")]
)
def test_what_a_device_does_not_have_is_refused(matmul: str, words: str):
    model, clean, corrupted, metric = inputs()
    with pytest.raises(ValueError, match=words):
        patch(model, clean, corrupted, "resid_pre", metric, matmul=matmul)  # type: ignore[arg-type]


def test_a_model_in_another_type_is_refused():
    model, clean, corrupted, metric = inputs()
    with pytest.raises(ValueError, match=r"for models in float32; this one is in torch\.float64"):
        patch(model.double(), clean, corrupted, "resid_pre", metric, matmul="bfloat16")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_differences_of_logits_in_half_precision_are_taken_in_float32(dtype):
    metric = Metric("difference", torch.tensor([0]), lambda logits, rows: logits[..., 0, 0] - logits[..., 0, 1])
    logits = torch.tensor([[[257.0, 0.5]]]).to(dtype)  # half precision rounds 255.5 and 256.5
    assert float(metric.measure(logits, torch.tensor([0]))) == float(logits[0, 0, 0]) - 0.5
    assert float(metric.compute(logits, torch.tensor([0]))) != float(logits[0, 0, 0]) - 0.5 or dtype == torch.float16
