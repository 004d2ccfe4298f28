"""Whether pairs of prompts can support a circuit: the model is competent, and clean differs from corrupted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.evaluation import LEAST_GAP
from interp.circuits.pairs import prepare
from interp.models.resolve import AnyModel
from interp.patching.editing import measure
from interp.patching.metric import Metric, MetricLike, bind_metric
from interp.tasks import Prompts

LEVEL = 0.95


@dataclass(frozen=True)
class Validity:
    """The metric on clean and corrupted prompts, and the model's accuracy on the clean ones.

    `clean`, `corrupted`: means over prompts. `positive`: share of clean prompts with a metric above 0; for a logit
    difference, how often the answer is preferred. `difference`: 95 % interval of clean - corrupted over prompts, None
    for one prompt. `accuracy`: mean and 95 % interval (Wilson's where each prompt is right or wrong), None where
    none was measured. `chance`: its chance level. `reason`: why no circuit should be read off these prompts; None where
    nothing speaks against it.
    """

    clean: float
    corrupted: float
    positive: float
    difference: tuple[float, float] | None
    accuracy: tuple[float, float, float] | None
    chance: float
    n: int
    reason: str | None

    @property
    def valid(self) -> bool:
        """Whether nothing speaks against a circuit."""
        return self.reason is None

    def __str__(self) -> str:
        measured = f"metric {self.clean:.3g} on clean prompts, {self.corrupted:.3g} on corrupted"
        if self.accuracy is not None:
            measured += f"; accuracy {self.accuracy[0]:.3f} (chance {self.chance:.3g})"
        return measured if self.reason is None else f"INVALID: {self.reason} ({measured})"

    def to_json(self) -> dict:
        """Return a plain dictionary with `valid`, `reason` and the measured numbers."""
        return {"valid": self.valid, **asdict(self)}


@exclusive
@torch.no_grad()
def check_validity(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    metric: MetricLike,
    accuracy: MetricLike | None = None,
    chance: float = 0.0,
) -> Validity:
    """Measure whether a circuit for this metric can be meaningful on these pairs. Runs no circuit.

    Invalid are pairs whose clean metric is not above the corrupted one, whose difference has a 95 % interval over
    prompts that includes 0, and (with `accuracy`, a metric) models whose accuracy on clean prompts is not above
    `chance`. Raises as `faithfulness`.

    >>> check_validity(run, clean, corrupted, logit_diff(clean), accuracy(clean, among_answers=True), chance=0.5).valid
    True
    """
    prepared = prepare(model, clean, corrupted, metric, "anywhere")
    own, other = (_values(prepared.edge_model, p, prepared.metric) for p in (prepared.clean, prepared.corrupted))
    right = None
    if accuracy is not None:
        right = _values(prepared.edge_model, prepared.clean, bind_metric(accuracy, model, prepared.clean))
    return validity_of_values(own, other, right, chance)


def validity_of_values(
    own: Float[Tensor, " batch"],
    other: Float[Tensor, " batch"],
    right: Float[Tensor, " batch"] | None = None,
    chance: float = 0.0,
    separated: Literal["interval", "mean", "any"] = "interval",
) -> Validity:
    """Return the validity of pairs whose metric on clean and corrupted prompts is known.

    `right`: accuracy per clean prompt, None where none was measured. `separated`: how clean must be above corrupted: by
    an interval over prompts, in the mean, or in any way, so that the accuracy alone decides.
    """
    difference = _interval(own - other)
    accurate = None
    if right is not None:
        accurate = (float(right.mean()), *_share_interval(right))
    means = float(own.mean()), float(other.mean())
    return Validity(
        clean=means[0],
        corrupted=means[1],
        positive=float((own > 0).double().mean()),
        difference=difference,
        accuracy=accurate,
        chance=chance,
        n=len(own),
        reason=_inaccurate(accurate, chance)
        or (None if separated == "any" else _alike(means, difference if separated == "interval" else None, len(own))),
    )


def _values(edge_model: EdgeModel, prompts: Prompts, metric: Metric) -> Float[Tensor, " batch"]:
    values = []
    for rows in edge_model.chunks(len(prompts)):
        final, _ = edge_model.full_run(prompts.tokens[rows])
        values.append(measure(edge_model.anatomy, final, metric, rows).double())
    return torch.cat(values)


def _interval(values: Float[Tensor, " batch"]) -> tuple[float, float] | None:
    """Return the interval of the mean over prompts by Student's t; None for one prompt."""
    n = len(values)
    if n < 2:
        return None
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(values.std(correction=1)) / n**0.5
    return float(values.mean()) - half, float(values.mean()) + half


def _share_interval(right: Float[Tensor, " batch"]) -> tuple[float, float]:
    """Return the interval of an accuracy, within 0 and 1: Wilson's for prompts that are right or wrong.

    A prompt of several answers can be right in part; where one is, the interval is Student's t.
    """
    if bool(((right == 0) | (right == 1)).all()):
        found = stats.binomtest(int(right.sum()), len(right)).proportion_ci(LEVEL, method="wilson")
        return float(found.low), float(found.high)
    low, high = _interval(right) or (float(right.mean()), float(right.mean()))
    return max(low, 0.0), min(high, 1.0)


def _inaccurate(accuracy: tuple[float, float, float] | None, chance: float) -> str | None:
    if accuracy is None or accuracy[1] > chance:
        return None
    mean, low, high = accuracy
    # With every answer right, only the number of prompts can be at fault.
    why = (
        "there are too few prompts to show that the model does the task"
        if mean == 1
        else "the model cannot do the task"
    )
    return f"{why}: accuracy {mean:.3f} [{low:.3f}, {high:.3f}] is not above {chance:.3g}"


def _alike(means: tuple[float, float], difference: tuple[float, float] | None, n: int) -> str | None:
    clean, corrupted = means
    if abs(clean - corrupted) <= LEAST_GAP:
        return f"the metric is {clean:.3g} on clean and on corrupted prompts: nothing separates them"
    if clean < corrupted:
        return f"the metric is lower on clean prompts ({clean:.3g}) than on corrupted ones ({corrupted:.3g})"
    if difference is not None and difference[0] <= 0:
        low, high = difference
        return (
            f"nothing separates clean from corrupted prompts: the metric differs by {clean - corrupted:.3g} "
            f"[{low:.3g}, {high:.3g}] over {n} prompts"
        )
    return None
