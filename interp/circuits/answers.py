"""The answer tokens of prompts, and the positions whose logits predict them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import token_ids
from interp.forward import predict
from interp.models.resolve import AnyModel
from interp.patching.answer_metrics import Answer
from interp.patching.metrics import logit_diff
from interp.tasks import Batch, Prompts, Role


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

        def read(ids: Int[Tensor, "batch read"]) -> Tensor:
            return logits.gather(-1, ids[rows].to(logits.device).unsqueeze(-1)).squeeze(-1).double().cpu()

        own = read(self.answers)
        return own if self.others is None else own - read(self.others)


def answer_tokens(
    model: AnyModel,
    prompts: Prompts,
    answer: Answer | None,
    other: Answer | None,
    position: int | str | Sequence[int],
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
        ids = [
            None if x is None else token_ids(model, prompts, n, x) for n, x in (("answer", answer), ("other", other))
        ]
        at = _positions(prompts, position)
        answers, others = (None if x is None else x.unsqueeze(1).expand(-1, len(at)) for x in ids)
        assert answers is not None
        return AnswerTokens(at, tuple(prompts.name(int(i)) for i in at), answers, others)
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


def likeliest_tokens(model: AnyModel, prompts: Prompts, position: int | str | Sequence[int]) -> AnswerTokens:
    """Return, as answers, the tokens that the model itself predicts at each position. Raises as `answer_tokens`."""
    at = _positions(prompts, position)
    likeliest = predict(model, prompts, at + 1).argmax(dim=-1)
    return AnswerTokens(at, tuple(prompts.name(int(i)) for i in at), likeliest, None)


def _positions(prompts: Prompts, position: int | str | Sequence[int]) -> Int[Tensor, " read"]:
    """Return positions from 0 on: a span's last one, or indices, which count from the end if negative."""
    given = [int(prompts.at(position)[-1])] if isinstance(position, str) else position
    listed = [given] if isinstance(given, int) else list(given)
    if not listed or (bad := [i for i in listed if not -prompts.n_pos <= i < prompts.n_pos]):
        what = f"position {bad[0]} is past the end" if listed else "no position was given"
        raise ValueError(f"{what}; these prompts have 0 to {prompts.n_pos - 1}")
    return torch.tensor([i % prompts.n_pos for i in listed])


def mean_and_error(values: Float[Tensor, " batch"]) -> tuple[float, float]:
    """Return the mean and its standard error over prompts, which is NaN for one prompt."""
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(torch.nan)
    return float(values.mean()), float(error)
