"""One training step: the losses of its parts, their gradients, and the optimiser step."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from experiments.training.recipe import Pretrained, Recipe, TrainingPart
from interp.tasks import Batch


def optimizer_of(model: Any, recipe: Recipe, capturable: bool = False) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for the weights of a model that are trained; `capturable`: in a CUDA graph."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.AdamW(
        weights, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, capturable=capturable
    )


def use_attention(model: Any, attention: str) -> None:
    """Let a model compute attention in steps ("eager"), or by torch's `scaled_dot_product_attention` ("sdpa").

    The two differ by rounding. Raises `ValueError` for an architecture that has no "sdpa".
    """
    if attention == model.config._attn_implementation:
        return
    if attention == "sdpa" and not model._supports_sdpa:
        raise ValueError(
            f"{model.config.model_type} has no fused attention, as its scores have a bias; leave --attention out, or "
            "train another family (rotary, none, absolute)"
        )
    model.set_attn_implementation(attention)


def compiled(model: Any) -> Any:
    """Return a model whose passes run kernels that `torch.compile` makes, for any number and length of prompts.

    Weights are shared. Its results differ from the model's by rounding.
    """
    return torch.compile(model, dynamic=True)


def require_compile(device: torch.device) -> None:
    """Raise `ValueError` where `torch.compile` does not work: without a C++ compiler, or on a GPU without Triton."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:  # of another type for each thing that can be missing
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"torch.compile does not work here ({reason}); leave --compile out") from error


def schedule(recipe: Recipe, cooldown_from: int, step: int) -> float:
    """Return the learning rate at a step as a share of the highest: warm-up, constant, then cool-down to `final_lr`."""
    left = 1 - (1 - recipe.final_lr) * (step - cooldown_from) / max(1, recipe.cooldown)
    return min(1.0, (step + 1) / max(1, recipe.warmup)) * min(1.0, max(recipe.final_lr, left))


def take_step(
    accelerator: Accelerator, model: Any, optimizer: Any, recipe: Recipe, step: int, batches: list[TrainingPart]
) -> dict[str, float]:
    """Do one optimiser step; return the loss of each part, in nats per predicted token."""
    losses = add_gradients(accelerator, model, recipe, step, batches)
    accelerator.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    optimizer.zero_grad()
    return losses


def add_gradients(
    accelerator: Accelerator, model: Any, recipe: Recipe, step: int, batches: list[TrainingPart]
) -> dict[str, float]:
    """Accumulate the gradients of one step's parts; return the loss of each, in nats per predicted token."""
    losses = {}
    for k, part in enumerate(batches):
        last = k == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            loss = loss_of(model, part, recipe, step, accelerator.device)
            accelerator.backward(loss * part.weight)
        losses[part.name] = loss.item()
    return losses


def predicted(batch: Batch) -> Tensor:
    """Return the positions of the tokens that are learned; labels are among them where the model can write them."""
    return batch.predicted(forced=not batch.format.model_can_write_labels)


def loss_of(model: Any, part: TrainingPart, recipe: Recipe, step: int, device: torch.device) -> Tensor:
    """Return the mean cross-entropy of a part's predicted tokens, in nats."""
    batch = part.batch
    at = predicted(batch)
    extra = {}
    if recipe.positions != "plain":
        extra["position_ids"] = position_ids(recipe, batch, step).to(device)
    tokens = batch.tokens.to(device)
    logits = model(tokens, use_cache=False, logits_to_keep=(at - 1).to(device), **extra).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, at.to(device)].flatten())


def position_ids(recipe: Recipe, batch: Batch, step: int) -> Tensor:
    """Return augmented position ids, `[batch pos]`, so that no distance or position at test time is new.

    "start": each prompt begins at a random position. "jump": positions jump ahead after the first token that the
    model writes, because the first label is found at a learned distance from the separator. The jump is at most the
    number of unused positions, a limit that grows over `position_ramp` steps.
    """
    gen = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    assert not isinstance(recipe.model, Pretrained), "positions are augmented only in models of our own"
    room = recipe.model.n_ctx - batch.n_pos
    if recipe.positions == "jump":
        room = int(room * min(1.0, step / max(1, recipe.position_ramp)))
    jump = torch.randint(max(0, room) + 1, (len(batch), 1), generator=gen)
    ids = torch.arange(batch.n_pos).expand(len(batch), -1)
    if recipe.positions == "start":
        return ids + jump
    return ids + jump * (torch.arange(batch.n_pos) > predicted(batch)[0])
