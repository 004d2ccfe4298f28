"""How much of the model's behaviour a circuit keeps: faithfulness, completeness, minimality and overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.ablation import Ablation, ablation_of
from interp.circuits.circuit import Circuit
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import Edge
from interp.circuits.pairs import checked_run, prepare, resolved_prompts
from interp.circuits.places import Places
from interp.models.resolve import AnyModel
from interp.patching.editing import measure
from interp.patching.metric import Metric, MetricLike

if TYPE_CHECKING:
    import pandas

# Smallest difference between the full model and the empty circuit for which a share is defined.
LEAST_GAP = 1e-6


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """The metric under some circuits, with the full model and the empty circuit.

    Shapes:
        values: `[circuit batch]`, the metric under each circuit.
        full, empty: `[batch]`, the metric with all edges, and with none.
    """

    values: Float[Tensor, "circuit batch"]
    full: Float[Tensor, " batch"]
    empty: Float[Tensor, " batch"]
    metric: str
    ablation: str

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.3f}" for share in self.share.tolist())
        return f"Faithfulness({shares} of {self.metric}; ablation: {self.ablation}; {len(self.full)} prompts)"

    @property
    def share(self) -> Float[Tensor, " circuit"]:
        """(m(C) - m(empty)) / (m(full) - m(empty)), of means over prompts (Hanna et al. 2403.17806).

        1: as the full model; 0: as the empty circuit. Raises `ValueError` where these two do not differ.
        """
        return (self.values - self.empty).mean(dim=-1) / self._gap()

    def interval(self, level: float = 0.95) -> Float[Tensor, "circuit 2"]:
        """Return an interval over prompts for each share: of a ratio of means, by the delta method and Student's t.

        It holds for this model; it says nothing about other trained models. Needs two or more prompts.
        """
        n = len(self.full)
        if n < 2:
            raise ValueError("an interval over prompts needs two or more of them")
        share = self.share.unsqueeze(-1)
        residual = (self.values - self.empty) - share * (self.full - self.empty)
        error = residual.std(dim=-1, correction=1) / n**0.5 / abs(self._gap())
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error.unsqueeze(-1)
        return torch.cat([share - half, share + half], dim=-1)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per circuit and prompt: circuit, prompt, value, full, empty."""
        import pandas

        n_circuits, n = self.values.shape
        return pandas.DataFrame(
            {
                "circuit": [i for i in range(n_circuits) for _ in range(n)],
                "prompt": list(range(n)) * n_circuits,
                "value": self.values.flatten().tolist(),
                "full": self.full.tolist() * n_circuits,
                "empty": self.empty.tolist() * n_circuits,
            }
        )

    def _gap(self) -> float:
        gap = float((self.full - self.empty).mean())
        if abs(gap) <= LEAST_GAP:
            raise ValueError(f"the full model and the empty circuit have the same {self.metric}: there is no share")
        return gap


@exclusive
@torch.no_grad()
def faithfulness(
    model: AnyModel,
    clean: PromptsLike,
    ablation: Ablation | PromptsLike,
    metric: MetricLike,
    circuits: Circuit | Sequence[Circuit],
    places: Places | None = None,
) -> Faithfulness:
    """Measure the metric under each circuit. Prompts may have another length than those of the search.

    `ablation` says what edges outside the circuit carry; prompts alone are the corrupted prompts, row by row.
    Raises `ValueError` for no circuit, circuits of different places or of another model, and as `Ablation.replacement`
    and `Circuit.on`; `RuntimeError` where the model taken apart differs from the raw model on these prompts.

    >>> faithfulness(run, clean, corrupted, logit_diff(clean), circuit).share
    """
    circuits = [circuits] if isinstance(circuits, Circuit) else list(circuits)
    if not circuits or any(c.graph.places != circuits[0].graph.places for c in circuits):
        raise ValueError("give one or more circuits, all of the same places")
    clean, ablation = resolved_prompts(model, clean, "clean"), ablation_of(ablation, model)
    prepared = prepare(model, clean, None, metric, places or circuits[0].places(clean), check=False)
    edge_model = prepared.edge_model
    for circuit in circuits:
        circuit.require_of(edge_model.graph)
    masks = [c.on(edge_model.places) for c in circuits]
    values, full, empty = _metric_under(edge_model, clean.tokens, ablation, prepared.metric, masks)
    return Faithfulness(values, full, empty, metric=prepared.metric.name, ablation=ablation.kind)


@dataclass(frozen=True)
class Completeness:
    """Whether a circuit holds everything that does the work (Wang et al. 2211.00593, section 4.2).

    `complement`: faithfulness of the model without the circuit's edges; near 0 where nothing else does the work.
    `gaps`: for random halves K of the circuit, |F(C without K) - F(model without K)|; near 0 for a complete circuit.
    """

    complement: float
    gaps: tuple[float, ...]


def completeness(
    model: AnyModel,
    clean: PromptsLike,
    ablation: Ablation | PromptsLike,
    metric: MetricLike,
    circuit: Circuit,
    n: int = 10,
    seed: int = 0,
    places: Places | None = None,
) -> Completeness:
    """Measure completeness with `n` random halves of the circuit's edges; see `Completeness`."""
    graph, kept = circuit.graph, circuit.kept
    gen = torch.Generator().manual_seed(seed)
    halves = [kept & (torch.rand(kept.shape, generator=gen) < 0.5) for _ in range(n)]
    masks = [graph.possible & ~kept, *(kept & ~k for k in halves), *(graph.possible & ~k for k in halves)]
    shares = faithfulness(model, clean, ablation, metric, [Circuit(graph, mask) for mask in masks], places).share
    circuit_less, model_less = shares[1 : n + 1], shares[n + 1 :]
    return Completeness(float(shares[0]), tuple((circuit_less - model_less).abs().tolist()))


def minimality(
    model: AnyModel,
    clean: PromptsLike,
    ablation: Ablation | PromptsLike,
    metric: MetricLike,
    circuit: Circuit,
    places: Places | None = None,
) -> list[tuple[Edge, float]]:
    """Return the loss of faithfulness when each edge of the circuit is removed, the largest loss first.

    An edge without loss is not needed, or another edge of the circuit replaces it.
    """
    edges = [edge for edge, _ in circuit.edges()]
    fewer = [circuit.without(edge) for edge in edges]
    own, *others = faithfulness(model, clean, ablation, metric, [circuit, *fewer], places).share.tolist()
    return sorted(zip(edges, (own - o for o in others), strict=True), key=lambda pair: -pair[1])


def overlap(first: Circuit, second: Circuit) -> float:
    """Return the edges in both circuits as a share of the edges in either (Jaccard); places are matched by name.

    Raises `ValueError` for circuits of models with other layers or heads, or when both are empty.
    """
    if (first.graph.writers, first.graph.readers) != (second.graph.writers, second.graph.readers):
        raise ValueError("circuits of models with other layers or heads have no edges in common")
    a, b = ({str(edge) for edge, _ in c.edges()} for c in (first, second))
    if not a | b:
        raise ValueError("both circuits are empty")
    return len(a & b) / len(a | b)


def _metric_under(
    edge_model: EdgeModel,
    tokens: Tensor,
    ablation: Ablation,
    metric: Metric,
    masks: Sequence[Bool[Tensor, "place reader writer"]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the metric `[mask batch]` under each mask, and `[batch]` with every edge and with none."""
    anatomy, replacement = edge_model.anatomy, ablation.replacement(edge_model, tokens)
    collected: list[list[Tensor]] = [[] for _ in range(len(masks) + 2)]
    for rows in edge_model.chunks(len(tokens)):
        whole = checked_run(edge_model, tokens[rows], rows, metric.positions)
        replaced = replacement[rows]
        nothing = edge_model.empty(replaced).expand_as(whole)
        finals = [edge_model.forward(tokens[rows], replaced, m)[0] if m.any() else nothing for m in masks]
        finals += [whole, nothing]
        for values, final in zip(collected, finals, strict=True):
            values.append(measure(anatomy, final, metric, rows).double())
    *values, full, empty = (torch.cat(v) for v in collected)
    return torch.stack(values), full, empty
