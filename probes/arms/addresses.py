"""Addresses: trade the labels that may address a step, one at a time and two jointly, and patch their attention.

M1, M2 and M4 assume that a step is addressed by its own label. Here the labels before or after it are traded too, and
two of them together, so that any of these addresses shows as rho. The control lies apart from all of them
(probes/README.md, Battery).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange, interchange
from interp.patching.interchange_parts import whole_run
from interp.tasks import Batch, Role, counterfactual, parity
from interp.tasks.layout import generator
from probes import keys
from probes.arms.m01_identity import by_cell
from probes.arms.m04_routes import answer_margin
from probes.evidence import Evidence, EvidenceKey
from probes.intervals import ratio
from probes.trials.parity import Trials, balanced, one_of

QUESTIONS = {
    Role.INPUT_LABEL: "trade in the input: {labels}. Does the answer follow?",
    Role.OUTPUT_LABEL: "trade in the output: {labels}. Does the answer follow?",
}
ATTENTION_QUESTION = "does the attention alone carry the effect of a trade of {labels}?"


def measure_addresses(model: PreTrainedModel, trials: Trials, size: int, seed: int = 0) -> list[Evidence]:
    """Measure rho for each of `keys.ADDRESSES`: its labels are traded between the step and its partner, on either side.

    "attention" patches the attention scores of the run with traded input labels into the original run, as M4. The
    control trades two labels with different bits that are neither those of the step and of its partner nor next to
    them, so that no address here predicts an effect. At most about `size` of the trials that have such steps count,
    equally many per cell; an address is left out where a cell has fewer than two.
    """
    measured = []
    for address in keys.ADDRESSES.values():
        possible, bystanders = _possible(trials, address.offsets, size, seed)
        if possible is not None:
            measured += _at_offsets(model, possible, address, bystanders)
    return measured


def trade(batch: Batch, trials: Trials, offsets: tuple[int, ...], role: Role) -> Batch:
    """Return the prompts in which the labels at some offsets from the step and its partner are traded, on one side."""
    for offset in offsets:
        batch = counterfactual.swap_labels(batch, trials.step + offset, trials.partner + offset, role=role)
    return batch


def _at_offsets(
    model: PreTrainedModel, trials: Trials, address: keys.Address, bystanders: tuple[Tensor, Tensor]
) -> list[Evidence]:
    """Return the evidence on one address."""

    def traded(role: Role) -> tuple[Batch, Batch]:
        """Return the prompts with the address traded, and with the labels of the bystanders traded."""
        other = counterfactual.swap_labels(trials.batch, *bystanders, role=role)
        return trade(trials.batch, trials, address.offsets, role), other

    def evidence(key: EvidenceKey, question: str, effect: Tensor, control: Tensor) -> Evidence:
        return Evidence(
            key=key,
            question=question.format(labels=address.name),
            length=trials.length,
            quantity="rho",
            value=by_cell(effect, full, trials),
            control=ratio(control, full, strata=trials.strata),
            n=len(trials),
        )

    sides = {address.inputs: Role.INPUT_LABEL, address.outputs: Role.OUTPUT_LABEL}
    edits = {"edited": trials.edited}
    for key, role in sides.items():
        edits |= dict(zip((key.name, f"control of {key.name}"), traded(role), strict=True))
    inputs = address.inputs.name
    entries = {name: [whole_run(batch)] for name, batch in edits.items()}
    entries |= {
        entry: [Interchange("attn_scores", edits[name])]
        for entry, name in (("attention", inputs), ("control of attention", f"control of {inputs}"))
    }
    changes = -interchange(model, trials.batch, entries, answer_margin(trials)).change
    effects = dict(zip(entries, changes, strict=True))
    full = effects["edited"]
    measured = [
        evidence(key, QUESTIONS[role], effects[key.name], effects[f"control of {key.name}"])
        for key, role in sides.items()
    ]
    attention = evidence(address.attention, ATTENTION_QUESTION, effects["attention"], effects["control of attention"])
    return [*measured, attention]


def _possible(
    trials: Trials, offsets: tuple[int, ...], size: int, seed: int
) -> tuple[Trials | None, tuple[Tensor, Tensor]]:
    """Return the trials with the labels of an address and bystanders, and the bystanders; None for too few."""
    steps = len(trials.batch.at(Role.OUTPUT))
    shift = torch.tensor(offsets).unsqueeze(1)
    own, partners = trials.step + shift, trials.partner + shift
    exist = ((own >= 1) & (own <= steps) & (partners >= 1) & (partners <= steps)).all(dim=0)
    # The partner's labels must not be next to the step either: they could address it.
    apart = ((partners - trials.step).abs() > 1).all(dim=0)
    bystanders, found = _bystanders(trials, steps, seed)
    index = balanced(trials.cell, exist & apart & found, size, trials.cell.unique().tolist())
    bystanders = (bystanders[0][index], bystanders[1][index])
    return (trials.rows(index) if len(index) else None), bystanders


def _bystanders(
    trials: Trials, steps: int, seed: int
) -> tuple[tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]], Bool[Tensor, " batch"]]:
    """Return two steps with different bits, away from the step, the partner and their neighbours, if there are any."""
    number, bits = torch.arange(1, steps + 1), parity.read(trials.batch).bits
    near = torch.stack([(number - step.unsqueeze(1)).abs() <= 1 for step in (trials.step, trials.partner)])
    free = ~near.any(dim=0)
    pairs = free.unsqueeze(1) & free.unsqueeze(2) & (bits.unsqueeze(1) != bits.unsqueeze(2))
    pair, found = one_of(pairs.flatten(1), generator(seed))
    return (pair // steps + 1, pair % steps + 1), found
