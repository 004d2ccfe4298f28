"""What is measured on the logits of a patched run, and at which positions are they read?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.tasks import ANSWER_ROLES, Batch, Role

Compute = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Metric:
    """A function of the logits at the positions that it declares, so that no other position is unembedded.

    Shapes:
        positions: `[read]`, positions whose logits are read (one before the token that they predict), in order.
        compute:   takes logits `[... row read d_vocab]` and the numbers of the prompts `[row]`, gives `[... row]`.

    Any function serves: `Metric("entropy", positions, lambda logits, rows: ...)`.
    """

    name: str
    positions: Int[Tensor, " read"]
    compute: Compute

    def __post_init__(self) -> None:
        p = self.positions
        if p.ndim != 1 or not len(p) or (p < 0).any() or (p.diff() <= 0).any():
            raise ValueError(f"a metric reads one or more positions in rising order; got {p.tolist()}")


def logit_diff(batch: Batch, step: int | None = None, against: Batch | None = None, role: Role = Role.OUTPUT) -> Metric:
    """logit(answer) - logit(other answer) at a step; without one, the mean over all steps of the role.

    Answers are those of `batch`; the other one is that of `against` at the same place, or for two-valued
    outputs (parity) the other symbol. Raises `ValueError` where there is no other answer.
    """
    at, answers = _answers(batch, step, role)
    if against is not None:
        others = against.tokens[:, at]
        if (others == answers).all():
            raise ValueError("`against` has the same answers at this step: their difference is always zero")
    else:
        symbols = batch.vocabulary.tokens(batch.format.outputs)
        if len(symbols) != 2:
            raise ValueError(f"{batch.format} has {len(symbols)} answers; say against which batch's answer")
        if not torch.isin(answers, symbols).all():
            raise ValueError("a written answer is not an output symbol; say against which batch's answer")
        others = symbols.sum() - answers

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        return (_pick(logits, answers[rows]) - _pick(logits, others[rows])).mean(dim=-1)

    return Metric(_named("logit difference", step), at - 1, compute)


def lead(batch: Batch, step: int | None = None, role: Role = Role.OUTPUT) -> Metric:
    """logit(answer) - the largest logit of another output symbol; without a step, the mean over all of the role.

    With two-valued outputs it is `logit_diff`; it is defined for ten digits, too, where the rival may change.
    Raises `ValueError` where a written answer is not an output symbol.
    """
    at, answers = _answers(batch, step, role)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    if not torch.isin(answers, symbols).all():
        raise ValueError("a written answer is not an output symbol, so it has no rivals")

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        own = answers[rows].unsqueeze(-1) == symbols  # [row read symbol]
        rivals = logits[..., symbols.to(logits.device)].masked_fill(own.to(logits.device), -torch.inf)
        return (_pick(logits, answers[rows]) - rivals.amax(dim=-1)).mean(dim=-1)

    return Metric(_named("lead over the best other answer", step), at - 1, compute)


def margin(
    batch: Batch,
    steps: Int[Tensor, " batch"],
    answers: Int[Tensor, " batch"],
    others: Int[Tensor, " batch"],
    role: Role = Role.OUTPUT,
) -> Metric:
    """logit(answer) - logit(other) at each prompt's own step, for token ids given by prompt.

    Raises `ValueError` unless there is one step, answer and other answer for each prompt, and the two differ.
    """
    if not steps.shape == answers.shape == others.shape == (len(batch),):
        raise ValueError(
            f"steps, answers and others must each be [batch]={len(batch)}; got {tuple(steps.shape)}, "
            f"{tuple(answers.shape)}, {tuple(others.shape)}"
        )
    if (answers == others).any():
        raise ValueError(f"prompt {int((answers == others).nonzero()[0])} has the same answer twice: no margin")
    where = torch.stack([batch.at(role, s)[0] for s in steps.tolist()]) - 1
    positions, column = where.unique(return_inverse=True)

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        own = column[rows].to(logits.device)
        index = own.view(-1, 1, 1).expand(*logits.shape[:-2], 1, logits.shape[-1])
        here = logits.gather(-2, index).squeeze(-2)
        pick = (t[rows].to(logits.device).expand(here.shape[:-1]).unsqueeze(-1) for t in (answers, others))
        answer, other = (here.gather(-1, t).squeeze(-1) for t in pick)
        return answer - other

    return Metric("logit difference at each prompt's step", positions, compute)


def probability(batch: Batch, step: int | None = None, role: Role = Role.OUTPUT, among_answers: bool = False) -> Metric:
    """Probability of the batch's answer at a step; without one, the mean over all steps of the role.

    `among_answers`: given that the token is one of the format's output symbols.
    """
    at, answers = _answers(batch, step, role)
    symbols = batch.vocabulary.tokens(batch.format.outputs)

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        precise = logits if logits.dtype == torch.float64 else logits.float()
        choices = precise[..., symbols.to(logits.device)] if among_answers else precise
        return (_pick(precise, answers[rows]) - choices.logsumexp(dim=-1)).exp().mean(dim=-1)

    return Metric(_named("probability among answers" if among_answers else "probability", step), at - 1, compute)


def accuracy(batch: Batch, step: int | None = None, role: Role = Role.OUTPUT, among_answers: bool = False) -> Metric:
    """Share of steps at which the batch's answer is the likeliest token of the whole vocabulary.

    `among_answers`: the likeliest of the format's output symbols, so that chance is one in as many.
    """
    at, answers = _answers(batch, step, role)
    symbols = batch.vocabulary.tokens(batch.format.outputs)

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        if among_answers:
            likeliest = symbols.to(logits.device)[logits[..., symbols.to(logits.device)].argmax(dim=-1)]
        else:
            likeliest = logits.argmax(dim=-1)
        return (likeliest == answers[rows].to(logits.device)).float().mean(dim=-1)

    return Metric(_named("accuracy among answers" if among_answers else "accuracy", step), at - 1, compute)


def kl(
    batch: Batch, reference: Float[Tensor, "batch read d_vocab"], step: int | None = None, role: Role = Role.OUTPUT
) -> Metric:
    """KL(reference || patched) in nats at a step; without one, the mean over all steps of the role.

    `reference` are logits at those places, such as `interp.forward.predict(model, batch, at)` gives.
    """
    at, _ = _answers(batch, step, role)
    if reference.shape[:2] != (len(batch), len(at)):
        raise ValueError(f"reference must be [batch={len(batch)} read={len(at)} d_vocab]; got {tuple(reference.shape)}")
    expected = reference.log_softmax(dim=-1)

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        log_p = expected[rows].to(logits)
        return (log_p.exp() * (log_p - logits.log_softmax(dim=-1))).sum(dim=-1).mean(dim=-1)

    return Metric(_named("KL", step), at - 1, compute)


def _answers(batch: Batch, step: int | None, role: Role) -> tuple[Tensor, Tensor]:
    if role not in ANSWER_ROLES:
        names = ", ".join(r.name for r in ANSWER_ROLES)
        raise ValueError(f"an answer's role is one of {names}; got {Role(role).name}")
    at = batch.at(role, step)
    return at, batch.tokens[:, at]


def _pick(logits: Tensor, tokens: Tensor) -> Tensor:
    """logits `[... row read d_vocab]` at tokens `[row read]`: `[... row read]`."""
    index = tokens.to(logits.device).expand(logits.shape[:-1]).unsqueeze(-1)
    return logits.gather(-1, index).squeeze(-1)


def _named(name: str, step: int | None) -> str:
    return f"{name}, mean over steps" if step is None else f"{name} at step {step}"
