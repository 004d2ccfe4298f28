"""Prompts run together as the memory of the model's own device allows."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.models.anatomy import anatomy_of
from interp.patching import accuracy, editing
from interp.patching.editing import chunks
from interp.support import budget
from interp.tasks import sample
from tests.interp.patching.models import tiny
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
        dtype=own.dtype,
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
    sizes = set()
    for cached in (weights, 4 * weights):
        monkeypatch.setattr(editing, "CACHED", cached)
        for part in (1, 0.5):
            most = max(len(rows) for rows in editing.chunks(anatomy, batch, metric, copies=1, part=part))
            assert most == max(1, min(64, int(max(cached, 2 * weights) / (part * batch.n_pos * width))))
            sizes.add(most)
    assert len(sizes) == 3  # half of the positions of twice as many numbers are as many


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_numbers_of_half_the_bytes_leave_room_for_twice_the_prompts(dtype: torch.dtype):
    batch, sizes, alone = sample("parity-aligned", 64, 4, seed=0), [], []
    other: Any = copy.deepcopy(tiny("rotary"))
    for raw in (tiny("rotary"), other.to(dtype)):
        anatomy = anatomy_of(raw)
        sizes += [max(len(x) for x in chunks(anatomy, batch, accuracy(batch), 1000, share=s)) for s in (1 / 16, 1 / 8)]
        alone.append(max(len(x) for x in chunks(anatomy, batch, accuracy(batch), copies=0, share=2**-16)))
    assert 1 < sizes[0] < sizes[1]
    if dtype == torch.float64:
        assert sizes[3] == sizes[0]
    else:  # logits, which are few here, are read in float32
        assert sizes[1] - 1 <= sizes[2] <= sizes[1]
        assert 1 < alone[0] == alone[1] < 64
