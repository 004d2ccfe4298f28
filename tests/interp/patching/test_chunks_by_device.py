"""Prompts run together as the memory of the model's own device allows."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.models.anatomy import anatomy_of
from interp.patching import accuracy, editing
from interp.patching.editing import chunks
from interp.support import budget
from interp.tasks import sample
from tests.probes.oracle_models import planted


@pytest.mark.parametrize(("place", "free"), [("cpu", 2**40), ("cuda", 2**33), ("cuda", 2**40)])
def test_chunks_are_sized_by_the_models_device(place: str, free: int, monkeypatch: pytest.MonkeyPatch):
    model = planted("A1")
    batch = sample("parity-aligned", 64, 12, 0, model.vocabulary)
    own, metric = anatomy_of(model.model), accuracy(batch)
    anatomy: Any = SimpleNamespace(
        n_heads=own.n_heads,
        d_head=own.d_head,
        raw=own.raw,
        blocks=own.blocks,
        device=torch.device("cuda:0" if place == "cuda" else place),
    )
    # On a CPU a layer's values must fit its caches besides: here each prompt's do.
    asked = []
    monkeypatch.setattr(budget, "free_memory", lambda device=None: asked.append(device) or free)
    most = max(len(rows) for rows in chunks(anatomy, batch, metric, copies=10_000))
    width = anatomy.n_heads * (batch.n_pos + 3 * anatomy.d_head) + 6 * own.d_model
    floats = 10_000 * batch.n_pos * width + len(metric.positions) * model.model.config.vocab_size
    bytes_of = min(2**30, free // 2) if place == "cpu" else free // 2
    assert most == min(64, max(1, bytes_of // 16 // floats))
    assert asked in ([], [anatomy.device])


def test_more_prompts_share_the_weights_of_a_wide_layer(monkeypatch: pytest.MonkeyPatch):
    model = planted("A1")
    batch = sample("parity-aligned", 64, 4, 0, model.vocabulary)
    anatomy, metric = anatomy_of(model.model), accuracy(batch)
    weights = sum(x.numel() for x in anatomy.blocks[0].module.parameters())
    width = anatomy.n_heads * (batch.n_pos + 3 * anatomy.d_head) + 6 * anatomy.d_model
    for cached in (weights // 2, 2 * weights):
        monkeypatch.setattr(editing, "CACHED", cached)
        most = max(len(rows) for rows in editing.chunks(anatomy, batch, metric, copies=1))
        assert most == max(1, min(64, max(cached, weights) // (batch.n_pos * width)))
