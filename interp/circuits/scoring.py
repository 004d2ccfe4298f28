"""How much does each edge matter? Gradients of one or a few runs, instead of one run an edge.

Edge attribution (EAP, Syed et al. 2310.10348): what an edge carries in the clean run less what it carries in the
corrupted one, times the gradient of the metric at its reader. Integrated over the way from one run to the other
(EAP-IG, Hanna et al. 2403.17806) it survives saturation, and adds up to the whole difference of the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.circuits.edge_forward import Passing
from interp.circuits.graph import Edge, Graph, Places, Prompts, graph_of, places_of, tokens_of
from interp.circuits.reader_gradients import Move, Pull
from interp.models.anatomy import anatomy_of
from interp.models.bridge import raw_of
from interp.patching.editing import measure
from interp.patching.metrics import Metric
from interp.patching.nodes import Sender
from interp.support.finite import require_finite
from interp.tasks import Batch

if TYPE_CHECKING:
    import pandas
    from transformer_lens.model_bridge import TransformerBridge

Method = Literal["eap", "eap-clean", "eap-ig-inputs", "eap-ig-activations"]
METHODS: tuple[Method, ...] = get_args(Method)
T = TypeVar("T")
# Something like tqdm: shows how far a loop has come.
Progress = Callable[[Iterable[T]], Iterable[T]]


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """What each edge is worth, in units of the metric: how much it rises when the edge alone turns clean.

    Shapes:
        values: `[place reader writer]`, means over prompts; 0 where the graph has no edge.

    `clean` and `corrupted` are the mean metrics of the two runs.
    """

    graph: Graph
    values: Float[Tensor, "place reader writer"]
    method: str
    metric: str
    clean: float
    corrupted: float
    details: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.shape != self.graph.possible.shape:
            raise ValueError(f"values must be {list(self.graph.possible.shape)}; got {list(self.values.shape)}")
        if not torch.isfinite(self.values).all():
            edge = self.graph.edge(*(~torch.isfinite(self.values)).nonzero()[0].tolist())
            raise ValueError(f"the score of {edge} is NaN or infinite")

    def top(self, k: int = 10) -> list[tuple[Edge, float]]:
        """The k edges with the largest absolute scores, with their scores."""
        flat = self.values.flatten()
        order = flat.abs().masked_fill(~self.graph.possible.flatten(), -1).argsort(descending=True, stable=True)
        found = order[: min(k, len(self.graph))]
        shape = self.values.shape
        where = torch.stack(torch.unravel_index(found, shape), dim=1).tolist()
        return [(self.graph.edge(*place), float(flat[i])) for place, i in zip(where, found.tolist(), strict=True)]

    def of_writers(self) -> dict[Sender, float]:
        """The sum over a writer's edges: its own score, to first order (node attribution)."""
        return dict(zip(self.graph.writers, self.values.sum(dim=(0, 1)).tolist(), strict=True))

    def to_dataframe(self) -> pandas.DataFrame:
        """One row an edge: writer, reader, place, score."""
        import pandas

        rows = [
            (str(e.writer), str(e.reader), e.place, float(self.values[self.graph.index(e)])) for e in self.graph.edges()
        ]
        return pandas.DataFrame(rows, columns=["writer", "reader", "place", "score"])


def edge_scores(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    corrupted: Prompts,
    metric: Metric,
    method: Method = "eap-ig-inputs",
    n: int = 32,
    places: Places | Literal["anywhere", "role"] = "anywhere",
    progress: Progress[Tensor] = iter,
) -> EdgeScores:
    """The score of every edge, of a batch of prompts at once. Key-value heads may be shared.

    - "eap": gradients of the corrupted run (TransformerLens's `attribution_patch`); "eap-clean": of the clean run.
    - "eap-ig-inputs": gradients averaged over `n` points between the embeddings of the two runs, more of them where
      the metric changes. The scores of the embedding's edges add up to the difference of the metric, but for
      `details["gap"]`: where that is not small, take more points, or exact scores.
    - "eap-ig-activations": each writer (all heads of a layer together) is moved in `n` steps from what it gives in
      the corrupted run to what it gives in the clean one, in the clean run. The scores of its edges add up to what
      is lost when it alone gives what the corrupted run gave. (Hanna et al. average the gradients over the points
      of all writers; here those of a writer score its own edges alone.) `2 n_layers + 1` times the work.

    Edges are of `places`, see `places_of`. Raises `ValueError` for prompts of two layouts, an unknown method, a
    metric without a gradient (accuracy), and scores that are not finite.

    >>> scores = edge_scores(run.raw, clean, counterfactual.redraw(clean, 1), logit_diff(clean), places="role")
    >>> scores.top(3)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if n < 1:
        raise ValueError(f"n, the points between the two runs, must be at least 1; got {n}")
    passing, tokens = prepare(raw_model, clean, corrupted, metric, places)
    graph = passing.graph
    values = torch.zeros(graph.possible.shape, dtype=torch.float64)
    totals = torch.zeros(2, dtype=torch.float64)
    for rows in progress(list(passing.rows(len(tokens[0]), copies=2.5))):
        ends, given = zip(*(passing.ordinary(t[rows]) for t in tokens), strict=True)
        pull = Pull(passing, metric, rows)
        totals += torch.stack([measure(passing.anatomy, end, metric, rows).double().sum() for end in ends])
        difference = require_finite(given[0] - given[1], "a difference of what a part gives", rows, axis=1)
        match method:
            case "eap" | "eap-clean":
                found = pull.back(given[method == "eap"][0])
                values += _product(passing, difference, found)
            case "eap-ig-inputs":
                values += _product(passing, difference, pull.along(n, 0, _from(given[1][0], difference[0])))
            case "eap-ig-activations":
                for writers, layer, move in _moves(passing, given[0], difference):
                    values[:, :, writers] += _product(passing, difference[writers], pull.along(n, layer, move))
    values, (base, source) = values / len(tokens[0]), (totals / len(tokens[0])).tolist()
    values = values.masked_fill(~graph.possible, 0.0).to(torch.promote_types(passing.anatomy.dtype, torch.float32))
    details: dict = {} if method.startswith("eap") and "ig" not in method else {"n": n}
    if method == "eap-ig-inputs":
        details["gap"] = float(values[:, :, 0].double().sum() - (base - source))
    return EdgeScores(graph, values, method, metric.name, base, source, details)


def prepare(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    corrupted: Prompts,
    metric: Metric,
    places: Places | Literal["anywhere", "role"],
) -> tuple[Passing, tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]]:
    """The model with its graph, and the tokens of both sides. Raises `ValueError` for prompts of two layouts."""
    anatomy = anatomy_of(raw_of(raw_model))
    tokens = tokens_of(clean), tokens_of(corrupted)
    if tokens[0].shape != tokens[1].shape:
        raise ValueError(f"clean is {list(tokens[0].shape)} and corrupted {list(tokens[1].shape)}; give pairs")
    if isinstance(clean, Batch) and isinstance(corrupted, Batch):
        same = torch.equal(clean.role, corrupted.role) and torch.equal(clean.step, corrupted.step)
        if not same:
            raise ValueError("clean and corrupted must have the same roles and steps, position by position")
    where = places_of(clean, places)
    return Passing(anatomy, graph_of(anatomy, where, metric.positions), where), tokens


def _from(start: Tensor, change: Tensor) -> Move:
    return lambda far: (start + far * change, None)


def _moves(passing: Passing, clean: Tensor, difference: Tensor) -> Iterator[tuple[slice, int, Move]]:
    """Writers that are moved together, the layer from which on the run differs, and the run's start by how far.

    A start is the residual before that layer and, where heads are moved, what the layer's attention adds.
    """

    def start(layer: int, writers: slice) -> Move:
        change = difference[writers].sum(dim=0)
        return _from(passing.resid(clean, layer) - change, change)

    def attention(layer: int, writers: slice) -> Move:
        change, adds = difference[writers].sum(dim=0), clean[writers].sum(dim=0) + passing.biases[layer]
        resid = passing.resid(clean, layer)
        return lambda far: (resid, adds - (1 - far) * change)

    yield slice(0, 1), 0, start(0, slice(0, 1))
    for layer in range(len(passing.anatomy.blocks)):
        heads = slice(passing.before(layer), passing.before(layer + 1) - 1)
        mlp = slice(heads.stop, heads.stop + 1)
        yield heads, layer, attention(layer, heads)
        yield mlp, layer + 1, start(layer + 1, mlp)


def _product(passing: Passing, difference: Tensor, gradients: Tensor) -> Float[Tensor, "place reader writer"]:
    """Summed over prompts, positions of a place and dimensions."""
    found = []
    for place in range(len(passing.places.names)):
        at = (passing.places.index == place).nonzero().flatten().to(difference.device)
        found.append(gradients[:, :, at].flatten(1) @ difference[:, :, at].flatten(1).T)
    return torch.stack(found).double().cpu()
