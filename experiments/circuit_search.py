"""How is a circuit searched in a run, and what is it put to the test with?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from interp.circuits import (
    Ablation,
    Circuit,
    EdgeScores,
    Faithfulness,
    acdc,
    against_random,
    circuit_from_json,
    completeness,
    curve,
    edge_scores,
    exact_edge_scores,
    faithfulness,
    greedy,
    minimality,
    top_n,
)
from interp.models import Run, read_json
from interp.patching import Metric, accuracy, logit_diff
from interp.support.writing import write_tensors, write_whole
from interp.tasks import Batch, Role, counterfactual

if TYPE_CHECKING:
    from experiments.commands.circuit import CircuitCommand as Options

T = TypeVar("T")
# Prompts that ACDC cuts edges on; more of them hold more memory, and each cut costs a run of all.
ACDC_PROMPTS = 16
# Seeds of the prompts: those that a circuit is searched on, those that it is weighed on, and further searches.
WEIGHED, FURTHER = 500, 700
REFERENCE = 900
RANDOM, HALVES = 50, 10


@dataclass(frozen=True, eq=False)
class Pair:
    """Prompts, their twins with everything redrawn, and what is measured on them."""

    clean: Batch
    corrupted: Batch
    metric: Metric

    def first(self, n: int) -> Pair:
        """The first n prompts."""
        clean, corrupted = (b.rows(slice(0, n)) for b in (self.clean, self.corrupted))
        return Pair(clean, corrupted, metric_of(clean, corrupted))


@dataclass(frozen=True, eq=False)
class Found:
    """A circuit, and the scores of all edges that it was chosen by."""

    scores: EdgeScores
    circuit: Circuit


def pair(run: Run, options: Options, length: int | tuple[int, int], seed: int) -> Pair:
    """Prompts of a seed, each with another random prompt of the same layout, its input labels in another order.

    Ordinary prompts cite their labels in order, all of them: between two of those, addresses do not differ.
    """
    clean = run.sample(options.prompts, length, seed)
    corrupted = counterfactual.redraw(clean, seed + 100)
    if options.reorder == "yes" or (options.reorder == "auto" and orderable(clean)):
        corrupted = counterfactual.reorder_labels(corrupted, seed + 100)
    return Pair(clean, corrupted, metric_of(clean, corrupted))


def orderable(batch: Batch) -> bool:
    """Whether input labels are there, and one can be told from another."""
    labels = batch.role == Role.INPUT_LABEL
    return bool(labels.any()) and len(batch.tokens[:, labels].unique()) > 1


def metric_of(clean: Batch, corrupted: Batch) -> Metric:
    """The margin of the answers: over the other symbol, or where there are more than two, over the twin's answer."""
    return logit_diff(clean, against=None if len(clean.format.outputs) == 2 else corrupted)


def bar(what: str):  # type: ignore[no-untyped-def]
    """A progress bar for the library's loops."""
    from experiments.support.progress import progress_bar

    def progress(items: Iterable[T]) -> Iterable[T]:
        return progress_bar(items, desc=what)

    return progress


def search(run: Run, options: Options, length: int | tuple[int, int], seed: int, work: Path) -> Found:
    """Scores, the edges that they choose, and of those the ones that are needed; each kept on disk once it is done."""
    here = pair(run, options, length, seed)
    scores = _scores(run, options, here, work / f"scores-{seed}.safetensors", f"scores, seed {seed}")
    n = max(1, round(options.share * len(scores.graph)))
    chosen = greedy(scores, n) if options.select == "greedy" else top_n(scores, n)
    if not options.prune or not len(chosen):
        return Found(scores, chosen)
    path = work / f"circuit-{seed}.json"
    if path.is_file():
        return Found(scores, circuit_from_json(read_json(path)))
    few = here.first(ACDC_PROMPTS)
    progress = bar(f"pruning, seed {seed}")
    circuit = acdc(run.raw, few.clean, few.corrupted, few.metric, options.prune, chosen, progress=progress)
    write_whole(path, json.dumps(circuit.to_json()))
    return Found(scores, circuit)


def _scores(run: Run, options: Options, here: Pair, path: Path, what: str) -> EdgeScores:
    from safetensors import SafetensorError, safe_open

    from interp.circuits.pairs import prepare

    graph = prepare(run.raw, here.clean, here.corrupted, here.metric, options.places, check=False).edge_model.graph
    if path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                rest = json.loads(file.metadata()["rest"])
                return EdgeScores(graph, file.get_tensor("values"), **rest)
        except (SafetensorError, ValueError, TypeError, LookupError) as error:
            raise ValueError(f"{path} is damaged: {error!r}; remove it") from error
    args = (run.raw, here.clean, here.corrupted, here.metric)
    match options.method:
        case "exact-noise" | "exact-denoise":
            direction = "noise" if options.method == "exact-noise" else "denoise"
            found = exact_edge_scores(*args, direction, options.places, bar(what))
        case method:
            found = edge_scores(*args, method, options.points, options.places, bar(what))
    rest = {name: getattr(found, name) for name in ("method", "metric", "clean", "corrupted", "details")}
    write_tensors(path, {"values": found.values}, {"rest": json.dumps(rest)})
    return found


def gap_of(scores: EdgeScores) -> float | None:
    """What integrated gradients miss of the metric's difference, as a share of it; None for other scores."""
    gap = scores.details.get("gap")
    return None if gap is None else gap / (scores.clean - scores.corrupted)


def weigh(run: Run, found: Found, options: Options, length: int | tuple[int, int]) -> dict:
    """What the circuit is worth on fresh prompts: by ablation, beside random ones, and part by part."""
    there = pair(run, options, length, options.seed + WEIGHED)
    reference = run.sample(options.prompts, length, options.seed + REFERENCE)
    ablations = {
        "corrupted": Ablation("corrupted", there.corrupted),
        "resample": Ablation("resample", reference, options.seed),
        "mean": Ablation("mean", reference),
    }
    by_ablation = {}
    for name, ablation in ablations.items():
        by_ablation[name] = _worth(run.raw, there.clean, ablation, there, found.circuit)
    few = there.first(ACDC_PROMPTS)
    lines = {
        how: curve(run.raw, there.clean, there.corrupted, there.metric, found.scores, selected=how)
        for how in (options.select, "random")
    }
    rest = (run.raw, few.clean, few.corrupted, few.metric, found.circuit)
    drawn = against_random(*rest, RANDOM, options.seed)
    whole = completeness(*rest, HALVES, options.seed)
    return {
        "ablations": by_ablation,
        "curves": {
            how: {
                "shares": list(c.shares),
                "sizes": list(c.sizes),
                **_numbers(c.faithfulness),
                "cpr": c.cpr,
                "cmd": c.cmd,
                "smallest_with_0.9": c.smallest(0.9),
            }
            for how, c in lines.items()
        },
        "random": {"p": drawn.p, "largest": max(drawn.shares), "mean": sum(drawn.shares) / RANDOM, "n": RANDOM},
        "completeness": {
            "complement": whole.complement,
            "mean_gap": sum(whole.gaps) / HALVES,
            "largest_gap": max(whole.gaps),
        },
        "minimality": [{"edge": str(edge), "loss": loss} for edge, loss in minimality(*rest)],
    }


def at_length(run: Run, circuit: Circuit, options: Options, length: int | tuple[int, int]) -> dict:
    """The circuit on prompts of a length, as it is."""
    there = pair(run, options, length, options.seed + WEIGHED)
    return _worth(run.raw, there.clean, Ablation("corrupted", there.corrupted), there, circuit)


def _worth(raw: Any, clean: Batch, ablation: Ablation, there: Pair, circuit: Circuit) -> dict:
    """Faithfulness of the margin, and step accuracy of the circuit and of the full model."""
    margin = faithfulness(raw, clean, ablation, there.metric, circuit)
    steps = faithfulness(raw, clean, ablation, accuracy(clean), circuit)
    ratio = {name: values[0] for name, values in _numbers(margin).items()}
    return {
        **ratio,
        "accuracy": float(steps.values.mean()),
        "accuracy_full": float(steps.full.mean()),
        "accuracy_empty": float(steps.empty.mean()),
        "margin_full": float(margin.full.mean()),
        "margin_empty": float(margin.empty.mean()),
    }


def _numbers(found: Faithfulness) -> dict[str, list[float]]:
    low, high = (_plain(x) for x in found.interval().unbind(dim=-1))
    return {"values": _plain(found.share), "low": low, "high": high}


def _plain(x: Tensor) -> list[float]:
    return torch.as_tensor(x).double().tolist()
