"""Metrics of a task's answers, by output step. Answers are the tokens that the batch holds at those steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.patching.metric import Compute, Metric, at_column, metric_of_tokens, pick, precise
from interp.tasks import ANSWER_ROLES, Batch, Role


def logit_diff(batch: Batch, step: int | None = None, against: Batch | None = None, role: Role = Role.OUTPUT) -> Metric:
    """Return logit(answer) - logit(other answer) at a step, or its mean over all steps of the role.

    The answer is that of `batch`. The other answer is that of `against` at the same position; without `against`, the
    other symbol of two-valued outputs (parity). Raises `ValueError` if there is no other answer.
    """
    at, answers = _answers(batch, step, role)
    if against is not None:
        others = against.tokens[:, at]
        if (others == answers).all():
            raise ValueError("`against` has the same answers at this step: their difference is always zero")
    else:
        symbols = batch.vocabulary.tokens(batch.format.outputs)
        if len(symbols) != 2:
            raise ValueError(
                f"{batch.format} has {len(symbols)} answers; pass `against`, the batch with the other answers"
            )
        if not torch.isin(answers, symbols).all():
            raise ValueError(
                "an answer in the batch is not an output symbol; pass `against`, the batch with the other answers"
            )
        others = symbols.sum() - answers

    def compute_of(answers: Tensor, others: Tensor) -> Compute:
        return lambda logits, rows: (pick(logits, answers[rows]) - pick(logits, others[rows])).mean(dim=-1)

    return metric_of_tokens(_named("logit difference", step), at - 1, (answers, others), compute_of, len(batch))


def lead(batch: Batch, step: int | None = None, role: Role = Role.OUTPUT) -> Metric:
    """Return logit(answer) minus the largest logit of another output symbol, or its mean over all steps of the role.

    With two output symbols it equals `logit_diff`. Raises `ValueError` if an answer is not an output symbol.
    """
    at, answers = _answers(batch, step, role)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    if not torch.isin(answers, symbols).all():
        raise ValueError("an answer in the batch is not an output symbol")

    def compute_of(answers: Tensor, symbols: Tensor) -> Compute:
        def compute(logits: Tensor, rows: Tensor) -> Tensor:
            own = answers[rows].unsqueeze(-1) == symbols  # [row read symbol]
            others = logits[..., symbols.to(logits.device, non_blocking=True)].masked_fill(
                own.to(logits.device, non_blocking=True), -torch.inf
            )
            return (pick(logits, answers[rows]) - others.amax(dim=-1)).mean(dim=-1)

        return compute

    return metric_of_tokens(
        _named("lead over the best other answer", step), at - 1, (answers, symbols), compute_of, len(batch)
    )


def margin(
    batch: Batch,
    steps: Int[Tensor, " batch"],
    answers: Int[Tensor, " batch"],
    others: Int[Tensor, " batch"],
    role: Role = Role.OUTPUT,
) -> Metric:
    """Return logit(answer) - logit(other) at each prompt's own step, for one pair of token ids per prompt.

    Raises `ValueError` unless there is one step, answer and other answer per prompt, and the two differ.
    """
    if not steps.shape == answers.shape == others.shape == (len(batch),):
        raise ValueError(
            f"steps, answers and others must each be [batch]={len(batch)}; got {tuple(steps.shape)}, "
            f"{tuple(answers.shape)}, {tuple(others.shape)}"
        )
    if (answers == others).any():
        raise ValueError(
            f"prompt {int((answers == others).nonzero()[0])} has the same token as answer and other: the margin is zero"
        )
    where = torch.stack([batch.at(role, s)[0] for s in steps.tolist()]) - 1

    def at(positions: Tensor) -> Metric:
        def compute_of(answers: Tensor, others: Tensor) -> Compute:
            def compute(logits: Tensor, rows: Tensor) -> Tensor:
                logits = at_column(logits, torch.searchsorted(positions, where[rows]))
                return pick(logits, answers[rows]) - pick(logits, others[rows])

            return compute

        name = "logit difference at each prompt's step"
        return replace(
            metric_of_tokens(name, positions, (answers, others), compute_of, len(batch)), own=where, narrow=at
        )

    return at(where.unique())


def probability(batch: Batch, step: int | None = None, role: Role = Role.OUTPUT, among_answers: bool = False) -> Metric:
    """Return the probability of the batch's answer at a step, or its mean over all steps of the role.

    `among_answers`: the probability given that the token is one of the format's output symbols.
    """
    at, answers = _answers(batch, step, role)
    symbols = batch.vocabulary.tokens(batch.format.outputs)

    def compute_of(answers: Tensor, symbols: Tensor) -> Compute:
        def compute(logits: Tensor, rows: Tensor) -> Tensor:
            read = precise(logits)
            choices = read[..., symbols.to(logits.device, non_blocking=True)] if among_answers else read
            return (pick(read, answers[rows]) - choices.logsumexp(dim=-1)).exp().mean(dim=-1)

        return compute

    if among_answers:
        name = _named("probability among answers", step)
        return metric_of_tokens(name, at - 1, (answers, symbols), compute_of, len(batch))
    return Metric(_named("probability", step), at - 1, compute_of(answers, symbols), prompts=len(batch))


def accuracy(batch: Batch, step: int | None = None, role: Role = Role.OUTPUT, among_answers: bool = False) -> Metric:
    """Return the share of steps at which the batch's answer is the most likely token of the whole vocabulary.

    `among_answers`: the most likely of the format's output symbols, so that chance is 1 / their number.
    """
    at, answers = _answers(batch, step, role)
    symbols = batch.vocabulary.tokens(batch.format.outputs)

    def compute_of(answers: Tensor, symbols: Tensor) -> Compute:
        def compute(logits: Tensor, rows: Tensor) -> Tensor:
            if among_answers:
                likeliest = symbols.to(logits.device, non_blocking=True)[
                    logits[..., symbols.to(logits.device, non_blocking=True)].argmax(dim=-1)
                ]
            else:
                likeliest = logits.argmax(dim=-1)
            return (likeliest == answers[rows].to(logits.device, non_blocking=True)).float().mean(dim=-1)

        return compute

    if among_answers:
        name = _named("accuracy among answers", step)
        return metric_of_tokens(name, at - 1, (answers, symbols), compute_of, len(batch))
    return Metric(_named("accuracy", step), at - 1, compute_of(answers, symbols), prompts=len(batch))


def kl(
    batch: Batch,
    reference: Float[Tensor, "batch read d_vocab"] | Callable[[Int[Tensor, " row"]], Float[Tensor, "row read d_vocab"]],
    step: int | None = None,
    role: Role = Role.OUTPUT,
) -> Metric:
    """Return KL(reference || patched) in nats at a step, or its mean over all steps of the role.

    `reference`: logits at those steps, as `interp.forward.predict(model, batch, at)` returns, or a function that
    returns those of some prompts, which takes less memory for many. A run whose logits have another shape raises
    `ValueError`.
    """
    at, _ = _answers(batch, step, role)
    if isinstance(reference, Tensor) and reference.shape[:2] != (len(batch), len(at)):
        raise ValueError(f"reference must be [batch={len(batch)} read={len(at)} d_vocab]; got {tuple(reference.shape)}")

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        some, which = rows.unique(return_inverse=True)  # of all prompts it would take the memory twice
        expected = reference[some] if isinstance(reference, Tensor) else reference(some)
        if (len(some), *logits.shape[-2:]) != tuple(expected.shape):
            wanted = f"[row={len(some)} read={logits.shape[-2]} d_vocab={logits.shape[-1]}]"
            raise ValueError(f"the reference must have logits {wanted} for these prompts; got {tuple(expected.shape)}")
        log_p = expected.log_softmax(dim=-1)[which].to(logits)
        return (log_p.exp() * (log_p - logits.log_softmax(dim=-1))).sum(dim=-1).mean(dim=-1)

    return Metric(_named("KL", step), at - 1, compute, prompts=len(batch))


def _answers(batch: Batch, step: int | None, role: Role) -> tuple[Tensor, Tensor]:
    if role not in ANSWER_ROLES:
        names = ", ".join(r.name for r in ANSWER_ROLES)
        raise ValueError(f"an answer's role is one of {names}; got {Role(role).name}")
    at = batch.at(role, step)
    return at, batch.tokens[:, at]


def _named(name: str, step: int | None) -> str:
    return f"{name}, mean over steps" if step is None else f"{name} at step {step}"
