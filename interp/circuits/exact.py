"""What is each edge worth, without any approximation? One run an edge: the ground truth for small models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from transformers import PreTrainedModel

from interp.circuits.graph import Places
from interp.circuits.scoring import EdgeScores, Progress, prepare
from interp.patching.metrics import Metric
from interp.patching.paths import path_patch
from interp.tasks import Batch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Direction = Literal["denoise", "noise"]


def exact_edge_scores(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Batch,
    corrupted: Batch,
    metric: Metric,
    direction: Direction = "denoise",
    places: Places | Literal["anywhere", "role"] = "anywhere",
    progress: Progress[tuple[int, int]] = iter,
) -> EdgeScores:
    """The score of every edge by path patching: the edge alone is moved, and all that follows is computed anew.

    "denoise": how much the metric rises when the edge alone turns clean in the corrupted run; "noise": how much it
    falls when the edge alone is corrupted in the clean run. Both have the sign of `edge_scores`. A gate of two inputs
    (exclusive or) hides from neither alone in the same way, so look at both.
    """
    if direction not in ("denoise", "noise"):
        raise ValueError(f"direction must be 'denoise' or 'noise'; got {direction!r}")
    passing, _ = prepare(raw_model, clean, corrupted, metric, places)
    graph, anatomy = passing.graph, passing.anatomy
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    values = torch.zeros(graph.possible.shape, dtype=torch.promote_types(anatomy.dtype, torch.float32))
    ends: dict[str, float] = {}
    todo: Iterable[tuple[int, int]] = [
        (place, reader) for place, reader in graph.possible.any(dim=-1).nonzero().tolist()
    ]
    for place, reader in progress(todo):
        at = tuple((passing.places.index == place).nonzero().flatten().tolist())
        writers = graph.possible[place, reader].nonzero().flatten()
        effect = path_patch(
            anatomy.raw,
            base,
            source,
            [replace(graph.writers[w], at=at) for w in writers.tolist()],
            replace(graph.readers[reader], at=at),
            metric,
        )
        change = effect.change.mean(dim=-1)
        values[place, reader, writers] = (change if direction == "denoise" else -change).to(values)
        ends = {"base": float(effect.base.mean()), "source": float(effect.source.mean())}
    both = (ends["source"], ends["base"]) if direction == "denoise" else (ends["base"], ends["source"])
    return EdgeScores(graph, values, f"exact ({direction})", metric.name, *both)
