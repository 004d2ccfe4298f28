"""How much of what a model does is done by a circuit, and by no smaller one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel

from interp.circuits.ablation import Ablation, ablation_of
from interp.circuits.circuit import Circuit
from interp.circuits.edge_forward import Passing
from interp.circuits.graph import Edge, Places, Prompts
from interp.circuits.scoring import EdgeScores, prepare
from interp.circuits.selecting import greedy, random_circuit, top_n
from interp.patching.editing import measure
from interp.patching.metrics import Metric

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Sizes at which MIB weighs circuits (Mueller et al. 2504.13151), as shares of all edges.
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
LEAST_GAP = 1e-6


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """What circuits give, beside the full model and no circuit at all.

    Shapes:
        values: `[circuit batch]`, the metric under each circuit.
        full, empty: `[batch]`, the metric with all edges, and with none.
    """

    values: Float[Tensor, "circuit batch"]
    full: Float[Tensor, " batch"]
    empty: Float[Tensor, " batch"]
    metric: str
    ablation: str

    @property
    def share(self) -> Float[Tensor, " circuit"]:
        """(m(C) - m(0)) / (m(full) - m(0)), of means over prompts (Hanna et al. 2403.17806): 1 is all, 0 nothing.

        Raises `ValueError` where full model and no circuit do not differ in the metric.
        """
        return (self.values - self.empty).mean(dim=-1) / self._gap()

    def interval(self, level: float = 0.95) -> Float[Tensor, "circuit 2"]:
        """An interval over prompts for each share, for this model: of a ratio of means, by the delta method and t."""
        n = len(self.full)
        if n < 2:
            raise ValueError("an interval over prompts needs two or more of them")
        share = self.share.unsqueeze(-1)
        off = (self.values - self.empty) - share * (self.full - self.empty)
        error = off.std(dim=-1, correction=1) / n**0.5 / abs(self._gap())
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error.unsqueeze(-1)
        return torch.cat([share - half, share + half], dim=-1)

    def _gap(self) -> float:
        gap = float((self.full - self.empty).mean())
        if abs(gap) <= LEAST_GAP:
            raise ValueError(f"the full model and no circuit at all have the same {self.metric}: there is no share")
        return gap


@torch.no_grad()
def faithfulness(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    ablation: Ablation | Prompts,
    metric: Metric,
    circuits: Circuit | Sequence[Circuit],
    places: Places | None = None,
) -> Faithfulness:
    """The metric under each circuit, all of the same places; prompts may be of another length than where it was found.

    Raises `ValueError` for no circuit, circuits of different places or of another model, and as `Ablation.prepared`
    and `Circuit.on`.

    >>> faithfulness(run.raw, clean, corrupted, logit_diff(clean), circuit).share
    """
    circuits = [circuits] if isinstance(circuits, Circuit) else list(circuits)
    if not circuits or any(c.graph.places != circuits[0].graph.places for c in circuits):
        raise ValueError("give one or more circuits, all of the same places")
    passing, (tokens, _) = prepare(raw_model, clean, clean, metric, places or circuits[0].places(clean))
    for circuit in circuits:
        circuit.require_of(passing.graph)
    ablation = ablation_of(ablation)
    values, full, empty = _measured(passing, tokens, ablation, metric, [c.on(passing.places) for c in circuits])
    return Faithfulness(values, full, empty, metric.name, ablation.kind)


@dataclass(frozen=True, eq=False)
class Curve:
    """Faithfulness over sizes. `shares` of all edges were asked for; `sizes` are the edges that circuits have.

    `cpr` and `cmd` are MIB's areas, by the trapezoidal rule over `shares` (Mueller et al. 2504.13151, section 3):
    of the faithfulness (higher is better) and of its absolute distance from 1 (lower is better).
    """

    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    faithfulness: Faithfulness
    selected: str

    @property
    def cpr(self) -> float:
        """Integrated circuit performance ratio."""
        return float(torch.trapezoid(self.faithfulness.share, torch.tensor(self.shares, dtype=torch.float64)))

    @property
    def cmd(self) -> float:
        """Integrated circuit-model distance."""
        distance = (1 - self.faithfulness.share).abs()
        return float(torch.trapezoid(distance, torch.tensor(self.shares, dtype=torch.float64)))

    def smallest(self, share: float = 0.9) -> int | None:
        """Edges of the smallest circuit from which on all larger ones have at least this faithfulness."""
        enough = (self.faithfulness.share >= share).tolist()
        last = next((i for i in reversed(range(len(enough))) if not enough[i]), -1)
        return self.sizes[last + 1] if last + 1 < len(enough) else None


def curve(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    ablation: Ablation | Prompts,
    metric: Metric,
    scores: EdgeScores,
    shares: Sequence[float] = SHARES,
    selected: str = "greedy",
    places: Places | None = None,
) -> Curve:
    """Circuits of rising size by their scores ("greedy" or "top"), or at random ("random", seeds 0, 1, ...).

    Prompts should be others than those that the scores are from.
    """
    choose = {
        "greedy": lambda n, _: greedy(scores, n),
        "top": lambda n, _: top_n(scores, n),
        "random": lambda n, seed: random_circuit(scores.graph, n, seed),
    }
    if selected not in choose:
        raise ValueError(f"selected must be one of {', '.join(choose)}; got {selected!r}")
    if not shares or any(not 0 < s <= 1 for s in shares) or list(shares) != sorted(set(shares)):
        raise ValueError(f"shares must rise from above 0 to at most 1; got {shares}")
    circuits = [choose[selected](max(1, round(s * len(scores.graph))), i) for i, s in enumerate(shares)]
    found = faithfulness(raw_model, clean, ablation, metric, circuits, places)
    return Curve(tuple(shares), tuple(map(len, circuits)), found, selected)


@dataclass(frozen=True)
class RandomCircuits:
    """A circuit beside random ones of its size. `p` is (1 + those at least as faithful) / (1 + all)."""

    share: float
    shares: tuple[float, ...]
    p: float


def against_random(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    ablation: Ablation | Prompts,
    metric: Metric,
    circuit: Circuit,
    n: int = 50,
    seed: int = 0,
    places: Places | None = None,
) -> RandomCircuits:
    """The circuit's faithfulness among those of `n` random circuits with as many edges."""
    drawn = [random_circuit(circuit.graph, len(circuit), seed + i) for i in range(n)]
    own, *others = faithfulness(raw_model, clean, ablation, metric, [circuit, *drawn], places).share.tolist()
    return RandomCircuits(own, tuple(others), (1 + sum(o >= own for o in others)) / (1 + n))


@dataclass(frozen=True)
class Completeness:
    """Does the circuit hold all that does the work? (Wang et al. 2211.00593, section 4.2)

    `complement`: faithfulness of the model without the circuit's edges; near 0 when nothing does the work beside it.
    `gaps`: for random halves K of the circuit, |F(C without K) - F(model without K)|; near 0 when complete.
    """

    complement: float
    gaps: tuple[float, ...]


def completeness(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    ablation: Ablation | Prompts,
    metric: Metric,
    circuit: Circuit,
    n: int = 10,
    seed: int = 0,
    places: Places | None = None,
) -> Completeness:
    """See `Completeness`; `n` random halves of the circuit's edges."""
    graph, kept = circuit.graph, circuit.kept
    gen = torch.Generator().manual_seed(seed)
    halves = [kept & (torch.rand(kept.shape, generator=gen) < 0.5) for _ in range(n)]
    masks = [graph.possible & ~kept, *(kept & ~k for k in halves), *(graph.possible & ~k for k in halves)]
    found = faithfulness(raw_model, clean, ablation, metric, [Circuit(graph, mask) for mask in masks], places).share
    rest, whole = found[1 : n + 1], found[n + 1 :]
    return Completeness(float(found[0]), tuple((rest - whole).abs().tolist()))


def minimality(
    raw_model: PreTrainedModel | TransformerBridge,
    clean: Prompts,
    ablation: Ablation | Prompts,
    metric: Metric,
    circuit: Circuit,
    places: Places | None = None,
) -> list[tuple[Edge, float]]:
    """What the circuit's faithfulness loses without each of its edges, the largest loss first.

    An edge that can go without loss is not needed, or another one stands in for it.
    """
    edges = [edge for edge, _ in circuit.edges()]
    fewer = [circuit.without(edge) for edge in edges]
    own, *others = faithfulness(raw_model, clean, ablation, metric, [circuit, *fewer], places).share.tolist()
    return sorted(zip(edges, (own - o for o in others), strict=True), key=lambda pair: -pair[1])


def overlap(first: Circuit, second: Circuit) -> float:
    """Edges in both as a share of edges in either (Jaccard); places are matched by name.

    Raises `ValueError` for circuits of different models, or when both are empty.
    """
    if (first.graph.writers, first.graph.readers) != (second.graph.writers, second.graph.readers):
        raise ValueError("circuits of models with other layers or heads have no edges in common")
    a, b = ({str(edge) for edge, _ in c.edges()} for c in (first, second))
    if not a | b:
        raise ValueError("both circuits are empty")
    return len(a & b) / len(a | b)


def _measured(
    passing: Passing,
    tokens: Tensor,
    ablation: Ablation,
    metric: Metric,
    masks: Sequence[Bool[Tensor, "place reader writer"]],
) -> tuple[Tensor, Tensor, Tensor]:
    """The metric `[mask batch]`, and `[batch]` with every edge and with none."""
    whole = torch.ones_like(passing.graph.possible)
    instead = ablation.prepared(passing, tokens)
    found: list[list[Tensor]] = [[] for _ in range(len(masks) + 2)]
    for rows in passing.rows(len(tokens)):
        others = instead[rows]
        for values, mask in zip(found, (*masks, whole, ~whole), strict=True):
            final, _ = passing.run(tokens[rows], others, mask)
            values.append(measure(passing.anatomy, final, metric, rows).double())
    *values, full, empty = (torch.cat(v) for v in found)
    return torch.stack(values), full, empty
