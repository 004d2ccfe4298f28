"""Threads that share a model give what each gives alone."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from interp.attribution import integrated_gradients
from interp.circuits import Circuit
from interp.circuits.graph import graph_of
from interp.circuits.places import places_of
from interp.forward import predict
from interp.models import ModelConfig, build_model
from interp.models.anatomy import anatomy_of
from interp.models.resolve import bridge_of
from interp.steering import patched, steered
from interp.tasks import Batch, counterfactual, default_vocabulary, sample


def test_integrated_gradients_and_forward_passes_in_threads_are_those_of_one_thread():
    """BLOOM's map is taken by a hook on its first LayerNorm, which would replace the activations of other threads."""
    config = ModelConfig("alibi", n_layers=2, d_model=16, n_heads=2, initializer_range=0.3)
    model = build_model(config, len(default_vocabulary().ids), seed=0).eval()
    batches = [sample("parity-aligned", 2, 3, seed=seed) for seed in range(4)]
    others = [counterfactual.flip_input(batch, 2) for batch in batches]

    def attribute(i: int) -> torch.Tensor:
        return integrated_gradients(model, batches[i], others[i], n=8).values

    def read(i: int) -> torch.Tensor:
        return predict(model, batches[i], batches[i].predicted())

    maps, logits = [attribute(i) for i in range(4)], [read(i) for i in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            mapped, forward = pool.map(attribute, range(4)), pool.map(read, range(4))
            for found, expected in zip([*mapped, *forward], [*maps, *logits], strict=True):
                assert torch.allclose(found, expected, atol=1e-6)
    assert all(values.abs().max() > 1e-3 for values in maps)


BLOCKS = ("installed", "steered", "steered bridge", "patched")


def block_of(kind: str, model: PreTrainedModel, batch: Batch) -> AbstractContextManager:
    """Return a block that changes what the model computes."""
    other = counterfactual.flip_input(batch, 2)
    vector = torch.linspace(-5, 5, model.config.hidden_size)  # a constant would be taken out by LayerNorm
    match kind:
        case "installed":
            graph = graph_of(anatomy_of(model), places_of(batch, "role"), torch.arange(batch.n_pos))
            return Circuit(graph, torch.zeros_like(graph.possible), None, {}).installed(model, batch, other)
        case "patched":
            return patched(model, at=("resid_post", 0), source=other)
        case "steered":
            return steered(model, at=("resid_post", 0), add=vector)
        case _:
            return steered(bridge_of(model), at=("resid_post", 0), add=vector)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_changes_no_other_thread(kind):
    """Before, a plain forward pass of another thread was the circuit's, or steered, without a word."""
    config = ModelConfig("alibi", n_layers=2, d_model=16, n_heads=2, initializer_range=0.3)
    model = build_model(config, len(default_vocabulary().ids), seed=0).eval()
    batch = sample("parity-aligned", 2, 3, seed=0)
    run: Any = bridge_of(model) if kind == "steered bridge" else model

    def plain() -> torch.Tensor:
        with torch.no_grad():
            out = run(batch.tokens)
        return getattr(out, "logits", out)

    logits, read = plain(), predict(model, batch, batch.predicted())
    with ThreadPoolExecutor(2) as pool:
        with block_of(kind, model, batch):
            assert not torch.allclose(plain(), logits, atol=1e-3)
            with pytest.raises(ValueError, match="this model is in use: another thread"):
                pool.submit(plain).result(20)
            waiting = pool.submit(predict, model, batch, batch.predicted())
            with suppress(TimeoutError):
                waiting.result(0.2)
            assert kind == "steered bridge" or not waiting.done()
        assert torch.equal(waiting.result(20), read)
        assert torch.equal(pool.submit(plain).result(20), logits)


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_of_several_threads_wait_for_each_other(kind):
    config = ModelConfig("alibi", n_layers=2, d_model=16, n_heads=2, initializer_range=0.3)
    model = build_model(config, len(default_vocabulary().ids), seed=0).eval()
    batches = [sample("parity-aligned", 2, 3, seed=seed) for seed in range(4)]
    run: Any = bridge_of(model) if kind == "steered bridge" else model

    def changed(batch: Batch) -> torch.Tensor:
        with block_of(kind, model, batch), torch.no_grad():
            out = run(batch.tokens)
        return getattr(out, "logits", out)

    expected = [changed(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, one in zip(pool.map(changed, batches), expected, strict=True):
            assert torch.equal(found, one)
