"""The answer tokens of prompts, and a TransformerLens cache of the activations that predict them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import token_ids
from interp.models.resolve import AnyModel
from interp.patching.answer_metrics import Answer
from interp.patching.editing import SHARE
from interp.patching.metrics import logit_diff
from interp.support.budget import numbers
from interp.tasks import Batch, Prompts, Role

_CACHED = re.compile(
    r"hook_embed|hook_pos_embed|pos_embed\.hook_out|ln_final\.hook_scale|"
    r"blocks\.\d+\.(attn\.hook_z|hook_mlp_out|hook_resid_pre|hook_resid_post)"
)


@dataclass(frozen=True, eq=False)
class AnswerTokens:
    """Positions whose logits are read, and the tokens that are compared there.

    Shapes:
        positions: `[read]`, one before the token that they predict.
        names:     one name per position that is read: of the answer in a task, else of the position itself.
        answers:   `[batch read]`.
        others:    `[batch read]`; None to read the answer's logit alone.
    """

    positions: Int[Tensor, " read"]
    names: tuple[str, ...]
    answers: Int[Tensor, "batch read"]
    others: Int[Tensor, "batch read"] | None

    def difference(self, logits: Float[Tensor, "row read d_vocab"], rows: Tensor) -> Float[Tensor, "row read"]:
        """Return logit(answer) - logit(other) of some prompts in float64, from logits at `positions`."""
        logits = logits.double().cpu()
        own = logits.gather(-1, self.answers[rows].unsqueeze(-1)).squeeze(-1)
        return own if self.others is None else own - logits.gather(-1, self.others[rows].unsqueeze(-1)).squeeze(-1)


def answer_tokens(
    model: AnyModel,
    prompts: Prompts,
    answer: Answer | None,
    other: Answer | None,
    position: int | str,
    role: Role,
    against: Batch | None,
) -> AnswerTokens:
    """Return the tokens to compare: those given, or without `answer` those written at a role of a task's prompts.

    Raises `ValueError` for answers that are not one token, prompts of no task without `answer`, and a task with more
    than two output symbols without `against`.
    """
    if answer is not None:
        if against is not None:
            raise ValueError("give either answer and other, or against")
        at = int(prompts.at(position)[-1]) if isinstance(position, str) else position
        if not -prompts.n_pos <= at < prompts.n_pos:
            raise ValueError(f"position {at} is past the end; these prompts have 0 to {prompts.n_pos - 1}")
        ids = [
            None if x is None else token_ids(model, prompts, n, x) for n, x in (("answer", answer), ("other", other))
        ]
        answers, others = (None if x is None else x.unsqueeze(1) for x in ids)
        assert answers is not None
        at %= prompts.n_pos
        return AnswerTokens(torch.tensor([at]), (prompts.name(at),), answers, others)
    if not isinstance(prompts, Batch):
        raise ValueError("these prompts are not of a task; give answer=..., and other=... to compare it with")
    if other is not None:
        raise ValueError("other=... needs answer=...")
    at = logit_diff(prompts, against=against, role=role).positions  # raises where there is no other answer
    answers = prompts.tokens[:, at + 1]
    names = tuple(prompts.name(int(pos) + 1) for pos in at)
    if against is not None:
        return AnswerTokens(at, names, answers, against.tokens[:, at + 1])
    return AnswerTokens(at, names, answers, prompts.vocabulary.tokens(prompts.format.outputs).sum() - answers)


def cached_chunks(bridge: Any, prompts: Prompts) -> Iterator[tuple[Tensor, Tensor, Any]]:
    """Iterate over the indices of some prompts, their logits, and TransformerLens's cache of them."""
    cfg = bridge.cfg
    floats = prompts.n_pos * (cfg.n_layers * (cfg.n_heads + 5) * cfg.d_model + cfg.d_vocab)
    for rows in torch.arange(len(prompts)).split(max(1, numbers(SHARE) // floats)):
        tokens = prompts.tokens[rows].to(bridge.W_U.device)
        logits, cache = bridge.run_with_cache(tokens, names_filter=lambda name: _CACHED.fullmatch(name) is not None)
        yield rows, logits, cache


def mean_and_error(values: Float[Tensor, " batch"]) -> tuple[float, float]:
    """Return the mean and its standard error over prompts, which is NaN for one prompt."""
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(torch.nan)
    return float(values.mean()), float(error)
