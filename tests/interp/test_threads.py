"""Threads that share a model give what each gives alone."""

from concurrent.futures import ThreadPoolExecutor

import torch

from interp.attribution import integrated_gradients
from interp.forward import predict
from interp.models import ModelConfig, build_model
from interp.tasks import counterfactual, default_vocabulary, sample


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
