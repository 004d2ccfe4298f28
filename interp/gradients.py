"""Gradients of answers at the token embeddings of a raw Hugging Face model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.arguments import PromptsLike, prompts_of, require_same_layout
from interp.patching.metric import MetricLike, bind_metric, precise
from interp.support.budget import numbers
from interp.tasks import ANSWER_ROLES, Batch, Prompts, Role

# `raw`: the output of the embedding table. `normed`: after the LayerNorm right behind it, where there is one (BLOOM).
Embeddings = Literal["normed", "raw"]
# Most tokens in one forward pass whose graph is kept.
CHUNK_TOKENS = 2048
# Share of the memory budget for logits or gradients [chunk dest src_pos d_model]: 64 MiB of a GiB.
SHARE = 1 / 16


@dataclass(frozen=True, eq=False)
class Target:
    """The numbers whose gradient is taken: one per prompt and row of the map.

    dest:    `[dest]`, a position per row of the map.
    read:    `[read]`, positions whose logits `measure` takes.
    measure: takes logits `[chunk read d_vocab]` and the prompts' numbers; returns `[chunk dest]`.
    """

    dest: Int[Tensor, " dest"]
    read: Int[Tensor, " read"]
    measure: Callable[[Tensor, Tensor], Tensor]


def target_of(
    model: object,
    prompts: Prompts,
    metric: MetricLike | None,
    steps: Sequence[int] | None,
    role: Role,
    against: PromptsLike | None,
) -> Target:
    """Return the metric, or without one the margins at output steps, as the target. Raises `ValueError` for both."""
    if not len(prompts):
        raise ValueError("there are no prompts")
    if metric is None:
        return _step_target(model, prompts, steps, role, against)
    if steps is not None or against is not None:
        raise ValueError("`metric` says what is explained; leave `steps` and `against` out")
    return _metric_target(model, prompts, metric)


def _metric_target(model: object, prompts: Prompts, metric: MetricLike) -> Target:
    """Return a metric as the target; its row of the map is named by the last position that it reads."""
    bound = bind_metric(metric, model, prompts)
    return Target(bound.positions[-1:], bound.positions, lambda x, rows: bound.measure(x, rows).unsqueeze(-1))


def _step_target(
    model: object, batch: Prompts, steps: Sequence[int] | None, role: Role, against: PromptsLike | None
) -> Target:
    """Return the margins of a task's answers as the target, one row per output step.

    Raises `ValueError` for prompts without a task, an unknown step, and a missing or useless other answer.
    """
    if not isinstance(batch, Batch):
        raise ValueError("these prompts have no output steps; give metric=, such as logit_diff(answer, other)")
    if role not in ANSWER_ROLES:
        raise ValueError(f"an answer's role is one of {', '.join(r.name for r in ANSWER_ROLES)}; got {Role(role).name}")
    if steps is not None and not len(steps):
        raise ValueError("no step was chosen; leave `steps` out for all of them")
    dest = batch.at(role) if steps is None else torch.cat([batch.at(role, step) for step in steps])
    pairs = _answers(batch, dest, None if against is None else prompts_of(model, against, "against"))

    def measure(logits: Tensor, rows: Tensor) -> Tensor:
        answer, other = precise(logits.gather(-1, pairs[rows].to(logits.device))).unbind(-1)
        return answer - other

    return Target(dest, dest - 1, measure)


def _answers(batch: Batch, dest: Int[Tensor, " dest"], against: Prompts | None) -> Int[Tensor, "batch dest 2"]:
    """Return the tokens of the answer and of the other answer at each position."""
    answers = batch.tokens[:, dest]
    if against is not None:
        require_same_layout(batch, against, ("batch", "against"))
        others = against.tokens[:, dest]
        if (others == answers).all():
            raise ValueError("`against` has the same answers at these steps: their difference is always zero")
        return torch.stack([answers, others], dim=-1)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    if len(symbols) != 2:
        raise ValueError(f"{batch.format} has {len(symbols)} answers; pass `against`, the batch with the other answers")
    if (known := torch.isin(answers, symbols)).logical_not().any():
        row = int((~known).any(dim=1).nonzero()[0])
        raise ValueError(f"prompt {row} has no answer at some step: {batch.text(row)}")
    return torch.stack([answers, symbols.sum() - answers], dim=-1)


def chunks(model: Any, prompts: Prompts, target: Target) -> list[Int[Tensor, " row"]]:
    """Return the numbers of the prompts to run together."""
    width = _table(model).embedding_dim
    largest = max(len(target.read) * model.config.vocab_size, len(target.dest) * prompts.n_pos * width)
    size = max(1, min(CHUNK_TOKENS // prompts.n_pos, numbers(SHARE, model.device) // largest))
    return list(torch.arange(len(prompts)).split(size))


@torch.no_grad()
def embed(model: Any, tokens: Int[Tensor, "chunk pos"], embeddings: Embeddings) -> Float[Tensor, "chunk pos d_model"]:
    """Return the embeddings that gradients are taken at."""
    x = model.get_input_embeddings()(tokens.to(model.device))
    return x if (norm := _norm(model, embeddings)) is None else norm(x)


def values(
    model: Any, x: Float[Tensor, "chunk pos d_model"], target: Target, rows: Tensor, embeddings: Embeddings
) -> Float[Tensor, "chunk dest"]:
    """Return the target at embeddings x, in float32 or better. Only the positions that are read are unembedded."""
    norm = _norm(model, embeddings)
    # Hugging Face takes embeddings before the LayerNorm only, so the LayerNorm's output is replaced.
    handle = None if norm is None else norm.register_forward_hook(lambda module, args, out: x)
    try:
        logits = model(inputs_embeds=x, use_cache=False, logits_to_keep=target.read.to(x.device)).logits
    finally:
        if handle is not None:
            handle.remove()
    return target.measure(logits, rows)


def margins_and_gradients(
    model: Any, x: Float[Tensor, "chunk pos d_model"], target: Target, rows: Tensor, embeddings: Embeddings
) -> tuple[Float[Tensor, "chunk dest"], Float[Tensor, "chunk dest src_pos d_model"]]:
    """Return the target and its gradients at x. One backward pass per row of the map: prompts are independent.

    Raises `ValueError` for a target without a gradient.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        target_values = values(model, x, target, rows, embeddings)
        if not target_values.requires_grad:
            raise ValueError("the metric has no gradient; use logit_diff, margin, probability or kl")
        # `grad` and not `backward`: nothing is written to the parameters.
        rows_of_map = [
            torch.autograd.grad(value.sum(), x, retain_graph=True)[0] for value in target_values.unbind(dim=1)
        ]
    return target_values.detach(), torch.stack(rows_of_map, dim=1).to(target_values.dtype)


def _table(model: Any) -> nn.Embedding:
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


def _norm(model: Any, embeddings: Embeddings) -> nn.Module | None:
    return getattr(model.base_model, "word_embeddings_layernorm", None) if embeddings == "normed" else None
