"""Optimiser steps as CUDA graphs: a step's thousands of kernels start with a handful of calls.

Small models are bound by the launches of their kernels, not by arithmetic. A graph holds the kernels of one shape, so
batches are padded to few shapes: positions at the end, which causal attention never looks back from, and prompts and
predicted tokens that the loss ignores. Losses and gradients are those of the batch itself, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.training.gradients import predicted
from experiments.training.recipe import Recipe, TrainingPart

# Positions and predicted tokens are padded to multiples of these.
POSITIONS, PREDICTED = 16, 8
# The target of a token that the loss leaves out.
IGNORED = -100
NO_CUDA = "CUDA graphs need a CUDA device; leave --cuda-graphs out"

# Runs a function once while its kernels are recorded, and returns what repeats them.
Capture = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass(frozen=True)
class Shape:
    """The shape of a padded batch."""

    name: str
    prompts: int
    positions: int
    predicted: int


@dataclass
class Place:
    """Where batches of one shape lie: `tokens` `[batch pos]`, `kept` `[predicted]`, `targets` `[batch predicted]`."""

    tokens: Tensor
    kept: Tensor
    targets: Tensor
    loss: Tensor
    weight: float
    again: Callable[[], None] | None = None


def require_cuda(device: str) -> None:
    """Raise `ValueError` where training on a device ("auto", "cpu" or a name) cannot capture steps for want of CUDA."""
    if device == "cpu" or not torch.cuda.is_available():
        raise ValueError(NO_CUDA)


def require_graphs(device: torch.device, processes: int, recipe: Recipe) -> None:
    """Raise `ValueError` where steps cannot be captured."""
    if device.type != "cuda":
        raise ValueError(NO_CUDA)
    if processes > 1:
        raise ValueError("CUDA graphs hold the steps of one process; leave --cuda-graphs out, or use one process")
    if recipe.positions != "plain":
        raise ValueError("CUDA graphs are not made for augmented positions; leave --cuda-graphs or --positions out")


class CapturedSteps:
    """The optimiser steps of one training: each shape is computed as usual once, captured, and repeated from then on.

    `model` is what accelerate prepared, `optimizer` torch's own, with `capturable` set. `capture` is for tests.
    """

    def __init__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        device: torch.device,
        capture: Capture | None = None,
    ) -> None:
        self.model, self.optimizer, self.recipe, self.device = model, optimizer, recipe, device
        self.lr = torch.zeros((), device=device)
        self.places: dict[Shape, Place] = {}
        self.optimize: Callable[[], None] | None = None
        self.capture = capture or Graphs(device)

    def take(self, lr: float, batches: list[TrainingPart]) -> dict[str, Tensor]:
        """Do one optimiser step; return the loss of each part, in nats per predicted token, still on the device."""
        losses = {}
        self.lr.fill_(lr)
        for part in batches:
            place = self._filled(part)
            if place.again is None:
                self._gradients(place)
                place.again = self.capture(lambda place=place: self._gradients(place))
            else:
                place.again()
            losses[part.name] = place.loss.clone()
        if self.optimize is None:
            self._update()
            self.optimize = self.capture(self._update)
        else:
            self.optimize()
        return losses

    def _filled(self, part: TrainingPart) -> Place:
        """Copy a batch to the place of its shape, which is made where it is the first of that shape."""
        batch, at = part.batch, predicted(part.batch)
        shape = shape_of(self.recipe, part, len(at))
        if (place := self.places.get(shape)) is None:
            place = self.places[shape] = self._empty(shape, part.weight)
        tokens = torch.zeros(shape.prompts, shape.positions, dtype=torch.long)
        kept = torch.zeros(shape.predicted, dtype=torch.long)
        targets = torch.full((shape.prompts, shape.predicted), IGNORED)
        tokens[: len(batch), : batch.n_pos] = batch.tokens
        kept[: len(at)] = at - 1
        targets[: len(batch), : len(at)] = batch.tokens[:, at]
        for there, here in ((place.tokens, tokens), (place.kept, kept), (place.targets, targets)):
            # Pinned, so that the copy waits for the device's earlier steps and this process does not.
            there.copy_(here.pin_memory() if self.device.type == "cuda" else here, non_blocking=True)
        return place

    def _empty(self, shape: Shape, weight: float) -> Place:
        def made(*size: int) -> Tensor:
            return torch.zeros(*size, dtype=torch.long, device=self.device)

        tokens, kept = made(shape.prompts, shape.positions), made(shape.predicted)
        return Place(tokens, kept, made(shape.prompts, shape.predicted), torch.zeros((), device=self.device), weight)

    def _gradients(self, place: Place) -> None:
        """Add the gradients of the batch in a place."""
        logits = self.model(place.tokens, use_cache=False, logits_to_keep=place.kept).logits
        loss = F.cross_entropy(logits.flatten(0, 1).float(), place.targets.flatten(), ignore_index=IGNORED)
        (loss * place.weight).backward()
        place.loss.copy_(loss.detach())

    def _update(self) -> None:
        """Clip the gradients, take an optimiser step, and set the gradients to zero in their place."""
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, self.recipe.clip)
        before = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr  # a number would be captured as it is now
        self.optimizer.step()
        for group, lr in zip(self.optimizer.param_groups, before, strict=True):
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=False)


def shape_of(recipe: Recipe, part: TrainingPart, n_predicted: int) -> Shape:
    """Return the shape that a batch is padded to: the largest number of prompts that so many positions can have."""
    positions = _up(part.batch.n_pos, POSITIONS)
    fewest = positions - POSITIONS + 1
    prompts = min(128, max(8, int(recipe.tokens * part.weight / fewest)))
    return Shape(part.name, max(prompts, len(part.batch)), positions, _up(n_predicted, PREDICTED))


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


class Graphs:
    """Captures functions as CUDA graphs that share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats `work`, whose kernels run only then; `work` has run once before, as libraries need."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        with torch.cuda.graph(graph, pool=self.pool):
            work()
        return graph.replay
