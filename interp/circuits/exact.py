"""Exact edge scores: one forward pass per edge. The ground truth for small models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch

from interp.arguments import PromptsLike, exclusive
from interp.circuits.pairs import Progress, prepare
from interp.circuits.places import Places, PlacesBy
from interp.circuits.scores import EdgeScores
from interp.models.resolve import AnyModel
from interp.patching.metric import MetricLike
from interp.patching.paths import path_patch

Direction = Literal["denoise", "noise"]


@exclusive
def exact_edge_scores(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    metric: MetricLike,
    direction: Direction = "denoise",
    places: Places | PlacesBy = "anywhere",
    progress: Progress[tuple[int, int]] = iter,
) -> EdgeScores:
    """Return the score of every edge by path patching: the edge alone is patched, and all later parts are recomputed.

    "denoise": how much the metric rises when the edge alone turns clean in the corrupted run. "noise": how much it
    falls when the edge alone is corrupted in the clean run. Both have the sign of `edge_scores`. Of two edges into an
    AND-like part, denoising one alone may show nothing; of an OR-like part, noising one alone. Use both directions.

    Arguments and errors as in `edge_scores`.
    """
    if direction not in ("denoise", "noise"):
        raise ValueError(f"direction must be 'denoise' or 'noise'; got {direction!r}")
    prepared = prepare(model, clean, corrupted, metric, places)
    edge_model, metric = prepared.edge_model, prepared.metric
    graph, anatomy = edge_model.graph, edge_model.anatomy
    sides = prepared.clean, prepared.corrupted
    source, base = sides if direction == "denoise" else sides[::-1]
    values = torch.zeros(graph.possible.shape, dtype=torch.promote_types(anatomy.dtype, torch.float32))
    means: dict[str, float] = {}
    readers: Iterable[tuple[int, int]] = [
        (place, reader) for place, reader in graph.possible.any(dim=-1).nonzero().tolist()
    ]
    for place, reader in progress(readers):
        at = tuple((edge_model.places.index == place).nonzero().flatten().tolist())
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
        means = {"base": float(effect.base.mean()), "source": float(effect.source.mean())}
    clean_side, corrupted_side = ("source", "base") if direction == "denoise" else ("base", "source")
    return EdgeScores(
        graph,
        values,
        f"exact ({direction})",
        metric.name,
        clean=means[clean_side],
        corrupted=means[corrupted_side],
    )
