"""Metrics: what is measured on the logits of a run.

Each function has two forms. With a task's `Batch` first, answers are addressed by output step
(`interp.patching.step_metrics`): `logit_diff(batch, step=9)`. With text or token ids first, they are read at one
position (`interp.patching.answer_metrics`): `logit_diff(answer=" Mary", other=" John")`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from jaxtyping import Float, Int
from torch import Tensor

from interp.patching import answer_metrics, step_metrics
from interp.patching.answer_metrics import Answer, Position
from interp.patching.metric import Metric, MetricLike, UnboundMetric, bind_metric
from interp.patching.step_metrics import lead
from interp.tasks import Batch, Prompts, Role

__all__ = [
    "Metric",
    "MetricLike",
    "UnboundMetric",
    "accuracy",
    "bind_metric",
    "kl",
    "lead",
    "logit_diff",
    "margin",
    "probability",
]


@overload
def logit_diff(
    batch: Batch, step: int | None = None, against: Batch | None = None, role: Role = Role.OUTPUT
) -> Metric: ...
@overload
def logit_diff(answer: Answer, other: Answer, position: Position = -1) -> UnboundMetric: ...
def logit_diff(*args: Any, **kwargs: Any) -> MetricLike:
    """Return logit(answer) - logit(other).

    `logit_diff(batch, step=None, against=None, role=Role.OUTPUT)`: at an output step, or the mean over all steps.
    `logit_diff(answer, other, position=-1)`: answers as strings or token ids, one for all prompts or one per prompt.
    """
    return _form("logit_diff", args, kwargs)


@overload
def margin(
    batch: Batch,
    steps: Int[Tensor, " batch"],
    answers: Int[Tensor, " batch"],
    others: Int[Tensor, " batch"],
    role: Role = Role.OUTPUT,
) -> Metric: ...
@overload
def margin(answer: Answer, other: Answer | None = None, position: Position = -1) -> UnboundMetric: ...
def margin(*args: Any, **kwargs: Any) -> MetricLike:
    """Return logit(answer) - logit(other), each prompt at its own place.

    `margin(batch, steps, answers, others, role=Role.OUTPUT)`: one step and two token ids per prompt.
    `margin(answer, other=None, position=-1)`: without `other`, the largest logit of any other token.
    """
    return _form("margin", args, kwargs)


@overload
def probability(
    batch: Batch, step: int | None = None, role: Role = Role.OUTPUT, among_answers: bool = False
) -> Metric: ...
@overload
def probability(answer: Answer, position: Position = -1) -> UnboundMetric: ...
def probability(*args: Any, **kwargs: Any) -> MetricLike:
    """Return the probability of the answer.

    `probability(batch, step=None, role=Role.OUTPUT, among_answers=False)`: at an output step, or the mean over all.
    `probability(answer, position=-1)`: an answer as a string or token id, one for all prompts or one per prompt.
    """
    return _form("probability", args, kwargs)


@overload
def accuracy(
    batch: Batch, step: int | None = None, role: Role = Role.OUTPUT, among_answers: bool = False
) -> Metric: ...
@overload
def accuracy(answer: Answer, position: Position = -1) -> UnboundMetric: ...
def accuracy(*args: Any, **kwargs: Any) -> MetricLike:
    """Return the share of answers that are the most likely token.

    `accuracy(batch, step=None, role=Role.OUTPUT, among_answers=False)`: at an output step, or the mean over all.
    `accuracy(answer, position=-1)`: an answer as a string or token id, one for all prompts or one per prompt.
    """
    return _form("accuracy", args, kwargs)


@overload
def kl(
    batch: Batch,
    reference: Float[Tensor, "batch read d_vocab"] | Callable[[Int[Tensor, " row"]], Float[Tensor, "row read d_vocab"]],
    step: int | None = None,
    role: Role = Role.OUTPUT,
) -> Metric: ...
@overload
def kl(
    reference: Float[Tensor, "batch d_vocab"] | Prompts | str | list[str], position: Position = -1
) -> UnboundMetric: ...
def kl(*args: Any, **kwargs: Any) -> MetricLike:
    """Return KL(reference || patched) in nats.

    `kl(batch, reference, step=None, role=Role.OUTPUT)`: reference logits at an output step, or at all steps, or a
    function that returns those of some prompts.
    `kl(reference, position=-1)`: reference logits, or prompts whose unpatched run gives them.
    """
    second = args[1] if len(args) > 1 else kwargs.get("reference")
    if "batch" not in kwargs and (second is None or isinstance(second, int)):
        return answer_metrics.kl(*args, **kwargs)  # also of a `Batch`, whose unpatched run is the reference
    return _form("kl", args, kwargs)


def _form(name: str, args: tuple, kwargs: dict[str, Any]) -> MetricLike:
    """Call the step form if the first argument is a `Batch`, else the answer form."""
    by_step = "batch" in kwargs or (bool(args) and isinstance(args[0], Batch))
    return getattr(step_metrics if by_step else answer_metrics, name)(*args, **kwargs)
