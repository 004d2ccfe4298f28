"""What the largest interventions read: margins at all output steps, and their normalisation by edited inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import Readout
from interp.patching.token_edits import readouts
from interp.tasks import Batch, Role, counterfactual
from interp.tasks.layout import generator
from probes.evidence import Evidence, EvidenceKey, Interval
from probes.intervals import ratio
from probes.trials.parity import Trials

# Margins at all steps `[batch n]`, and the likeliest tokens.
StepMargins = tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]
# Added to the seed, so that steps, halves and prompts are drawn independently.
STEPS, HALVES = 200_000_000, 300_000_000


@dataclass(frozen=True, eq=False)
class Readings:
    """Prompts with the answer and another answer at every output step, and one step per prompt that is edited.

    Shapes:
        step:   `[batch]`, 1-based. In parity all steps are equally frequent; in addition they are those of the trials.
        answer: `[batch n]`, the index of the written answer among the format's output symbols.
        other:  `[batch n]`, the index of another answer: the other bit, or a neighbouring digit.
    """

    batch: Batch
    step: Int[Tensor, " batch"]
    answer: Int[Tensor, "batch n"]
    other: Int[Tensor, "batch n"]

    def __len__(self) -> int:
        return len(self.batch)

    def rows(self, index: Int[Tensor, " rows"] | Bool[Tensor, " batch"] | slice) -> Readings:
        """Return some of the prompts."""
        tensors = {name: getattr(self, name)[index] for name in ("step", "answer", "other")}
        return replace(self, batch=self.batch.rows(index), **tensors)

    @property
    def length(self) -> int:
        """Bits, or digits of the longer operand."""
        return self.batch.length if isinstance(self.batch.length, int) else max(self.batch.length)

    @property
    def edited(self) -> Batch:
        """The prompts with the input of `step` edited and the written scratchpad kept."""
        return counterfactual.flip_input(self.batch, self.step)

    def at_step(self, values: Tensor) -> Tensor:
        """Return the values `[batch n]` at each prompt's `step`."""
        return values[torch.arange(len(self)), self.step - 1]

    def tokens_at_step(self) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]:
        """Return the token ids of the answer and of the other answer at each prompt's `step`."""
        symbols = self.batch.vocabulary.tokens(self.batch.format.outputs)
        return symbols[self.at_step(self.answer)], symbols[self.at_step(self.other)]


def readings_of(trials: Trials, plain: Batch, seed: int) -> Readings:
    """Return the readings at one length: of ordinary prompts in parity, of the trials in addition.

    Trials of parity never read the first three steps nor the last one; ordinary prompts have all of them.
    """
    parity = plain.format.task == "parity"
    batch = plain if parity else trials.batch
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    written = batch.tokens[:, batch.at(Role.OUTPUT)]
    answer = (written.unsqueeze(2) == symbols).long().argmax(dim=2)
    if parity:
        step = 1 + torch.randperm(len(batch), generator=generator(STEPS + seed)) % answer.shape[1]
        return Readings(batch, step, answer, 1 - answer)
    other = torch.where(answer == len(symbols) - 1, answer - 1, answer + 1)
    # The answer after the edit, which the full effect is measured with.
    other[torch.arange(len(batch)), trials.step - 1] = (trials.other.unsqueeze(1) == symbols).long().argmax(dim=1)
    return Readings(batch, trials.step, answer, other)


def margins_after(
    model: PreTrainedModel, readings: Readings, edited: Mapping[str, Batch]
) -> tuple[StepMargins, dict[str, StepMargins]]:
    """Return logit(answer) - logit(other) at all steps, teacher-forced, and the likeliest tokens.

    Those of the readings' prompts, and those of edited copies of them by name.
    """
    at = readings.batch.at(Role.OUTPUT)
    base, outputs = readouts(model, readings.batch, edited, at)

    def margins(found: Readout) -> StepMargins:
        answer, other = (found.logits.gather(2, x.unsqueeze(2)).squeeze(2) for x in (readings.answer, readings.other))
        return answer - other, found.likeliest

    return margins(base), {name: margins(found) for name, found in outputs.items()}


def halves(count: int, seed: int) -> Bool[Tensor, " prompt"]:
    """Return a random half of the prompts, as a mask."""
    return torch.randperm(count, generator=generator(HALVES + seed)) % 2 == 0


def strongest(effects: Float[Tensor, "member prompt"], half: Bool[Tensor, " prompt"]) -> Int[Tensor, " prompt"]:
    """Return for each prompt the member of a family with the largest mean effect in the other half of the prompts.

    Choice and estimate never share a prompt, so choosing the largest of several noisy means does not inflate it.
    """
    first, second = (effects[:, mask].mean(dim=1).argmax() for mask in (half, ~half))
    return torch.where(half, second, first)


def of_members(values: Float[Tensor, "member prompt"], chosen: Int[Tensor, " prompt"]) -> Float[Tensor, " prompt"]:
    """Return each prompt's value at the member that was chosen for it."""
    return values.gather(0, chosen.unsqueeze(0)).squeeze(0)


def effect_of_strongest(
    effects: Float[Tensor, "member prompt"], full: Float[Tensor, " prompt"], half: Bool[Tensor, " prompt"]
) -> tuple[Interval, Int[Tensor, " prompt"]]:
    """Return the effect of the strongest member over the mean full effect, and which member each prompt has."""
    chosen = strongest(effects, half)
    return ratio(of_members(effects, chosen), full), chosen


def evidence_on(
    batch: Batch,
    key: EvidenceKey,
    question: str,
    quantity: str,
    value: Interval,
    control: Interval | None = None,
    details: dict | None = None,
) -> Evidence:
    """Return evidence that was measured on all prompts of a batch."""
    return Evidence(
        key=key,
        question=question,
        length=len(batch.at(Role.OUTPUT)),
        quantity=quantity,
        value=value,
        control=control,
        n=len(batch),
        details=details or {},
    )


def largest_evidence(
    key: EvidenceKey,
    question: str,
    read: Readings | Trials,
    value: Interval,
    control: Interval | None,
    details: dict | None = None,
) -> Evidence:
    """Return the evidence of a largest intervention: the mean absolute change of the margin over the full effect."""
    return Evidence(
        key=key,
        question=question,
        length=read.length,
        quantity="mean |change| over the full effect",
        value=value,
        control=control,
        n=len(read),
        details=details or {},
    )
