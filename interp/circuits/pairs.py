"""Prepares a model and a pair of prompts for circuit analysis, and checks them before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import graph_of
from interp.circuits.places import AnyPrompts, Places, PlacesBy, places_of, tokens_of
from interp.models.anatomy import anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import difference_from_raw
from interp.patching.metrics import Metric
from interp.support.finite import require_finite
from interp.tasks import Prompts

T = TypeVar("T")
# Wraps a loop to show its progress, as tqdm does.
Progress = Callable[[Iterable[T]], Iterable[T]]


def prepare(
    model: AnyModel, clean: AnyPrompts, corrupted: AnyPrompts, metric: Metric, places: Places | PlacesBy
) -> tuple[EdgeModel, tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]]:
    """Return the model with its graph, and the tokens of both sides.

    Raises `ValueError` for prompts of two layouts and under autocast, and `RuntimeError` where the model taken apart
    differs from the raw model on these prompts.
    """
    tokens = tokens_of(clean), tokens_of(corrupted)
    require_pairs(clean, corrupted)
    edge_model = edge_model_of(model, clean, metric, places)
    for side in tokens if corrupted is not clean else tokens[:1]:
        check_on_prompts(edge_model, side, metric)
    return edge_model, tokens


def edge_model_of(model: AnyModel, prompts: AnyPrompts, metric: Metric, places: Places | PlacesBy) -> EdgeModel:
    """Return the model with its graph for prompts of one layout, without running it on them."""
    require_no_autocast()
    anatomy = anatomy_of(raw_of(model))
    where = places_of(prompts, places)
    return EdgeModel(anatomy, graph_of(anatomy, where, metric.positions), where)


def require_pairs(clean: AnyPrompts, corrupted: AnyPrompts) -> None:
    """Raise `ValueError` unless clean and corrupted prompts have one shape, and one layout of roles and steps."""
    shapes = [list(tokens_of(prompts).shape) for prompts in (clean, corrupted)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"clean is {shapes[0]} and corrupted {shapes[1]}; give pairs")
    if not isinstance(clean, Prompts) or not isinstance(corrupted, Prompts):
        return
    for name in ("role", "step"):
        own, other = getattr(clean, name), getattr(corrupted, name)
        if own is not None and other is not None and not torch.equal(own, other):
            raise ValueError("clean and corrupted must have the same roles and steps, position by position")


def check_on_prompts(edge_model: EdgeModel, tokens: Int[Tensor, "batch pos"], metric: Metric) -> None:
    """Raise `RuntimeError` unless the edge model gives the raw model's logits on these prompts.

    The self-test of `anatomy_of` uses a few random tokens. A hook on the raw model, or an option that acts at later
    positions only, shows on the prompts themselves.
    """
    read = metric.positions
    for rows in edge_model.chunks(len(tokens)):
        final, _ = edge_model.full_run(tokens[rows])
        require_finite(final[:, read.to(final.device)], "the last residual", rows, axis=0)
        difference_from_raw(edge_model.anatomy, tokens[rows], final, metric)


def require_no_autocast() -> None:
    """Raise `ValueError` under autocast, where parts of a model would be computed in different precisions."""
    if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
        raise ValueError("circuits do not run under torch.autocast; load the model in the dtype that you want")


def require_gradients() -> None:
    """Raise `ValueError` under inference mode, in which no gradient can be computed."""
    if torch.is_inference_mode_enabled():
        raise ValueError("gradients cannot be computed under torch.inference_mode(); leave it, or use torch.no_grad()")
