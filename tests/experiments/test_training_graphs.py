"""Training with captured steps: padded batches have the same losses and gradients, and a graph is what is repeated."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from experiments.training import graphs, loop
from experiments.training.gradients import add_gradients, optimizer_of, predicted
from experiments.training.graphs import IGNORED, CapturedSteps, require_graphs, shape_of
from experiments.training.loop import train_run
from experiments.training.recipe import parts
from experiments.training.state import beginning
from tests.experiments.test_training import RECIPE
from tests.experiments.test_training_compile import weights

SHORT = replace(RECIPE, steps=6, cooldown=1)
FAMILIES = ["alibi", "rotary", "none", "absolute"]


class Eager:
    """Repeats a step as a graph would, by computing it again; counts captures and repetitions."""

    def __init__(self, *_):
        self.captured, self.repeated = 0, 0

    def __call__(self, work):
        self.captured += 1

        def again():
            self.repeated += 1
            work()

        return again


class Plain:
    """What `add_gradients` needs of accelerate."""

    device = torch.device("cpu")

    @staticmethod
    def backward(loss):
        loss.backward()

    @staticmethod
    def no_sync(model):
        from contextlib import nullcontext

        return nullcontext()


def captured(recipe, capture):
    model = beginning(recipe).model.train()
    optimizer = optimizer_of(model, recipe)
    return model, CapturedSteps(model, optimizer, recipe, torch.device("cpu"), capture)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_neither_losses_nor_gradients(family):
    recipe = replace(SHORT, model=replace(RECIPE.model, family=family))
    model, steps = captured(recipe, Eager())
    for step in (0, 1, 5):
        batches = parts(recipe, step)
        expected = add_gradients(Plain(), model, recipe, step, batches)  # type: ignore[arg-type]
        gradients = [w.grad.clone() for w in model.parameters() if w.grad is not None]
        model.zero_grad()
        for part in batches:
            place = steps._filled(part)
            assert place.tokens.shape > part.batch.tokens.shape
            steps._gradients(place)
            assert float(place.loss) == pytest.approx(expected[part.name], rel=1e-5)
        found = [w.grad for w in model.parameters() if w.grad is not None]
        scale = max(float(g.abs().max()) for g in gradients)
        assert all(torch.allclose(a, b, atol=1e-5 * scale) for a, b in zip(found, gradients, strict=True))
        model.zero_grad()


def test_a_place_holds_the_predicted_tokens_and_nothing_of_an_earlier_batch():
    _, steps = captured(SHORT, Eager())
    long, short = (part for step in (3, 0) for part in parts(SHORT, step)[:1])
    steps.places = {}
    place = steps._filled(long)
    shape = shape_of(SHORT, long, len(predicted(long.batch)))
    steps.places = {shape_of(SHORT, short, len(predicted(short.batch))): place}
    at = predicted(short.batch)
    steps._filled(short)
    n = len(short.batch)
    assert torch.equal(place.tokens[:n, : short.batch.n_pos], short.batch.tokens)
    assert not place.tokens[n:].any()
    assert not place.tokens[:, short.batch.n_pos :].any()
    assert torch.equal(place.targets[:n, : len(at)], short.batch.tokens[:, at])
    assert (place.targets == IGNORED).sum() == place.targets.numel() - n * len(at)
    assert shape.positions % graphs.POSITIONS == 0


def test_every_shape_is_captured_once_and_repeated_afterwards():
    capture = Eager()
    _, steps = captured(SHORT, capture)
    for step in range(SHORT.steps):
        steps.take(SHORT.lr, parts(SHORT, step))
    shapes = {shape_of(SHORT, p, len(predicted(p.batch))) for s in range(SHORT.steps) for p in parts(SHORT, s)}
    assert len(steps.places) == len(shapes)
    assert capture.captured == len(shapes) + 1  # and the optimiser's step
    assert capture.repeated == SHORT.steps * len(parts(SHORT, 0)) + SHORT.steps - capture.captured


def test_padded_steps_train_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "require_graphs", lambda *_: None)
    monkeypatch.setattr(graphs, "Graphs", Eager)
    plain, trained = train_run(SHORT, tmp_path / "plain"), train_run(SHORT, tmp_path, cuda_graphs=True)
    assert json.loads((trained.folder / "run.json").read_text())["cuda_graphs"] is True
    assert "cuda_graphs" not in json.loads((plain.folder / "run.json").read_text())
    expected, found = weights(plain.folder), weights(trained.folder)
    assert all(torch.allclose(w, expected[name], atol=1e-4) for name, w in found.items())
    assert any(not torch.equal(w, expected[name]) for name, w in found.items())  # they are other kernels
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (plain.folder, trained.folder)]
    losses = [json.loads(text[-1])["loss_task"] for text in lines]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_an_interrupted_training_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    monkeypatch.setattr(loop, "require_graphs", lambda *_: None)
    monkeypatch.setattr(graphs, "Graphs", Eager)
    whole = train_run(SHORT, tmp_path / "whole", save_every=0, cuda_graphs=True)
    take = CapturedSteps.take
    taken = []

    def killed(steps, lr, batches):
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append(lr)
        return take(steps, lr, batches)

    monkeypatch.setattr(CapturedSteps, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        train_run(SHORT, tmp_path, save_every=0, cuda_graphs=True)
    monkeypatch.setattr(CapturedSteps, "take", take)
    resumed = train_run(SHORT, tmp_path, save_every=0, cuda_graphs=True)
    assert (resumed.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_the_learning_rate_is_that_of_the_step():
    model, steps = captured(SHORT, Eager())
    before = [w.detach().clone() for w in model.parameters()]
    for step in range(3):
        steps.take(0.0, parts(SHORT, step))
    assert all(torch.equal(w, b) for w, b in zip(model.parameters(), before, strict=True))
    steps.take(1e-3, parts(SHORT, 3))
    assert any(not torch.equal(w, b) for w, b in zip(model.parameters(), before, strict=True))


def test_gradients_are_set_to_zero_where_they_are():
    """A captured step adds to the memory that its kernels know."""
    model, steps = captured(SHORT, Eager())
    steps.take(SHORT.lr, parts(SHORT, 0))
    places = [w.grad.data_ptr() for w in model.parameters() if w.grad is not None]
    steps.take(SHORT.lr, parts(SHORT, 1))
    gradients = [w.grad for w in model.parameters() if w.grad is not None]
    assert places
    assert [gradient.data_ptr() for gradient in gradients] == places
    assert not any(gradient.any() for gradient in gradients)


def test_where_steps_cannot_be_captured_one_line_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"CUDA device; leave --cuda-graphs out$"):
        require_graphs(torch.device("cpu"), 1, SHORT)
    if not torch.cuda.is_available():  # accelerate keeps the first device of a process
        with pytest.raises(ValueError, match="CUDA device"):
            train_run(SHORT, tmp_path, cuda_graphs=True)
        assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="one process"):
        require_graphs(torch.device("cuda"), 2, SHORT)
    rotary = replace(SHORT, model=replace(RECIPE.model, family="rotary"), positions="start")
    with pytest.raises(ValueError, match="augmented positions"):
        require_graphs(torch.device("cuda"), 1, rotary)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", FAMILIES)
def test_captured_steps_train_the_same_weights_on_a_gpu(family, tmp_path):
    recipe = replace(SHORT, model=replace(RECIPE.model, family=family))
    plain, trained = train_run(recipe, tmp_path / "plain"), train_run(recipe, tmp_path, cuda_graphs=True)
    expected = weights(plain.folder)
    assert all(torch.allclose(w, expected[name], atol=1e-4) for name, w in weights(trained.folder).items())
