"""Metrics of answers given as text or token ids, at one position: no task is needed.

An answer is one token: a string, a token id, or one of these per prompt. `position` is the position whose logits are
read, so the default -1 reads the prediction after the last token. It may be one per prompt, or the name of a span
(its last token).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import listed_token_ids, prompts_of, token_ids
from interp.forward import predict
from interp.models.resolve import raw_of
from interp.patching.metric import (
    Compute,
    Metric,
    UnboundMetric,
    at_column,
    pick,
    picker,
    precise,
)
from interp.tasks import Prompts

Answer = str | int | Sequence[str | int] | Int[Tensor, " batch"]
Position = int | str | Sequence[int] | Int[Tensor, " batch"]
# Takes logits at each prompt's position `[... row d_vocab]` and the prompts' numbers; returns `[... row]`.
Score = Callable[[Tensor, Tensor], Tensor]


def logit_diff(answer: Answer, other: Answer, position: Position = -1) -> UnboundMetric:
    """Return logit(answer) - logit(other)."""

    def ids(model: object, prompts: Prompts) -> tuple[list[int], list[int]]:
        given = (("answer", answer), ("other", other))
        answers, others = (listed_token_ids(model, prompts, what, one) for what, one in given)
        if same := [i for i, (a, b) in enumerate(zip(answers, others, strict=True)) if a == b]:
            raise ValueError(f"answer and other are the same token in prompt {same[0]}: the difference is zero")
        return answers, others

    def score_of(answers: Sequence[int], others: Sequence[int]) -> Score:
        one, another = picker(answers), picker(others)
        return lambda logits, rows: one(logits, rows) - another(logits, rows)

    name = f"logit difference{_text(answer)}{_text(other, ' -')}"

    def bind(model: object, prompts: Prompts) -> Metric:
        (positions, column), both = _columns(prompts, position), ids(model, prompts)
        tokens = sorted({*both[0], *both[1]})
        columns = {token: i for i, token in enumerate(tokens)}
        of_all, of_tokens = score_of(*both), score_of(*([columns[token] for token in part] for part in both))
        return Metric(
            name,
            positions,
            _at_each_position(column, of_all),
            tokens=torch.tensor(tokens, dtype=torch.long),
            compute_tokens=_at_each_position(column, of_tokens),
        )

    return UnboundMetric(name, bind)


def margin(answer: Answer, other: Answer | None = None, position: Position = -1) -> UnboundMetric:
    """Return logit(answer) - logit(other), or without `other` minus the largest logit of any other token."""
    if other is not None:
        return logit_diff(answer, other, position)

    def score(model: object, prompts: Prompts) -> Score:
        answers = _ids(model, prompts, "answer", answer)

        def compute(logits: Tensor, rows: Tensor) -> Tensor:
            own = answers[rows].to(logits.device, non_blocking=True).expand(logits.shape[:-1]).unsqueeze(-1)
            return pick(logits, answers[rows]) - logits.scatter(-1, own, -torch.inf).amax(dim=-1)

        return compute

    return _unbound(f"margin{_text(answer)} over the best other token", score, position)


def probability(answer: Answer, position: Position = -1) -> UnboundMetric:
    """Return the probability of the answer."""

    def score(model: object, prompts: Prompts) -> Score:
        answers = _ids(model, prompts, "answer", answer)
        return lambda logits, rows: pick(precise(logits).log_softmax(dim=-1), answers[rows]).exp()

    return _unbound(f"probability{_text(answer)}", score, position)


def accuracy(answer: Answer, position: Position = -1) -> UnboundMetric:
    """Return 1 where the answer is the most likely token, else 0."""

    def score(model: object, prompts: Prompts) -> Score:
        answers = _ids(model, prompts, "answer", answer)
        return lambda logits, rows: (
            logits.argmax(dim=-1) == answers[rows].to(logits.device, non_blocking=True)
        ).float()

    return _unbound(f"accuracy{_text(answer)}", score, position)


def kl(
    reference: Float[Tensor, "batch d_vocab"] | Prompts | str | Sequence[str], position: Position = -1
) -> UnboundMetric:
    """Return KL(reference || patched) in nats. `reference`: logits, or prompts whose unpatched run gives them."""

    def score(model: object, prompts: Prompts) -> Score:
        if isinstance(reference, Tensor) and reference.is_floating_point():
            logits = reference
        else:
            given = prompts_of(model, reference, "reference")
            where = _where(given, position)
            at, column = where.unique(return_inverse=True)
            logits = predict(raw_of(model), given, at + 1)[torch.arange(len(given)), column]  # type: ignore[arg-type]
        if logits.ndim != 2 or len(logits) != len(prompts):
            raise ValueError(f"reference must be [batch={len(prompts)} d_vocab]; got {tuple(logits.shape)}")
        expected = precise(logits).log_softmax(dim=-1)

        def compute(logits: Tensor, rows: Tensor) -> Tensor:
            if logits.shape[-1] != expected.shape[-1]:
                raise ValueError(f"reference has {expected.shape[-1]} logits, and the model {logits.shape[-1]}")
            log_p, log_q = expected[rows].to(logits.device, non_blocking=True), precise(logits).log_softmax(dim=-1)
            return (log_p.exp() * (log_p - log_q)).sum(dim=-1)

        return compute

    return _unbound("KL", score, position)


def _unbound(name: str, score: Callable[[object, Prompts], Score], position: Position) -> UnboundMetric:
    def bind(model: object, prompts: Prompts) -> Metric:
        positions, column = _columns(prompts, position)
        return Metric(name, positions, _at_each_position(column, score(model, prompts)))

    return UnboundMetric(name, bind)


def _at_each_position(column: Int[Tensor, " batch"] | None, score: Score) -> Compute:
    """Return a metric's `compute` that scores each prompt's own column of the positions read; None is the only one."""
    if column is None:
        return lambda logits, rows: score(logits[..., 0, :], rows)
    return lambda logits, rows: score(at_column(logits, column[rows]), rows)


def _columns(prompts: Prompts, position: Position) -> tuple[Int[Tensor, " read"], Int[Tensor, " batch"] | None]:
    """Return the positions that are read, in order, and the number of each prompt's own among them, if they differ."""
    if isinstance(position, str):
        position = int(prompts.at(position)[-1])
    if type(position) is int and -prompts.n_pos <= position < prompts.n_pos and len(prompts):
        return torch.tensor([position % prompts.n_pos]), None
    return _where(prompts, position).unique(return_inverse=True)


def _where(prompts: Prompts, position: Position) -> Int[Tensor, " batch"]:
    """Return the position that is read in each prompt."""
    n = len(prompts)
    if isinstance(position, str):
        position = int(prompts.at(position)[-1])
    if type(position) is int and -prompts.n_pos <= position < prompts.n_pos:
        return torch.full((n,), position % prompts.n_pos)
    where = torch.as_tensor(position)
    if where.dtype.is_floating_point or where.dtype == torch.bool or where.shape not in ((), (n,)):
        raise ValueError(f"position must be an index, a span's name or {n} indices, one per prompt; got {position!r}")
    where = where.long().expand(n)
    if (bad := where[(where >= prompts.n_pos) | (where < -prompts.n_pos)]).numel():
        raise ValueError(f"position {int(bad[0])} is past the end; these prompts have 0 to {prompts.n_pos - 1}")
    return where % prompts.n_pos


def _ids(model: object, prompts: Prompts, name: str, answer: Answer) -> Int[Tensor, " batch"]:
    """Return one token id per prompt."""
    return token_ids(model, prompts, name, answer)


def _text(answer: Answer, before: str = "") -> str:
    return f"{before} {answer!r}" if isinstance(answer, str | int) else ""
