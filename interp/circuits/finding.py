"""Finds a circuit in one call: validity, edge scores, selection, pruning, faithfulness and baselines."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, pair_of
from interp.circuits.baselines import RandomCircuits, against_random, magnitude_scores
from interp.circuits.circuit import Circuit
from interp.circuits.evaluation import LEAST_GAP, Faithfulness, faithfulness, overlap
from interp.circuits.keeping import load_or_score, rounded
from interp.circuits.pairs import Progress
from interp.circuits.places import Places, PlacesBy
from interp.circuits.scores import EdgeScores
from interp.circuits.scoring import Method
from interp.circuits.selecting import acdc, greedy, top_n
from interp.circuits.validity import Validity, check_validity
from interp.models.resolve import AnyModel
from interp.patching.metric import Metric, MetricLike, bind_metric
from interp.tasks import Prompts
from interp.views.shown import Shown

if TYPE_CHECKING:
    import networkx
    import pandas

# Fewest prompts that are split into a half for the search and a half for the evaluation.
SPLIT_FROM = 4
# Prompts on which edges are pruned: every trial runs all of them.
PRUNE_PROMPTS = 16


@dataclass(frozen=True, eq=False)
class CircuitSearch(Shown):
    """A circuit, how it was found, and how faithful it is.

    `faithfulness` holds the circuit and, second, the best circuit of the same size by the magnitude of what edges
    carry, without gradients. `random` compares it with random circuits. `held_out` says whether these were measured on
    other prompts than the search; `stability` is the overlap (Jaccard) with the circuit found on those other prompts,
    both before pruning. `validity` says whether the numbers mean anything.
    """

    circuit: Circuit
    scores: EdgeScores
    validity: Validity
    faithfulness: Faithfulness
    random: RandomCircuits | None
    held_out: bool
    stability: float | None

    @property
    def share(self) -> float | None:
        """Faithfulness of the circuit; None where the full model and the empty circuit do not differ."""
        return float(self.faithfulness.share[0]) if self._has_share else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of `share` over prompts; None for one prompt."""
        if not self._has_share or len(self.faithfulness.full) < 2:
            return None
        low, high = self.faithfulness.interval()[0].tolist()
        return low, high

    @property
    def _has_share(self) -> bool:
        return abs(float((self.faithfulness.full - self.faithfulness.empty).mean())) > LEAST_GAP

    def __repr__(self) -> str:
        return f"CircuitSearch({self.summary()})"

    def summary(self) -> str:
        """Return one line: validity, size, faithfulness with its interval, and the baselines."""
        parts = [] if self.validity.valid else [f"INVALID: {self.validity.reason}"]
        parts.append(f"{len(self.circuit)} of {len(self.circuit.graph)} edges")
        if self.share is not None:
            interval = "" if self.interval is None else " [{:.3f}, {:.3f}]".format(*self.interval)
            where = "held-out prompts" if self.held_out else "the prompts of the search"
            parts.append(f"faithfulness {self.share:.3f}{interval} on {where}")
            parts.append(f"by magnitude {float(self.faithfulness.share[1]):.3f}")
        if self.random is not None:
            parts.append(f"random p {self.random.p:.3f}")
        return "; ".join(parts)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per edge of the circuit: writer, reader, place, score."""
        import pandas

        rows = [(str(e.writer), str(e.reader), e.place, score) for e, score in self.circuit.edges()]
        return pandas.DataFrame(rows, columns=["writer", "reader", "place", "score"])

    def to_networkx(self) -> networkx.MultiDiGraph:
        """Return the circuit as a graph that `interp.views.circuit` draws, titled with its numbers."""
        graph = self.circuit.to_networkx()
        graph.graph["n_layers"] = sum(w.kind == "mlp" for w in self.circuit.graph.writers)
        graph.graph["title"] = f"circuit for {self.scores.metric}"
        graph.graph["subtitle"] = self.summary()
        return graph


@exclusive
def find_circuit(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    metric: MetricLike,
    *,
    method: Method | Literal["exact-noise", "exact-denoise"] = "eap-ig-inputs",
    points: int = 16,
    places: Places | PlacesBy = "anywhere",
    select: Literal["greedy", "top"] = "greedy",
    share: float = 0.1,
    threshold: float = 0.003,
    accuracy: MetricLike | None = None,
    chance: float = 0.0,
    n_random: int = 50,
    seed: int = 0,
    progress: Callable[[str], Progress] = lambda part: iter,
    keep: Path | str | None = None,
) -> CircuitSearch:
    """Find the circuit that computes a metric, and measure it.

    Edges are scored by `method`; `share` of them are selected; those that ACDC can remove at `threshold` (a share of
    the full effect, 0 for no pruning) are removed by exact runs. With four or more pairs, the search uses the first
    half and everything else the second half. Edges outside the circuit carry the corrupted prompts' activations.

    The competence of the model is measured first (`check_validity`, with `accuracy` and its `chance`). Invalid pairs
    give a warning, and the result says INVALID beside its numbers. Repeated pairs give a warning too. The model is left
    as it was.

    Pruning takes minutes to hours. `progress` returns, for the name of a part, a function that wraps its loop as
    tqdm does. `keep` is a folder for unfinished work, from which a call with the same arguments goes on: after the
    last scores that are complete, or amid pruning, which is written every 20 seconds and at an exception. Searches may
    share the folder; the caller removes it.

    >>> found = find_circuit(run, clean, corrupted, logit_diff(answer=" Mary", other=" John"))
    >>> views.circuit(found.to_networkx())
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1; got {share}")
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be 0 or more, and finite; got {threshold}")
    if not 0 <= chance < 1:
        raise ValueError(f"chance must be at least 0 and below 1; got {chance}")
    if select not in ("greedy", "top"):
        raise ValueError(f"select must be greedy or top; got {select!r}")
    one, other = pair_of(model, clean, corrupted)
    pairs = torch.cat([one.tokens, other.tokens], dim=1)
    if repeated := len(pairs) - len(pairs.unique(dim=0)):
        warnings.warn(
            f"{repeated} of {len(pairs)} pairs repeat others: they count as new, also as held out", stacklevel=3
        )
    bound = bind_metric(metric, model, one)
    validity = check_validity(model, one, other, bound, accuracy, chance)
    if not validity.valid:
        warnings.warn(f"the circuit will be invalid: {validity.reason}", stacklevel=3)
    held_out = len(one) >= SPLIT_FROM
    n_search = (len(one) + 1) // 2 if held_out else len(one)
    search = _Half(one, other, bound, torch.arange(n_search))
    test = _Half(one, other, bound, torch.arange(n_search, len(one))) if held_out else search

    if (folder := None if keep is None else Path(keep)) is not None and folder.is_file():
        raise ValueError(f"keep must be a folder; {folder} is a file")

    def scored(half: _Half, name: str) -> EdgeScores:
        values = torch.tensor([validity.clean, validity.corrupted])
        key = [method, points, bound.name, rounded(values), half.clean.tokens.tolist(), half.corrupted.tokens.tolist()]
        return load_or_score(folder, (model, *half.arguments), method, points, places, partial(progress, name), key)

    def selected(scores: EdgeScores, n: int) -> Circuit:
        return greedy(scores, n) if select == "greedy" else top_n(scores, n)

    scores = scored(search, "scores")
    n_edges = max(1, round(share * len(scores.graph)))
    circuit = selected(scores, n_edges)
    stability = _overlap(circuit, selected(scored(test, "scores of the other half"), n_edges)) if held_out else None
    where = places if isinstance(places, Places) else None
    if threshold and len(circuit):
        few = _Half(search.clean, search.corrupted, search.metric, torch.arange(min(len(search.clean), PRUNE_PROMPTS)))
        circuit = acdc(model, *few.arguments, threshold, circuit, where, progress("pruning"), folder)
    magnitude = selected(magnitude_scores(model, *search.arguments, places), max(1, len(circuit)))
    measured = faithfulness(model, *test.arguments, [circuit, magnitude], where)
    has_gap = abs(float((measured.full - measured.empty).mean())) > LEAST_GAP
    random = against_random(model, *test.arguments, circuit, n_random, seed, where) if n_random and has_gap else None
    return CircuitSearch(
        circuit=circuit,
        scores=scores,
        validity=validity,
        faithfulness=measured,
        random=random,
        held_out=held_out,
        stability=stability,
    )


class _Half:
    """Some of the pairs, with the metric of just these."""

    def __init__(self, clean: Prompts, corrupted: Prompts, metric: Metric, index: Int[Tensor, " row"]) -> None:
        self.clean, self.corrupted = clean.rows(index), corrupted.rows(index)
        self.metric = Metric(metric.name, metric.positions, lambda logits, rows: metric.compute(logits, index[rows]))

    @property
    def arguments(self) -> tuple[Prompts, Prompts, Metric]:
        """Clean prompts, corrupted prompts and metric, as functions of circuits take them."""
        return self.clean, self.corrupted, self.metric


def _overlap(first: Circuit, second: Circuit) -> float:
    return overlap(first, second) if len(first) or len(second) else 0.0
