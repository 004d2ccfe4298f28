"""Selects the edges of a circuit: by score, at random, or by exact runs without each edge (ACDC)."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.ablation import Ablation, ablation_of
from interp.circuits.circuit import Circuit
from interp.circuits.edge_forward import SHARE
from interp.circuits.graph import Graph
from interp.circuits.keeping import Index, Pruned, PruningFile
from interp.circuits.pairs import Progress, prepare, resolved_prompts
from interp.circuits.places import Places
from interp.circuits.scores import EdgeScores
from interp.models.resolve import AnyModel
from interp.patching.editing import measure
from interp.patching.metric import MetricLike
from interp.patching.nodes import Receiver
from interp.support.budget import numbers

# ACDC holds all prompts at once, in as many chunks as fit this multiple of one pass's memory.
_ACDC_PASSES = 8


def top_n(scores: EdgeScores, n: int) -> Circuit:
    """Return the n edges with the largest absolute scores, less those on no path from embedding to logits."""
    kept = scores.graph.mask([edge for edge, _ in scores.top(_size(scores, n))])
    return Circuit(scores.graph, kept, scores.values, _details("top", scores, n)).connected()


def greedy(scores: EdgeScores, n: int) -> Circuit:
    """Return n edges chosen from the logits up: each time the largest absolute score among edges into the circuit.

    Hanna et al. 2403.17806, section 3.2. Edges on no path from the embedding are removed at the end.
    """
    graph, values, remaining = scores.graph, scores.values.abs(), _size(scores, n)
    kept = torch.zeros_like(graph.possible)
    reached: set[int] = set()
    candidates: list[tuple[float, int, int, int]] = []

    def reach(reader: int) -> None:
        if reader not in reached:
            reached.add(reader)
            for place, writer in graph.possible[:, reader].nonzero().tolist():
                heapq.heappush(candidates, (-float(values[place, reader, writer]), place, reader, writer))

    reach(graph.numbers[Receiver("logits")])
    while candidates and remaining:
        _, place, reader, writer = heapq.heappop(candidates)
        kept[place, reader, writer] = True
        remaining -= 1
        for own in graph.readers_of(graph.writers[writer]):
            reach(own)
    return Circuit(graph, kept, scores.values, _details("greedy", scores, n)).connected()


def random_circuit(graph: Graph, n: int, seed: int) -> Circuit:
    """Return n possible edges drawn at random, as a baseline."""
    if not 0 <= n <= len(graph):
        raise ValueError(f"a circuit of this graph has from 0 to {len(graph)} edges; got {n}")
    gen = torch.Generator().manual_seed(seed)
    kept = torch.zeros_like(graph.possible)
    drawn = graph.possible.nonzero()[torch.randperm(len(graph), generator=gen)[:n]]
    kept[tuple(drawn.T)] = True
    return Circuit(graph, kept, None, {"selected": "random", "n": n, "seed": seed})


@exclusive
@torch.no_grad()
def acdc(
    model: AnyModel,
    clean: PromptsLike,
    ablation: Ablation | PromptsLike,
    metric: MetricLike,
    threshold: float,
    start: Circuit | EdgeScores,
    places: Places | None = None,
    progress: Progress[Index] = iter,
    keep: Path | str | None = None,
) -> Circuit:
    """Remove edges one by one, from the logits up, whose removal hardly changes the metric (Conmy et al. 2304.14997).

    An edge is removed when this raises the mean absolute distance of the metric from the full model's by less than
    `threshold` times the distance between the full model and the empty circuit. Every test is an exact run; it starts
    at the reader's layer, because earlier layers do not change. Edges of one reader are tried in rising order of
    their absolute score. `start` is the circuit to prune; with scores, pruning starts from all edges.

    The scores of the result are measured: the loss of the metric when the edge was cut, at its turn. `keep` is a
    folder for how far this has come, from which a later call with the same arguments goes on. Searches may share it;
    the caller removes it.
    Raises `ValueError` for a start of another model, a negative threshold, and more prompts than memory holds.
    """
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be 0 or more, and finite; got {threshold}")
    if isinstance(start, EdgeScores):
        start = Circuit(start.graph, start.graph.possible, start.values)
    clean, ablation = resolved_prompts(model, clean, "clean"), ablation_of(ablation, model)
    prepared = prepare(model, clean, None, metric, places or start.places(clean))
    edge_model, tokens, metric = prepared.edge_model, prepared.clean.tokens, prepared.metric
    start.require_of(edge_model.graph)
    kept = start.on(edge_model.places) & edge_model.graph.possible
    matched = [start.graph.places.index(name) for name in edge_model.places.names]  # places are matched by name
    magnitude = None if start.scores is None else start.scores[matched].abs()
    replacement = ablation.replacement(edge_model, tokens)
    chunks = list(edge_model.chunks(len(tokens)))
    floats = 2 * len(edge_model.graph.writers) * tokens.numel() * edge_model.anatomy.d_model
    if floats > (most := _ACDC_PASSES * numbers(SHARE, edge_model.anatomy.device)):
        fits = int(len(tokens) * most / floats)
        raise ValueError(f"{len(tokens)} prompts are more than can be held at once; give at most {fits}")
    replaced = [replacement[rows] for rows in chunks]

    def metric_of(kept: Tensor, first: int, before: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        values, outputs = [], []
        for i, rows in enumerate(chunks):
            earlier = None if before is None else before[i]
            final, own = edge_model.forward(tokens[rows], replaced[i], kept, first, earlier)
            values.append(measure(edge_model.anatomy, final, metric, rows))
            outputs.append(own)
        return torch.cat(values).double(), outputs

    full, _ = metric_of(torch.ones_like(kept), 0, None)
    gap = float((full - metric_of(torch.zeros_like(kept), 0, None)[0]).abs().mean())
    now, outputs = metric_of(kept, 0, None)
    order = _order(kept, magnitude)
    file = PruningFile(None if keep is None else Path(keep), order, threshold, (full, now))
    found = file.load(Pruned(kept, now))
    try:
        for place, reader, writer in progress(order[len(found.losses) :]):
            layer = edge_model.graph.readers[reader].layer
            trial = found.kept.clone()
            trial[place, reader, writer] = False
            value, _ = metric_of(trial, len(edge_model.anatomy.blocks) if layer is None else layer, outputs)
            worse = float((value - full).abs().mean() - (found.now - full).abs().mean())
            losses = (*found.losses, float((found.now - value).mean()))
            removed = worse < threshold * gap
            found = Pruned(trial, value, losses) if removed else replace(found, losses=losses)
            file.write_now_and_then(found)
    except BaseException:
        file.write(found)
        raise
    scores = torch.zeros(kept.shape)
    for edge, loss in zip(order, found.losses, strict=True):
        scores[edge] = loss
    details = {"selected": "acdc", "threshold": threshold, "from": start.details, "metric": metric.name}
    return Circuit(edge_model.graph, found.kept, scores, details).connected()


def _order(
    kept: Bool[Tensor, "place reader writer"], magnitude: Float[Tensor, "place reader writer"] | None
) -> list[Index]:
    """Sort edges: last reader first; for one reader by absolute score, or the last writer first without scores."""
    edges = [tuple(index) for index in kept.nonzero().tolist()]
    return sorted(edges, key=lambda e: (-e[1], -e[2] if magnitude is None else float(magnitude[e]), e))  # pyright: ignore[reportReturnType]


def _size(scores: EdgeScores, n: int) -> int:
    if not 1 <= n <= len(scores.graph):
        raise ValueError(f"a circuit of this graph has from 1 to {len(scores.graph)} edges; got {n}")
    return n


def _details(selected: str, scores: EdgeScores, n: int) -> dict:
    return {"selected": selected, "n": n, "scores": scores.method, "metric": scores.metric, **scores.details}
