"""Addresses: trade the labels that may address a step, one at a time and two jointly, and patch their attention.

M1, M2 and M4 assume that a step is addressed by its own label. Here the labels before or after it are traded too, and
two of them together, so that any of these addresses shows as rho. The control lies apart from all of them. Whether two
labels are all of an address shows where they stay and all other labels are reassigned (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange
from interp.patching.interchange_parts import whole_run
from interp.tasks import Batch, Role, counterfactual, parity
from interp.tasks.layout import generator
from probes import keys
from probes.arms.largest_identity import UNEXPLAINED, drawn_from_pool, has_other_labels
from probes.arms.m01_identity import Entries, by_cell, effects_of_edits, effects_of_entries
from probes.arms.readings import effect_of_strongest, halves, largest_evidence
from probes.evidence import Evidence, EvidenceKey
from probes.intervals import ratio
from probes.trials.parity import Trials, balanced, one_of

QUESTIONS = {
    Role.INPUT_LABEL: "trade in the input: {labels}. Does the answer follow?",
    Role.OUTPUT_LABEL: "trade in the output: {labels}. Does the answer follow?",
}
# Entries beside trades on either side.
EDITED, ATTENTION = "edited", "attention"
SIDES = (Role.INPUT_LABEL, Role.OUTPUT_LABEL)
ATTENTION_QUESTION = "does the attention alone carry the effect of a trade of {labels}?"
OTHERS_QUESTION = "all labels but {labels} are reassigned: how much of the margin does identity move at most?"
# Members of the family that reassigns the other labels of either side.
PERMUTED, RENAMED = "permutation", "renaming"


def measure_addresses(model: PreTrainedModel, trials: Trials, size: int, seed: int = 0) -> list[Evidence]:
    """Measure rho for each of `keys.ADDRESSES`: its labels are traded between the step and its partner, on either side.

    "attention" patches the attention scores of the run with traded input labels into the original run, as M4. The
    control trades two labels with different bits that are neither those of the step and of its partner nor next to
    them, so that no address here predicts an effect. At most about `size` of the trials that have such steps count,
    equally many per cell; an address is left out where a cell has fewer than two.

    Where two labels move the answer together more than either does alone, or each does alone, "others" is the mean
    |change| while they stay and all other labels of one side are permuted, or become labels that the prompt lacks. Its
    control is a consistent renaming.
    """
    steps = len(trials.batch.at(Role.OUTPUT))
    others, found = _bystanders(trials, steps, seed)
    possible = {address: _possible(trials, address.offsets, found, size) for address in keys.ADDRESSES.values()}
    possible = {address: rows for address, rows in possible.items() if len(rows)}
    if not possible:
        return []
    every = torch.cat(list(possible.values())).unique()
    matched = _matched(model, trials.rows(every), (others[0][every], others[1][every]))
    measured = []
    for address, rows in possible.items():
        at = torch.searchsorted(every, rows)
        measured += _at_offsets(model, trials.rows(rows), address, {name: x[at] for name, x in matched.items()})
    moved = {e.key: e.value.value for e in measured}
    for address, rows in possible.items():
        if address.others is not None and _may_be_joint(address, moved):
            full = matched[EDITED][torch.searchsorted(every, rows)]
            measured.append(measure_others(model, trials.rows(rows), address, full, seed))
    return measured


def trade(batch: Batch, trials: Trials, offsets: tuple[int, ...], role: Role) -> Batch:
    """Return the prompts in which the labels at some offsets from the step and its partner are traded, on one side."""
    for offset in offsets:
        batch = counterfactual.swap_labels(batch, trials.step + offset, trials.partner + offset, role=role)
    return batch


def _matched(
    model: PreTrainedModel, trials: Trials, bystanders: tuple[Tensor, Tensor]
) -> dict[str, Float[Tensor, " trial"]]:
    """Return what all addresses share: the effect of editing the step's bit, and those of trading the bystanders."""
    inputs, outputs = (counterfactual.swap_labels(trials.batch, *bystanders, role=role) for role in SIDES)
    return effects_of_entries(model, trials, {EDITED: [whole_run(trials.edited)], **_traded(inputs, outputs)})


def _traded(inputs: Batch, outputs: Batch) -> Entries:
    """Return the entries of prompts with labels traded on either side, and of the attention of the former."""
    return {
        Role.INPUT_LABEL.name: [whole_run(inputs)],
        Role.OUTPUT_LABEL.name: [whole_run(outputs)],
        ATTENTION: [Interchange("attn_scores", inputs)],
    }


def _at_offsets(
    model: PreTrainedModel, trials: Trials, address: keys.Address, matched: Mapping[str, Float[Tensor, " trial"]]
) -> list[Evidence]:
    """Return the evidence on one address. `matched`: what `_matched` returns of these trials."""
    inputs, outputs = (trade(trials.batch, trials, address.offsets, role) for role in SIDES)
    effects, full = effects_of_entries(model, trials, _traded(inputs, outputs)), matched[EDITED]

    def evidence(key: EvidenceKey, question: str, entry: str) -> Evidence:
        return Evidence(
            key=key,
            question=question.format(labels=address.name),
            length=trials.length,
            quantity="rho",
            value=by_cell(effects[entry], full, trials),
            control=ratio(matched[entry], full, strata=trials.strata),
            n=len(trials),
        )

    return [
        evidence(address.inputs, QUESTIONS[Role.INPUT_LABEL], Role.INPUT_LABEL.name),
        evidence(address.outputs, QUESTIONS[Role.OUTPUT_LABEL], Role.OUTPUT_LABEL.name),
        evidence(address.attention, ATTENTION_QUESTION, ATTENTION),
    ]


def _may_be_joint(address: keys.Address, moved: Mapping[EvidenceKey, float]) -> bool:
    """Return whether trades of two labels move the answer more than that of either alone does, or each alone does."""
    both = moved[address.inputs]
    alone = [moved.get(keys.ADDRESSES[offset,].inputs, 0.0) for offset in address.offsets]
    return both > max(alone) + UNEXPLAINED or min(alone) > UNEXPLAINED


def measure_others(
    model: PreTrainedModel, trials: Trials, address: keys.Address, full: Float[Tensor, " trial"], seed: int
) -> Evidence:
    """Return what all labels but those of an address move, by the strongest way of reassigning them.

    The value is the mean |change of the margin| over the full effect. Zero where these labels are all of an address.
    """
    assert address.others is not None
    has_pool = trials.batch.format.labels == "pool"
    edits = {"control": counterfactual.rename_labels(trials.batch, seed + 1)} if has_pool else {}
    for role in SIDES:
        edits |= reassigned_but(trials, address.offsets, role, seed)
    effects = {name: effect.abs() for name, (effect, _) in effects_of_edits(model, trials, edits).items()}
    control = ratio(effects.pop("control"), full) if "control" in effects else None
    value, _ = effect_of_strongest(torch.stack(list(effects.values())), full, halves(len(trials), seed))
    family = {"family": {name: ratio(effect, full).value for name, effect in effects.items()}}
    return largest_evidence(address.others, OTHERS_QUESTION.format(labels=address.name), trials, value, control, family)


def reassigned_but(trials: Trials, offsets: tuple[int, ...], role: Role, seed: int) -> dict[str, Batch]:
    """Return the prompts with all labels of one side reassigned but those at some offsets from the step, by name.

    They are permuted; where the labels are of a pool, they also become labels that the prompt does not contain.
    """
    batch, side = trials.batch, "inputs" if role == Role.INPUT_LABEL else "outputs"
    at, gen = batch.at(role), generator(seed + int(role))
    number = torch.arange(1, len(at) + 1)
    stays = torch.stack([number == (trials.step + offset).unsqueeze(1) for offset in offsets]).any(dim=0)
    # Places in their own order, and in random order; in both, those that stay come first and in their own order.
    places = (~stays).int().argsort(dim=1, stable=True)
    drawn = torch.rand(stays.shape, generator=gen).masked_fill(stays, -1.0).argsort(dim=1, stable=True)
    source = torch.empty_like(drawn).scatter_(1, places, drawn)
    own = batch.tokens[:, at]
    found = {f"{PERMUTED}, {side}": own.gather(1, source)}
    if has_other_labels(batch):
        found[f"{RENAMED}, {side}"] = torch.where(stays, own, drawn_from_pool(batch, len(at), gen))
    edited = dict[str, Batch]()
    for name, labels in found.items():
        tokens = batch.tokens.clone()
        tokens[:, at] = labels
        edited[name] = batch.with_tokens(tokens)
    return edited


def _possible(
    trials: Trials, offsets: tuple[int, ...], found: Bool[Tensor, " batch"], size: int
) -> Int[Tensor, " row"]:
    """Return the rows of the trials that have the labels of an address, and bystanders (`found`); none for too few."""
    steps = len(trials.batch.at(Role.OUTPUT))
    shift = torch.tensor(offsets).unsqueeze(1)
    own, partners = trials.step + shift, trials.partner + shift
    exist = ((own >= 1) & (own <= steps) & (partners >= 1) & (partners <= steps)).all(dim=0)
    # The partner's labels must not be next to the step either: they could address it.
    apart = ((partners - trials.step).abs() > 1).all(dim=0)
    return balanced(trials.cell, exist & apart & found, size, trials.cell.unique().tolist())


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
