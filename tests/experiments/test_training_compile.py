"""Training with kernels of torch.compile: the same weights but for rounding, and one line where it does not work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.training import loop
from experiments.training.loop import train_run
from interp.models import load_run
from tests.experiments.test_training import RECIPE

SHORT = replace(RECIPE, steps=4, cooldown=1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_run(folder).raw.named_parameters())


def test_training_uses_the_compiled_model_and_the_run_says_so(tmp_path, monkeypatch):
    asked, passes = [], []

    def compile(model, **options):
        asked.append(options)
        return lambda *args, **kwargs: passes.append(1) or model(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(loop, "take_step", with_parameters(loop.take_step))
    plain, trained = train_run(SHORT, tmp_path / "plain"), train_run(SHORT, tmp_path, compile=True)
    assert asked == [{}, {"dynamic": True}]  # a trial, then the model
    assert len(passes) > SHORT.steps  # each part of each step
    assert json.loads((trained.folder / "run.json").read_text())["compile"] is True
    assert "compile" not in json.loads((plain.folder / "run.json").read_text())
    expected = weights(plain.folder)
    assert all(torch.equal(w, expected[name]) for name, w in weights(trained.folder).items())


def with_parameters(take_step):
    """`take_step` for a model that is a plain function: it clips the gradients of what the optimiser has."""

    def step(accelerator, model, optimizer, *args):
        if not hasattr(model, "parameters"):
            model.parameters = lambda: [p for group in optimizer.param_groups for p in group["params"]]
        return take_step(accelerator, model, optimizer, *args)

    return step


def test_where_it_does_not_work_one_line_says_why_and_nothing_is_left(tmp_path, monkeypatch):
    def compile(model, **options):
        raise RuntimeError("no C++ compiler\nmore about it")

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(ValueError, match=r"does not work here \(no C\+\+ compiler\); leave --compile out$"):
        train_run(SHORT, tmp_path, compile=True)
    assert not list(tmp_path.iterdir())


def test_training_with_other_kernels_is_not_resumed(tmp_path):
    loop.claim(tmp_path, RECIPE, "no")
    with pytest.raises(ValueError, match="compile None there, True now"):
        loop.claim(tmp_path, RECIPE, "no", kernels={"compile": True})


@pytest.mark.slow
@pytest.mark.parametrize("family", ["alibi", "rotary"])
def test_compiled_kernels_train_the_same_weights(family, tmp_path):
    recipe = replace(SHORT, model=replace(RECIPE.model, family=family))
    plain, trained = train_run(recipe, tmp_path / "plain"), train_run(recipe, tmp_path, compile=True)
    expected = weights(plain.folder)
    assert all(torch.allclose(w, expected[name], atol=1e-4) for name, w in weights(trained.folder).items())
