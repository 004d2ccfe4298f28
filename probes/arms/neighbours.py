"""Address by neighbours: swap the labels before or after those that M1 and M2 swap, and patch their attention.

M1, M2 and M4 assume that a step is addressed by its own label. Here the labels of the neighbouring steps are swapped
instead, so that an address by the label before or after shows as rho (probes/README.md, Battery).
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange, interchange
from interp.tasks import Batch, Role, counterfactual, parity
from interp.tasks.layout import generator
from probes import keys
from probes.arms.m01_identity import by_cell, full_effect, margins
from probes.arms.m04_routes import answer_margin
from probes.evidence import Evidence, EvidenceKey
from probes.intervals import ratio
from probes.trials.parity import Trials, one_of

QUESTIONS = {
    Role.INPUT_LABEL: "{label} is swapped in the input: does the answer follow it?",
    Role.OUTPUT_LABEL: "{label} is swapped in the output: does the answer follow it?",
}
ATTENTION_QUESTION = "does the attention alone carry the effect of a swap of {label}?"


def measure_neighbours(model: PreTrainedModel, trials: Trials, seed: int = 0) -> list[Evidence]:
    """Measure rho when the labels one step before (after) the step and its partner are swapped, on either side.

    "attention" patches the attention scores of the run with swapped input labels into the original run, as M4. The
    control of each swaps two labels with different bits that are neither those of the step and of its partner nor next
    to them. Trials without such steps are left out. A cell with fewer than two trials leaves the offset out.
    """
    measured = []
    for offset, neighbour in keys.NEIGHBOURS.items():
        possible, bystanders = _possible(trials, offset, seed)
        if possible is not None:
            measured += _at_offset(model, possible, offset, neighbour, bystanders)
    return measured


def _at_offset(
    model: PreTrainedModel,
    trials: Trials,
    offset: int,
    neighbour: keys.Neighbour,
    bystanders: tuple[Tensor, Tensor],
) -> list[Evidence]:
    """Return the evidence on the labels at one offset from those of the step and its partner."""
    full, pair = full_effect(model, trials), (trials.step + offset, trials.partner + offset)
    clean, _ = margins(model, trials.batch, trials)

    def swapped(role: Role) -> tuple[Batch, Batch]:
        """Return the prompts with the pair's labels swapped, and with those of the bystanders."""
        one, other = (counterfactual.swap_labels(trials.batch, *steps, role=role) for steps in (pair, bystanders))
        return one, other

    def evidence(key: EvidenceKey, question: str, effect: Tensor, control: Tensor) -> Evidence:
        return Evidence(
            key=key,
            question=question.format(label=neighbour.name),
            length=trials.length,
            quantity="rho",
            value=by_cell(effect, full, trials),
            control=ratio(control, full, strata=trials.strata),
            n=len(trials),
        )

    measured = []
    for key, role in ((neighbour.inputs, Role.INPUT_LABEL), (neighbour.outputs, Role.OUTPUT_LABEL)):
        effect, control = (clean - margins(model, batch, trials)[0] for batch in swapped(role))
        measured.append(evidence(key, QUESTIONS[role], effect, control))
    sources = dict(zip(("swap", "control"), swapped(Role.INPUT_LABEL), strict=True))
    entries = {name: [Interchange("attn_scores", source)] for name, source in sources.items()}
    effect, control = -interchange(model, trials.batch, entries, answer_margin(trials)).change
    return [*measured, evidence(neighbour.attention, ATTENTION_QUESTION, effect, control)]


def _possible(trials: Trials, offset: int, seed: int) -> tuple[Trials | None, tuple[Tensor, Tensor]]:
    """Return the trials with neighbours and bystanders, and the bystanders; None where a cell is nearly empty."""
    steps = len(trials.batch.at(Role.OUTPUT))
    pair = torch.stack([trials.step + offset, trials.partner + offset])
    # The partner's neighbour must not be the step's other neighbour.
    apart = trials.partner + offset != trials.step - offset
    bystanders, found = _bystanders(trials, steps, seed)
    chosen = ((pair >= 1) & (pair <= steps)).all(dim=0) & apart & found
    possible = trials.rows(chosen)
    counts = [int((possible.cell == c).sum()) for c in trials.cell.unique()]
    return (possible if min(counts) >= 2 else None), (bystanders[0][chosen], bystanders[1][chosen])


def _bystanders(
    trials: Trials, steps: int, seed: int
) -> tuple[tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]], Tensor]:
    """Return two steps with different bits, away from the step, the partner and their neighbours, if there are any."""
    number, bits = torch.arange(1, steps + 1), parity.read(trials.batch).bits
    near = torch.stack([(number - step.unsqueeze(1)).abs() <= 1 for step in (trials.step, trials.partner)])
    free = ~near.any(dim=0)
    pairs = free.unsqueeze(1) & free.unsqueeze(2) & (bits.unsqueeze(1) != bits.unsqueeze(2))
    pair, found = one_of(pairs.flatten(1), generator(seed))
    return (pair // steps + 1, pair % steps + 1), found
