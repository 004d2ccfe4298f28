"""Circuits at rising sizes, and random circuits as a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.ablation import Ablation
from interp.circuits.circuit import Circuit
from interp.circuits.evaluation import Faithfulness, faithfulness
from interp.circuits.pairs import prepare
from interp.circuits.places import Places, PlacesBy
from interp.circuits.scores import EdgeScores
from interp.circuits.selecting import greedy, random_circuit, top_n
from interp.models.resolve import AnyModel
from interp.patching.editing import measure
from interp.patching.metric import MetricLike

if TYPE_CHECKING:
    import pandas

# Sizes at which MIB evaluates circuits (Mueller et al. 2504.13151), as shares of all edges.
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """Faithfulness at rising circuit sizes.

    `shares` are the requested sizes as shares of all edges; `sizes` are the numbers of edges of the connected
    circuits. `cpr` and `cmd` are areas by the trapezoidal rule over `shares` (Mueller et al. 2504.13151, section 3): of
    the faithfulness (higher is better), and of its absolute distance from 1 (lower is better). They are MIB's numbers
    only at MIB's sizes: see `interp.circuits.mib_scores`.
    """

    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    faithfulness: Faithfulness
    selected: str

    def __repr__(self) -> str:
        shares = ", ".join(f"{n}: {x:.3f}" for n, x in zip(self.sizes, self.faithfulness.share.tolist(), strict=True))
        return f"Curve({self.selected}; faithfulness by edges {shares})"

    @property
    def cpr(self) -> float:
        """Integrated circuit performance ratio."""
        return float(torch.trapezoid(self.faithfulness.share, torch.tensor(self.shares, dtype=torch.float64)))

    @property
    def cmd(self) -> float:
        """Integrated circuit-model distance."""
        distance = (1 - self.faithfulness.share).abs()
        return float(torch.trapezoid(distance, torch.tensor(self.shares, dtype=torch.float64)))

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per circuit: requested share, edges, faithfulness."""
        import pandas

        shares = self.faithfulness.share.tolist()
        return pandas.DataFrame({"share": self.shares, "edges": self.sizes, "faithfulness": shares})

    def smallest(self, share: float = 0.9) -> int | None:
        """Return the edges of the smallest circuit from which on all circuits have at least this faithfulness."""
        enough = (self.faithfulness.share >= share).tolist()
        last = next((i for i in reversed(range(len(enough))) if not enough[i]), -1)
        return self.sizes[last + 1] if last + 1 < len(enough) else None


def curve(
    model: AnyModel,
    clean: PromptsLike,
    ablation: Ablation | PromptsLike,
    metric: MetricLike,
    scores: EdgeScores,
    shares: Sequence[float] = SHARES,
    selected: str = "greedy",
    places: Places | None = None,
    rounding: Literal["nearest", "mib"] = "nearest",
) -> Curve:
    """Measure circuits of rising size, selected by score ("greedy" or "top") or at random ("random", seeds 0, 1, ...).

    A share p of n edges is the nearest whole number of edges, at least one; with `rounding="mib"` it is int(p n), as in
    MIB's code, which may be none. Use other prompts than those of the scores.
    """
    if selected not in ("greedy", "top", "random"):
        raise ValueError(f"selected must be one of greedy, top, random; got {selected!r}")
    if rounding not in ("nearest", "mib"):
        raise ValueError(f"rounding must be 'nearest' or 'mib'; got {rounding!r}")
    if not shares or any(not 0 < s <= 1 for s in shares) or list(shares) != sorted(set(shares)):
        raise ValueError(f"shares must rise from above 0 to at most 1; got {shares}")
    wanted = [share * len(scores.graph) for share in shares]
    sizes = [int(n) if rounding == "mib" else max(1, round(n)) for n in wanted]
    circuits = [_select(scores, n, selected, seed) for seed, n in enumerate(sizes)]
    measured = faithfulness(model, clean, ablation, metric, circuits, places)
    return Curve(tuple(shares), tuple(map(len, circuits)), measured, selected)


def _select(scores: EdgeScores, n: int, selected: str, seed: int) -> Circuit:
    if selected == "random" or n == 0:
        return random_circuit(scores.graph, n, seed)
    return greedy(scores, n) if selected == "greedy" else top_n(scores, n)


@dataclass(frozen=True)
class RandomCircuits:
    """Faithfulness of a circuit and of random circuits with as many edges.

    `p` is (1 + number of random circuits at least as faithful) / (1 + number of random circuits).
    """

    share: float
    shares: tuple[float, ...]
    p: float

    def __repr__(self) -> str:
        best = f", at most {max(self.shares):.3f}" if self.shares else ""
        return f"RandomCircuits({self.share:.3f} against {len(self.shares)} random circuits{best}; p {self.p:.3f})"

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per circuit, the circuit itself first: whether it is random, and its faithfulness."""
        import pandas

        return pandas.DataFrame({"random": [False, *[True] * len(self.shares)], "share": [self.share, *self.shares]})


def against_random(
    model: AnyModel,
    clean: PromptsLike,
    ablation: Ablation | PromptsLike,
    metric: MetricLike,
    circuit: Circuit,
    n: int = 50,
    seed: int = 0,
    places: Places | None = None,
) -> RandomCircuits:
    """Compare the faithfulness of a circuit with that of `n` random circuits of as many edges."""
    drawn = [random_circuit(circuit.graph, len(circuit), seed + i) for i in range(n)]
    own, *others = faithfulness(model, clean, ablation, metric, [circuit, *drawn], places).share.tolist()
    return RandomCircuits(own, tuple(others), (1 + sum(o >= own for o in others)) / (1 + n))


@exclusive
@torch.no_grad()
def magnitude_scores(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    metric: MetricLike,
    places: Places | PlacesBy = "anywhere",
) -> EdgeScores:
    """Score edges by the size of what they carry, as a baseline without gradients.

    The score of an edge is the mean norm of the difference between its writer's clean and corrupted outputs, summed
    over the positions of its place. It does not depend on the reader or the metric.
    """
    prepared = prepare(model, clean, corrupted, metric, places)
    edge_model, graph = prepared.edge_model, prepared.edge_model.graph
    n, ends, sizes = len(prepared.clean), torch.zeros(2, dtype=torch.float64), 0.0
    for rows in edge_model.chunks(n):
        runs = [edge_model.full_run(tokens[rows]) for tokens in prepared.tokens]
        ends += torch.stack([measure(edge_model.anatomy, end, prepared.metric, rows).double().sum() for end, _ in runs])
        sizes = sizes + (runs[0][1] - runs[1][1]).double().norm(dim=-1).sum(dim=1).cpu() / n  # [writer pos]
    assert isinstance(sizes, Tensor)
    by_place = torch.stack([sizes[:, edge_model.places.index == i].sum(dim=1) for i in range(len(graph.places))])
    values = (by_place.unsqueeze(1) * graph.possible).to(torch.float32)
    clean_mean, corrupted_mean = (ends / n).tolist()
    return EdgeScores(graph, values, "magnitude", prepared.metric.name, clean=clean_mean, corrupted=corrupted_mean)
