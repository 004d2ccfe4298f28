"""Prepares a model, prompts and a metric for circuit analysis, and checks them before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, prompts_of, require_same_layout
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import graph_of
from interp.circuits.places import Places, PlacesBy, places_of
from interp.models.anatomy import anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import difference_from_raw
from interp.patching.metric import Metric, MetricLike, bind_metric
from interp.support.finite import require_finite
from interp.tasks import Prompts

T = TypeVar("T")
# Wraps a loop to show its progress, as tqdm does.
Progress = Callable[[Iterable[T]], Iterable[T]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model taken apart, pairs of prompts, and the metric bound to the clean prompts."""

    edge_model: EdgeModel
    clean: Prompts
    corrupted: Prompts
    metric: Metric

    @property
    def tokens(self) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        """Clean and corrupted token ids."""
        return self.clean.tokens, self.corrupted.tokens


def prepare(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike | None,
    metric: MetricLike,
    places: Places | PlacesBy,
    check: bool = True,
) -> Prepared:
    """Resolve the arguments that functions of circuits share. Without `corrupted` both sides are the clean prompts.

    Raises `ValueError` for no prompts, prompts of two layouts and token ids that the model does not have, and (with
    `check`) `RuntimeError` where the model taken apart differs from the raw model on these prompts.
    """
    own = resolved_prompts(model, clean, "clean")
    other = own if corrupted is None else resolved_prompts(model, corrupted, "corrupted")
    require_same_layout(own, other)
    bound = bind_metric(metric, model, own)
    where = places_of(own, places)
    anatomy = anatomy_of(raw_of(model))
    edge_model = EdgeModel(anatomy, graph_of(anatomy, where, bound.positions), where)
    if check:
        for side in (own,) if other is own else (own, other):
            check_on_prompts(edge_model, side, bound.positions)
    return Prepared(edge_model, own, other, bound)


def resolved_prompts(model: AnyModel, prompts: PromptsLike, name: str) -> Prompts:
    """Return `Prompts`, as `prompts_of`. Raises `ValueError` also for no prompts."""
    resolved = prompts_of(model, prompts, name)
    if not len(resolved):
        raise ValueError(f"{name} has no prompts")
    return resolved


def check_on_prompts(edge_model: EdgeModel, prompts: Prompts, read: Int[Tensor, " read"]) -> None:
    """Raise `RuntimeError` unless the edge model gives the raw model's logits on these prompts at positions `read`.

    The self-test of `anatomy_of` uses a few random tokens. A hook on the raw model, or an option that acts at later
    positions only, shows on the prompts themselves.
    """
    for rows in edge_model.chunks(len(prompts)):
        checked_run(edge_model, prompts.tokens[rows], rows, read)


def checked_run(
    edge_model: EdgeModel, tokens: Int[Tensor, "row pos"], rows: Int[Tensor, " row"], read: Int[Tensor, " read"]
) -> Float[Tensor, "row pos d_model"]:
    """Return the input of the logits when every edge is kept, for the prompts numbered `rows`, after the check of
    `check_on_prompts`."""
    logits = Metric("logits", read, lambda logits, rows: logits.mean(dim=(-2, -1)))
    final, _ = edge_model.full_run(tokens)
    require_finite(final[:, read.to(final.device)], "the last residual", rows, axis=0)
    difference_from_raw(edge_model.anatomy, tokens, final, logits)
    return final
