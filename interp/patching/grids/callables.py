"""Metrics of grids: functions of all logits, as TransformerLens takes them, and declared metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from interp.models.resolve import AnyModel
from interp.patching.metric import Metric, MetricLike, UnboundMetric, bind_metric
from interp.tasks import Prompts

# Takes logits `[batch pos d_vocab]`; returns a scalar under reduce="scalar", else `[batch]`.
MetricFunction = Callable[[Tensor], Tensor | float]
GridMetric = MetricFunction | MetricLike
Reduce = Literal["scalar", "mean", "none"]


@dataclass(frozen=True, eq=False)
class BoundMetric:
    """A metric of these prompts. A callable sees the whole batch at once; a declared metric sees any part of it."""

    metric: Metric
    whole_batch: bool


def bind_metrics(
    metrics: GridMetric | Mapping[str, GridMetric], model: AnyModel, prompts: Prompts, reduce: str
) -> dict[str, BoundMetric]:
    """Return the metrics by name; a single one is called "metric".

    Raises `ValueError` for an unknown `reduce`, an empty mapping, and anything that is not a metric.
    """
    if reduce not in get_args(Reduce):
        raise ValueError(f"reduce must be one of {', '.join(get_args(Reduce))}; got {reduce!r}")
    named = metrics if isinstance(metrics, Mapping) else {"metric": metrics}
    if not named:
        raise ValueError("the mapping of metrics is empty; give at least one")
    return {name: _bound(name, metric, model, prompts, reduce) for name, metric in named.items()}


def _bound(name: str, metric: GridMetric, model: AnyModel, prompts: Prompts, reduce: str) -> BoundMetric:
    if isinstance(metric, Metric | UnboundMetric):
        return BoundMetric(bind_metric(metric, model, prompts), whole_batch=False)
    if not callable(metric):
        raise ValueError(
            f"{name} must be a function of logits [batch pos d_vocab] or a metric such as "
            f"logit_diff(answer=' Mary', other=' John'); got {type(metric).__name__}"
        )
    _hint()
    return BoundMetric(_of_all_logits(name, metric, prompts, reduce), whole_batch=True)


@cache
def _hint() -> None:
    warnings.warn(
        "a callable metric needs the logits of all positions; a declared metric, such as "
        "interp.logit_diff(answer=' Mary', other=' John'), unembeds only what it reads and is faster",
        stacklevel=6,
    )


def _of_all_logits(name: str, function: MetricFunction, prompts: Prompts, reduce: str) -> Metric:
    """Return a metric that calls `function` once per patched run. A scalar is repeated for every prompt."""
    n = len(prompts)

    def value(logits: Tensor) -> Tensor:
        out = torch.as_tensor(function(logits)).detach().to(logits.device)
        expected = () if reduce == "scalar" else (n,)
        if tuple(out.shape) != expected:
            raise ValueError(
                f"{name} must return {'a scalar' if reduce == 'scalar' else f'[batch] = [{n}]'} under "
                f"reduce={reduce!r}; got {tuple(out.shape)}"
            )
        return out.expand(n)

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        assert len(rows) == n, "a callable metric sees the whole batch"
        runs = logits.reshape(-1, *logits.shape[-3:])
        return torch.stack([value(run) for run in runs]).reshape(logits.shape[:-2])

    return Metric(name, torch.arange(prompts.n_pos), compute)
