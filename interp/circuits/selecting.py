"""Which edges make a circuit? By their scores, or one by one by what is lost without them."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.circuits.ablation import Ablation, ablation_of
from interp.circuits.circuit import Circuit
from interp.circuits.edge_forward import SHARE
from interp.circuits.graph import Graph, Places, Prompts
from interp.circuits.scoring import EdgeScores, Progress, prepare
from interp.patching.editing import measure
from interp.patching.metrics import Metric
from interp.patching.nodes import Receiver
from interp.support.budget import numbers

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def top_n(scores: EdgeScores, n: int) -> Circuit:
    """The n edges with the largest absolute scores, less those on no way from embedding to logits."""
    kept = scores.graph.mask([edge for edge, _ in scores.top(_size(scores, n))])
    return Circuit(scores.graph, kept, scores.values, _found("top", scores, n)).connected()


def greedy(scores: EdgeScores, n: int) -> Circuit:
    """n edges, from the logits up: always the largest absolute score among those into what the circuit holds.

    Hanna et al. 2403.17806, section 3.2. Edges on no way from the embedding are left out at the end.
    """
    graph, values, size = scores.graph, scores.values.abs(), _size(scores, n)
    kept = torch.zeros_like(graph.possible)
    held: set[int] = set()
    waiting: list[tuple[float, int, int, int]] = []

    def hold(reader: int) -> None:
        if reader not in held:
            held.add(reader)
            for place, writer in graph.possible[:, reader].nonzero().tolist():
                heapq.heappush(waiting, (-float(values[place, reader, writer]), place, reader, writer))

    hold(graph.numbers[Receiver("logits")])
    while waiting and size:
        _, place, reader, writer = heapq.heappop(waiting)
        kept[place, reader, writer] = True
        size -= 1
        for feeding in graph.readers_of(graph.writers[writer]):
            hold(feeding)
    return Circuit(graph, kept, scores.values, _found("greedy", scores, n)).connected()


def random_circuit(graph: Graph, n: int, seed: int) -> Circuit:
    """n edges drawn at random, to compare with: nothing about the model is known to it."""
    if not 0 <= n <= len(graph):
        raise ValueError(f"a circuit of this graph has from 0 to {len(graph)} edges; got {n}")
    gen = torch.Generator().manual_seed(seed)
    kept = torch.zeros_like(graph.possible)
    drawn = graph.possible.nonzero()[torch.randperm(len(graph), generator=gen)[:n]]
    kept[tuple(drawn.T)] = True
    return Circuit(graph, kept, None, {"selected": "random", "n": n, "seed": seed})


@torch.no_grad()
def acdc(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    ablation: Ablation | Prompts,
    metric: Metric,
    threshold: float,
    start: Circuit | EdgeScores,
    places: Places | None = None,
    progress: Progress[tuple[int, int, int]] = iter,
) -> Circuit:
    """Cuts edges one by one, from the logits up, whose loss the metric hardly feels (Conmy et al. 2304.14997).

    An edge goes when without it the mean absolute distance of the metric from the full model's rises by less than
    `threshold` of the distance between full model and no circuit at all. Every test is an exact run; it starts at
    the reader's layer, because nothing before it can have changed. Edges of a reader are tried with the smallest
    absolute score first. `start` is the circuit to begin with; scores begin with every edge.

    The circuit's scores are measured: what the metric loses when the edge is cut, at its turn.
    Raises `ValueError` for another model's start, a threshold below 0, and more prompts than memory holds.
    """
    if threshold < 0:
        raise ValueError(f"threshold must be 0 or more; got {threshold}")
    if isinstance(start, EdgeScores):
        start = Circuit(start.graph, start.graph.possible, start.values)
    ablation = ablation_of(ablation)
    passing, (tokens, _) = prepare(raw_model, clean, clean, metric, places or start.places(clean))
    start.require_of(passing.graph)
    kept = start.on(passing.places) & passing.graph.possible
    matched = [start.graph.places.index(name) for name in passing.places.names]  # places are matched by name
    worth = None if start.scores is None else start.scores[matched].abs()
    instead = ablation.prepared(passing, tokens)
    parts = list(passing.rows(len(tokens)))
    held = 2 * len(passing.graph.writers) * tokens.numel() * passing.anatomy.d_model
    if held > 8 * numbers(SHARE):
        fits = int(len(tokens) * 8 * numbers(SHARE) / held)
        raise ValueError(f"{len(tokens)} prompts are more than can be held at once; give at most {fits}")
    others = [instead[rows] for rows in parts]

    def measured(kept: Tensor, first: int, runs: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        values, given = [], []
        for i, rows in enumerate(parts):
            final, own = passing.run(tokens[rows], others[i], kept, first, None if runs is None else runs[i])
            values.append(measure(passing.anatomy, final, metric, rows))
            given.append(own)
        return torch.cat(values).double(), given

    full, _ = measured(torch.ones_like(kept), 0, None)
    gap = float((full - measured(torch.zeros_like(kept), 0, None)[0]).abs().mean())
    now, runs = measured(kept, 0, None)
    scores = torch.zeros(kept.shape)
    for place, reader, writer in progress(_order(kept, worth)):
        layer = passing.graph.readers[reader].layer
        trial = kept.clone()
        trial[place, reader, writer] = False
        value, _ = measured(trial, len(passing.anatomy.blocks) if layer is None else layer, runs)
        worse = float((value - full).abs().mean() - (now - full).abs().mean())
        scores[place, reader, writer] = (now - value).mean()
        if worse < threshold * gap:
            kept, now = trial, value
    details = {"selected": "acdc", "threshold": threshold, "from": start.details, "metric": metric.name}
    return Circuit(passing.graph, kept, scores, details).connected()


def _order(
    kept: Bool[Tensor, "place reader writer"], worth: Float[Tensor, "place reader writer"] | None
) -> list[tuple[int, int, int]]:
    """Edges with the last reader first; those of a reader by what they are worth, or the last writer first."""
    found = [tuple(index) for index in kept.nonzero().tolist()]
    return sorted(found, key=lambda e: (-e[1], -e[2] if worth is None else float(worth[e]), e))  # pyright: ignore[reportReturnType]


def _size(scores: EdgeScores, n: int) -> int:
    if not 1 <= n <= len(scores.graph):
        raise ValueError(f"a circuit of this graph has from 1 to {len(scores.graph)} edges; got {n}")
    return n


def _found(how: str, scores: EdgeScores, n: int) -> dict:
    return {"selected": how, "n": n, "scores": scores.method, "metric": scores.metric, **scores.details}
