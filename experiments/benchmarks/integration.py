"""Benchmark: integration error of EAP-IG's edge scores at few points, by our rule and by the even one of EAP-IG's code.

The error of a rule at n points is the largest difference of an edge's score from the limit, as a share of the largest
score. Both rules have the same limit, which is ours at many points; the errors at `NEAR` points show how well it is
known. Seconds include the second n points that our rule takes where the first do not add up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from torch import Tensor

from experiments.benchmarks.scaling import seconds_of
from experiments.benchmarks.small_models import family_model
from interp.circuits import edge_scores
from interp.models import load
from interp.patching import logit_diff
from interp.tasks import counterfactual, sample

# Points at which errors are measured and timed; points at which both rules must be near the limit; points of the limit.
POINTS = (5, 32)
NEAR = 256
LIMIT = 512
RULES = ("adaptive", "even")


@dataclass(frozen=True)
class IntegrationCase:
    """One row: a shipped run by name, or the family of a model with random weights, and pairs of unrelated prompts."""

    run: str
    bits: int
    prompts: int = 4

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return f"integration-{self.run}-{self.bits}"

    @property
    def is_trained(self) -> bool:
        """Whether `run` names a shipped run."""
        return "-" in self.run


DEFAULT = (
    IntegrationCase("parity-aligned-alibi", 8),
    IntegrationCase("parity-scratchpad-alibi", 8),
    IntegrationCase("absolute", 8),
    IntegrationCase("rotary", 8),
)


def run_case(case: IntegrationCase, rounds: int) -> dict:
    """Return the error of each rule at each number of points, the error of the limit, and seconds, medians."""
    model, clean = model_and_prompts(case)
    corrupted = counterfactual.redraw(clean, seed=1)
    metric = logit_diff(clean)

    def scores(rule: Any, n: int) -> Tensor:
        return edge_scores(model, clean, corrupted, metric, "eap-ig-inputs", n, points=rule).values.double()

    limit = scores("adaptive", LIMIT)
    largest = float(limit.abs().max())
    errors = {
        rule: {str(n): float((scores(rule, n) - limit).abs().max()) / largest for n in (*POINTS, NEAR)}
        for rule in RULES
    }
    times: dict[str, dict[str, list[float]]] = {rule: {str(n): [] for n in POINTS} for rule in RULES}
    for _ in range(rounds):
        for rule in RULES:
            for n in POINTS:
                spent = seconds_of(lambda rule=rule, n=n: scores(rule, n), model.device.type)
                times[rule][str(n)].append(spent)
    return {
        "case": asdict(case),
        "tokens": clean.n_pos,
        "limit_points": LIMIT,
        "error": errors,
        "seconds": {rule: {n: median(found) for n, found in by_points.items()} for rule, by_points in times.items()},
    }


def model_and_prompts(case: IntegrationCase) -> tuple[Any, Any]:
    """Return the model of a row and its clean prompts."""
    if case.is_trained:
        run = load(case.run)
        return run.raw, run.sample(case.prompts, case.bits, seed=0)
    model = family_model(case.run, 4, 128, 4)
    return model, sample("parity-aligned", case.prompts, case.bits, seed=0)
