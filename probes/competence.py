"""Measure whether a model can do the task at a length, and in which mode (probes/README.md, Paper and formats).

Several metrics, because one misleads: at a step accuracy of .99, all of 40 steps are right in only .67 of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import correct, generate
from interp.tasks import Batch, Format, Role
from interp.tasks.roles import LABEL_ROLES
from probes.evidence import Accuracy
from probes.intervals import clustered_proportion, wilson

MODES = {"forced": True, "written": False}


def modes_of(batch: Batch) -> tuple[str, ...]:
    """Return the modes that apply: "written" only where there are labels and the context determines them."""
    return modes_of_format(batch.format)


def modes_of_format(fmt: Format) -> tuple[str, ...]:
    """Return the modes of every batch of a format, as `modes_of`."""
    return ("forced", "written") if fmt.labels and fmt.model_can_write_labels else ("forced",)


def steps_right(model: PreTrainedModel, batch: Batch, mode: str) -> Bool[Tensor, "batch step"]:
    """Return whether each step is right, teacher forced: its answer and, in the written mode, its label too."""
    at = batch.predicted(MODES[mode])
    return _by_step(correct(model, batch, at), batch, at)


def accuracies(model: PreTrainedModel, batch: Batch, mode: str) -> list[Accuracy]:
    """Measure `accuracies_in` one mode."""
    return accuracies_in(model, batch, (mode,))


def accuracies_in(model: PreTrainedModel, batch: Batch, modes: Sequence[str]) -> list[Accuracy]:
    """Measure step accuracy, exact match, final answer and free-running step accuracy at the batch's length.

    One teacher-forced pass serves all modes.

    - "step": teacher forced; a step is right when its answer is and, in the written mode, its label too.
    - "exact": free-running greedy decoding reproduces every predicted token.
    - "final": free-running, the last answer is right (parity: the last bit; addition: every digit after `###`).
    - "free step": free-running, the share of answers that are right.

    Chance is that of `token_chances`, over the tokens that each metric needs: with labels written, labels too. Only
    prompts with a wrong token are decoded: for the others the teacher-forced pass equals greedy decoding
    (probes/README.md, Paper and formats).
    """
    at = {mode: batch.predicted(MODES[mode]) for mode in modes}
    every = torch.cat(list(at.values())).unique()
    right = correct(model, batch, every)
    return [
        row
        for mode, own in at.items()
        for row in _accuracies(model, batch, mode, own, right[:, torch.isin(every, own)])
    ]


def token_chances(batch: Batch, at: Int[Tensor, " predicted"]) -> Float[Tensor, " predicted"]:
    """Return the chance that a guess at each position is right.

    The guess is uniform over the tokens that the format can have at that place: an answer among the format's output
    symbols, a random label among those that prompts draw from (recall: held-out labels too). A fixed label, a filler
    and a separator can only be one token: 1.
    """
    role = batch.role[at]
    chances = torch.ones(len(at), dtype=torch.float64)
    chances[_answers(batch, at)] = 1 / len(batch.format.outputs)
    if batch.format.labels == "pool":
        drawn = len(batch.vocabulary.labels) + len(batch.vocabulary.held_out) * (batch.format.task == "recall")
        chances[torch.isin(role, torch.tensor(LABEL_ROLES))] = 1 / drawn
    return chances


def chances_of(batch: Batch, mode: str) -> dict[str, float]:
    """Return the chance of each metric of `accuracies` in a mode, on prompts of the layout of `batch`."""
    at = batch.predicted(MODES[mode])
    chances = token_chances(batch, at)
    by_step = torch.stack([chances[needed].prod() for needed in _needed(batch, at)])
    found = {"step": by_step.mean(), "exact": chances.prod(), "final": chances[_final(batch, at)].prod()}
    return {name: float(x) for name, x in (found | {"free step": chances[_answers(batch, at)].mean()}).items()}


def _accuracies(
    model: PreTrainedModel,
    batch: Batch,
    mode: str,
    at: Int[Tensor, " predicted"],
    right: Bool[Tensor, "batch predicted"],
) -> list[Accuracy]:
    """Return the accuracies in one mode; `right`: whether the tokens at its positions are, teacher forced."""
    forced = MODES[mode]
    exact = right.all(dim=1)
    free = right.clone()
    if not exact.all():
        wrong = batch.rows(~exact)
        free[~exact] = generate(model, wrong, forced).tokens[:, at] == wrong.tokens[:, at]

    answers = _answers(batch, at)
    steps = _by_step(right, batch, at)
    final = free[:, _final(batch, at)].all(dim=1)
    n = len(batch)
    length = batch.length if isinstance(batch.length, int) else max(batch.length)
    estimates = {
        "step": clustered_proportion(steps),
        "exact": wilson(int(exact.sum()), n),
        "final": wilson(int(final.sum()), n),
        "free step": clustered_proportion(free[:, answers]),
    }
    return [
        Accuracy(metric=metric, mode=mode, length=length, estimate=estimates[metric], chance=chance, n=n)
        for metric, chance in chances_of(batch, mode).items()
    ]


def _answers(batch: Batch, at: Tensor) -> Bool[Tensor, " predicted"]:
    return torch.isin(batch.role[at], torch.tensor((Role.OUTPUT, Role.ANSWER)))


def _final(batch: Batch, at: Tensor) -> Bool[Tensor, " predicted"]:
    if batch.format.task == "addition":
        return batch.role[at] == Role.ANSWER
    final = torch.zeros(len(at), dtype=torch.bool)
    final[_answers(batch, at).nonzero()[-1]] = True  # a label may follow it
    return final


def _by_step(right: Tensor, batch: Batch, at: Tensor) -> Bool[Tensor, "batch step"]:
    """Return whether each step is right: its answer, and every label or filler that is written for it."""
    return torch.stack([right[:, needed].all(dim=1) for needed in _needed(batch, at)], dim=1)


def _needed(batch: Batch, at: Tensor) -> list[Bool[Tensor, " predicted"]]:
    """Return for each answer which of the predicted tokens must be right for its step to be."""
    role, step = batch.role[at], batch.step[at]
    needed = []
    for index in _answers(batch, at).nonzero().flatten().tolist():
        same = step == step[index]
        if role[index] == Role.ANSWER:
            same &= torch.isin(role, torch.tensor((Role.ANSWER, Role.ANSWER_LABEL)))
        else:
            same &= torch.isin(role, torch.tensor((Role.OUTPUT, Role.OUTPUT_LABEL, Role.FILLER)))
        needed.append(same)
    return needed
