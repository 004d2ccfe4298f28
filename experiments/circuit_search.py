"""Searches a circuit in a run and evaluates it on fresh prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from interp.circuits import (
    Ablation,
    Circuit,
    EdgeScores,
    Faithfulness,
    Validity,
    acdc,
    against_random,
    check_validity,
    circuit_from_json,
    completeness,
    curve,
    faithfulness,
    greedy,
    minimality,
    top_n,
)
from interp.circuits.keeping import load_or_score
from interp.models import Run
from interp.patching import Metric, accuracy, logit_diff
from interp.support.writing import read_digested, write_digested
from interp.tasks import Batch, Role, counterfactual

T = TypeVar("T")
# Number of prompts for ACDC: every trial runs all of them.
ACDC_PROMPTS = 16
# Added to the seed for the prompts of the evaluation, of the reference (resample, mean), and of repeated searches.
EVALUATION, REFERENCE, REPEATS = 500, 900, 700
# Number of random circuits, and of random halves for completeness.
RANDOM, HALVES = 50, 10


@dataclass(frozen=True)
class SearchOptions:
    """How a circuit is searched; the fields are options of `mnemoscope circuit`."""

    method: Literal[
        "eap", "eap-clean", "eap-ig-inputs", "eap-ig-activations", "eap-ig-writers", "exact-noise", "exact-denoise"
    ] = "eap-ig-inputs"
    points: int = 16
    reorder: Literal["auto", "yes", "no"] = "auto"
    places: Literal["role", "anywhere"] = "role"
    select: Literal["greedy", "top"] = "greedy"
    share: float = 0.1
    prune: float = 0.003
    prompts: int = 32
    seed: int = 0


@dataclass(frozen=True, eq=False)
class PromptPair:
    """Clean prompts, corrupted prompts, and the metric."""

    clean: Batch
    corrupted: Batch
    metric: Metric

    def first(self, n: int) -> PromptPair:
        """Return the first n pairs."""
        clean, corrupted = (b.rows(slice(0, n)) for b in (self.clean, self.corrupted))
        return PromptPair(clean, corrupted, _metric(clean, corrupted))


@dataclass(frozen=True, eq=False)
class ScoredCircuit:
    """A circuit, and the scores of all edges from which it was selected."""

    scores: EdgeScores
    circuit: Circuit


def sample_pair(run: Run, options: SearchOptions, length: int | tuple[int, int], seed: int) -> PromptPair:
    """Return prompts of a seed, each with another random prompt of the same layout as its corrupted prompt.

    Ordinary prompts cite all their labels in order, so addresses would not differ between them: where labels can be
    told apart, the input labels of corrupted prompts are shuffled.
    """
    clean = run.sample(options.prompts, length, seed)
    corrupted = counterfactual.redraw(clean, seed + 100)
    if options.reorder == "yes" or (options.reorder == "auto" and _has_distinct_labels(clean)):
        corrupted = counterfactual.reorder_labels(corrupted, seed + 100)
    return PromptPair(clean, corrupted, _metric(clean, corrupted))


def measure_validity(run: Run, options: SearchOptions, length: int | tuple[int, int]) -> Validity:
    """Measure competence and the difference between clean and corrupted on the prompts of the evaluation."""
    pair = sample_pair(run, options, length, options.seed + EVALUATION)
    right = accuracy(pair.clean, among_answers=True)
    chance = 1 / len(pair.clean.format.outputs)
    return check_validity(run, pair.clean, pair.corrupted, pair.metric, right, chance)


def search(run: Run, options: SearchOptions, length: int | tuple[int, int], seed: int, work: Path) -> ScoredCircuit:
    """Score edges, select some, and prune those that are not needed. Scores and circuit are kept in `work`."""
    pair = sample_pair(run, options, length, seed)
    progress = partial(progress_of, f"scores, seed {seed}")
    arguments = (run, pair.clean, pair.corrupted, pair.metric)
    scores = load_or_score(work, arguments, options.method, options.points, options.places, progress, seed)
    n = max(1, round(options.share * len(scores.graph)))
    selected = greedy(scores, n) if options.select == "greedy" else top_n(scores, n)
    if not options.prune or not len(selected):
        return ScoredCircuit(scores, selected)
    path = work / f"circuit-{seed}.json"
    if (kept := read_digested(path)) is not None:
        return ScoredCircuit(scores, circuit_from_json(json.loads(kept)))
    few, progress = pair.first(ACDC_PROMPTS), progress_of(f"pruning, seed {seed}")
    circuit = acdc(run, few.clean, few.corrupted, few.metric, options.prune, selected, progress=progress, keep=work)
    write_digested(path, json.dumps(circuit.to_json()))
    return ScoredCircuit(scores, circuit)


def integration_gap(scores: EdgeScores) -> float | None:
    """Return the error of integrated gradients as a share of the metric's difference; None for other scores."""
    gap = scores.details.get("gap")
    return None if gap is None else gap / (scores.clean - scores.corrupted)


def evaluate(run: Run, found: ScoredCircuit, options: SearchOptions, length: int | tuple[int, int]) -> dict:
    """Evaluate a circuit on fresh prompts: by ablation, by size, beside random circuits, and edge by edge."""
    pair = sample_pair(run, options, length, options.seed + EVALUATION)
    reference = run.sample(options.prompts, length, options.seed + REFERENCE)
    ablations = {
        "corrupted": Ablation("corrupted", pair.corrupted),
        "resample": Ablation("resample", reference, options.seed),
        "mean": Ablation("mean", reference),
        "zero": Ablation("zero"),
    }
    by_ablation = {name: _circuit_numbers(run, pair, ablation, found.circuit) for name, ablation in ablations.items()}
    curves = {
        selected: curve(run, pair.clean, pair.corrupted, pair.metric, found.scores, selected=selected)
        for selected in (options.select, "random")
    }
    few = pair.first(ACDC_PROMPTS)
    arguments = (run, few.clean, few.corrupted, few.metric, found.circuit)
    random = against_random(*arguments, RANDOM, options.seed)
    complete = completeness(*arguments, HALVES, options.seed)
    return {
        "ablations": by_ablation,
        "curves": {
            selected: {
                "shares": list(c.shares),
                "sizes": list(c.sizes),
                **_share_numbers(c.faithfulness),
                "cpr": c.cpr,
                "cmd": c.cmd,
                "smallest_with_0.9": c.smallest(0.9),
            }
            for selected, c in curves.items()
        },
        "random": {"p": random.p, "largest": max(random.shares), "mean": sum(random.shares) / RANDOM, "n": RANDOM},
        "completeness": {
            "complement": complete.complement,
            "mean_gap": sum(complete.gaps) / HALVES,
            "largest_gap": max(complete.gaps),
        },
        "minimality": [{"edge": str(edge), "loss": loss} for edge, loss in minimality(*arguments)],
    }


def at_length(run: Run, circuit: Circuit, options: SearchOptions, length: int | tuple[int, int]) -> dict:
    """Evaluate the same circuit on prompts of another length."""
    pair = sample_pair(run, options, length, options.seed + EVALUATION)
    return _circuit_numbers(run, pair, Ablation("corrupted", pair.corrupted), circuit)


def _has_distinct_labels(batch: Batch) -> bool:
    """Return whether prompts have input labels, and more than one of them."""
    labels = batch.role == Role.INPUT_LABEL
    return bool(labels.any()) and len(batch.tokens[:, labels].unique()) > 1


def _metric(clean: Batch, corrupted: Batch) -> Metric:
    """Return the margin of the answer over the other output symbol; with more than two, over the corrupted answer."""
    return logit_diff(clean, against=None if len(clean.format.outputs) == 2 else corrupted)


def progress_of(what: str):  # type: ignore[no-untyped-def]
    """Return a progress bar for the library's loops."""
    from experiments.support.progress import progress_bar

    def progress(items: Iterable[T]) -> Iterable[T]:
        return progress_bar(items, desc=what)

    return progress


def _circuit_numbers(run: Run, pair: PromptPair, ablation: Ablation, circuit: Circuit) -> dict:
    """Return faithfulness of the margin, and step accuracy of the circuit, the full model and the empty circuit."""
    margin = faithfulness(run, pair.clean, ablation, pair.metric, circuit)
    steps = faithfulness(run, pair.clean, ablation, accuracy(pair.clean), circuit)
    return {
        **{name: values[0] for name, values in _share_numbers(margin).items()},
        "accuracy": float(steps.values.mean()),
        "accuracy_full": float(steps.full.mean()),
        "accuracy_empty": float(steps.empty.mean()),
        "margin_full": float(margin.full.mean()),
        "margin_empty": float(margin.empty.mean()),
    }


def _share_numbers(measured: Faithfulness) -> dict[str, list[float]]:
    low, high = (_to_list(x) for x in measured.interval().unbind(dim=-1))
    return {"values": _to_list(measured.share), "low": low, "high": high}


def _to_list(x: Tensor) -> list[float]:
    return torch.as_tensor(x).double().tolist()
