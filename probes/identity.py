"""Is a label's identity an address? Interventions M1, M2 and M3 of science 2.1, on tokens alone.

M1 trades the labels of two input bits, M2 the labels of two output steps, M3 renames labels consistently.
If identity is an address, the answer follows the label in M1 and M2 and does not care in M3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import readout
from interp.tasks import Batch, Role, counterfactual
from interp.tasks.layout import generator
from probes.evidence import Evidence
from probes.intervals import LEVEL, ratio, wilson

SHORTEST = 5


@dataclass(frozen=True)
class Chosen:
    """For each prompt: the step read, the step whose label it trades with, and two steps that it does not use.

    All `[batch]`. Bits differ between `step` and `partner` and between the two `bystanders`, which come
    before `step`, so that in the control too a label that was already written changes.
    """

    batch: Batch
    step: Int[Tensor, " batch"]
    partner: Int[Tensor, " batch"]
    bystanders: tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]


def refuse(batch: Batch) -> str | None:
    """Why these interventions cannot be made on a format; None where they can."""
    fmt = batch.format
    if fmt.task != "parity":
        return f"{fmt} is not parity: its answers are not two-valued, and the margin is not defined here"
    if not fmt.labels:
        return f"{fmt} has no labels, so there is no mnemonic to test"
    symbols = fmt.fixed_labels(batch.length) if isinstance(batch.length, int) else ()
    if len(set(symbols)) < len(symbols):
        return f"{fmt} repeats labels within a prompt, so none of them is an address"
    if isinstance(batch.length, int) and batch.length < SHORTEST:
        return f"a length of at least {SHORTEST} is needed to choose a step, its partner and two bystanders"
    return None


def choose(batch: Batch, seed: int) -> Chosen:
    """Random steps for each prompt; prompts in which no such steps exist are left out.

    Raises `ValueError` for a format or length on which the interventions cannot be made.
    """
    if reason := refuse(batch):
        raise ValueError(reason)
    gen = generator(seed)
    n, size = int(batch.at(Role.INPUT).numel()), len(batch)
    bits = batch.tokens[:, batch.at(Role.INPUT)]
    number = torch.arange(n)
    step = torch.randint(3, n, (size,), generator=gen)  # zero-based: at least three steps before it
    differs = bits != bits.gather(1, step.unsqueeze(1))
    partner, has_partner = _one_of(differs, gen)
    earlier = number < step.unsqueeze(1)
    free = earlier & (number != partner.unsqueeze(1))
    pairs = free.unsqueeze(1) & free.unsqueeze(2) & (bits.unsqueeze(1) != bits.unsqueeze(2))
    pair, has_pair = _one_of(pairs.flatten(1), gen)
    good = has_partner & has_pair
    first, second = pair // n, pair % n
    return Chosen(
        batch.rows(good), step[good] + 1, partner[good] + 1, (first[good] + 1, second[good] + 1)
    )


def follow_the_label(
    model: PreTrainedModel, batch: Batch, seed: int, level: float = LEVEL
) -> list[Evidence]:
    """M1, M2 and M3 on one length: how much of the margin, and how often the answer, follows the label.

    rho = [m(x) - m(do)] / [m(x) - m(x~)], where m is the teacher-forced margin of the original answer at
    the step read and x~ is the prompt with that step's bit edited and the written scratchpad kept. Ratio of
    means over prompts. The matched control trades two labels that the step does not use. Intervals have
    the given level.
    """
    chosen = choose(batch, seed)
    x, i, j, others = chosen.batch, chosen.step, chosen.partner, chosen.bystanders
    base, _ = _margin(model, x, x, i)
    edited, _ = _margin(model, counterfactual.flip_input(x, i), x, i)
    full = base - edited
    n = len(x)
    length = int(x.at(Role.INPUT).numel())

    def measure(do: Batch):
        margin, follows = _margin(model, do, x, i)
        return ratio(base - margin, full, level), wilson(int(follows.sum()), n, level)

    def arm(name: str, question: str, do: Batch, control: Batch | None) -> Evidence:
        matched = (None, None) if control is None else measure(control)
        return Evidence(name, question, length, *measure(do), *matched, n=n)

    found = []
    for name, role, side in (("M1", Role.INPUT_LABEL, "input"), ("M2", Role.OUTPUT_LABEL, "output")):
        found.append(
            arm(
                f"{name} swap {side} labels",
                f"two {side} labels trade places: does the answer follow the label?",
                counterfactual.swap_labels(x, i, j, role=role),
                counterfactual.swap_labels(x, *others, role=role),
            )
        )
    question = "every label gets another name, the same wherever it stands: does anything change?"
    found.append(arm("M3 rename labels", question, counterfactual.rename_labels(x, seed + 1), None))
    if length <= len(x.vocabulary.held_out):
        renamed = counterfactual.rename_labels(x, seed + 2, held_out=True)
        question = "as M3, with names that no prompt of the task ever contained in training"
        found.append(arm("M3 rename to held-out labels", question, renamed, None))
    return found


def _margin(
    model: PreTrainedModel, batch: Batch, original: Batch, step: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """logit(original answer) - logit(the other one) at each prompt's step; whether the other one is likeliest."""
    at = original.at(Role.OUTPUT)
    rows, column = torch.arange(len(original)), step - 1
    found = readout(model, batch, at)
    symbols = original.vocabulary.tokens(original.format.outputs)
    answer = (original.tokens[rows, at[column]].unsqueeze(1) == symbols).long().argmax(dim=1)
    logits = found.logits[rows, column]
    margin = logits[rows, answer] - logits[rows, 1 - answer]
    return margin, found.likeliest[rows, column] == symbols[1 - answer]


def _one_of(
    allowed: Bool[Tensor, "batch choice"], gen: torch.Generator
) -> tuple[Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """A uniformly random allowed choice in each row, and whether there is one."""
    any_allowed = allowed.any(dim=1)
    noise = torch.rand(allowed.shape, generator=gen)
    return torch.where(allowed, noise, -1.0).argmax(dim=1), any_allowed
