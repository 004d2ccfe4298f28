"""Largest content intervention: K and V of all label positions from a run with the same labels and other bits.

M5 changes one earlier bit. This arm tests whether anything that label positions hold of the input matters: its effect
is zero in every model that reads no content at labels (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange, interchange, margin
from interp.patching.interchange_parts import whole_run
from interp.tasks import LABEL_ROLES, Batch, Role, counterfactual, parity
from interp.tasks.layout import generator
from probes import keys
from probes.arms.readings import Readings, effect_of_strongest, halves, largest_evidence
from probes.evidence import Evidence
from probes.intervals import ratio
from probes.trials.parity import labels_to_patch

SIDES: Mapping[str, tuple[Role, ...]] = {
    "inputs": (Role.INPUT_LABEL,),
    "outputs": (Role.OUTPUT_LABEL,),
    "both": LABEL_ROLES,
}
QUESTION = "K and V of all labels come from a run with other bits: how much of the margin does content move at most?"
REST = "the same, in prompts whose source has the same parity before and after the step: does content move the margin?"
# Added to the seed of sources, so that no other prompts of a battery have it.
REDRAWN = 100_000_000
# Fewest prompts whose source has the same parity before and after the step.
FEWEST = 8


def measure_content(model: PreTrainedModel, readings: Readings, seed: int) -> list[Evidence]:
    """Measure the largest content intervention at one length; each prompt reads one step.

    In every layer and head, V at labels (attention frozen) or K and V (attention free) come from a run with the same
    labels and all inputs redrawn: at input labels, output labels or both. The value is the mean |change of the margin|
    over the full effect, for the strongest of the six. A placeholder by rho has about rho / 2 in parity, because half
    of the sources have the same state. The control redraws only later bits, and patches both sides. The position that
    predicts the answer and the step's own output label keep their values: they hold what they have just read.
    """
    batch, half = readings.batch, halves(len(readings), seed)
    redrawn = counterfactual.redraw(batch, REDRAWN + seed, keep="labels")
    entries = interventions(readings, redrawn)
    names = list(entries)
    if batch.format.task == "parity":
        controls = interventions(readings, later_redrawn(readings, seed), {"both": SIDES["both"]})
        entries |= {f"control: {name}": parts for name, parts in controls.items()}
    metric = margin(batch, readings.step, *readings.tokens_at_step())
    effect = interchange(model, batch, entries | {"edited": [whole_run(readings.edited)]}, metric)
    full, changes, clean = -effect.change[-1], effect.change[:-1].abs().double(), effect.base
    count = len(names)
    value, chosen = effect_of_strongest(changes[:count], full, half)
    control = effect_of_strongest(changes[count:], full, half)[0] if len(entries) > count else None
    flipped = changes[:count].gather(0, chosen.unsqueeze(0)).squeeze(0) > clean.abs()
    details = {
        # A change larger than the margin is needed to change the answer: an upper bound.
        "answers changed at most": float(flipped.double().mean()),
        "strongest": sorted({names[k] for k in chosen.tolist()}),
        "family": {name: ratio(c, full).value for name, c in zip(names, changes, strict=False)},
    }
    measured = [largest_evidence(keys.LARGEST_CONTENT, QUESTION, readings, value, control, details)]
    if batch.format.task == "parity":
        same = source_has_same_state(readings, redrawn)
        if min(int((same & half).sum()), int((same & ~half).sum())) >= FEWEST // 2:
            # Over all prompts, so that the full effect is that of all.
            terms = changes[:count] * same / same.double().mean()
            rest, _ = effect_of_strongest(terms, full, half)
            measured.append(largest_evidence(keys.CONTENT_REST, REST, readings, rest, control))
    return measured


def interventions(
    readings: Readings, source: Batch, sides: Mapping[str, tuple[Role, ...]] = SIDES
) -> dict[str, list[Interchange]]:
    """Return the interventions by name: each side, with attention frozen and free."""
    entries: dict[str, list[Interchange]] = {}
    for side, roles in sides.items():
        at = labels_to_patch(readings.batch, readings.step, roles)
        entries[f"{side}, frozen"] = [Interchange("attn_scores", readings.batch), Interchange("v", source, at)]
        entries[f"{side}, free"] = [Interchange("k", source, at), Interchange("v", source, at)]
    return entries


def later_redrawn(readings: Readings, seed: int) -> Batch:
    """Return prompts of parity with the same labels, and the bits after each prompt's step redrawn."""
    batch = readings.batch
    content = parity.read(batch)
    random = torch.randint(2, content.bits.shape, generator=generator(REDRAWN + seed))
    later = torch.arange(1, content.bits.shape[1] + 1) > readings.step.unsqueeze(1)
    bits = torch.where(later, random, content.bits)
    redrawn = parity.ParityContent(bits, content.input_labels, content.output_labels)
    return parity.write(redrawn, batch.format, batch.vocabulary)


def source_has_same_state(readings: Readings, source: Batch) -> Bool[Tensor, " batch"]:
    """Return in which prompts of parity the source has the same bit and the same parity at the step."""
    ours, theirs = parity.read(readings.batch), parity.read(source)
    return readings.at_step((ours.bits == theirs.bits) & (ours.parities == theirs.parities))
