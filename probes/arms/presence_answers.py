"""Presence, by answer: remove labels where nothing that they carry reaches the answer of this prompt at this step.

A head can read labels in some prompts and rest on them in others, or read those of one side and rest on those of the
other. It carries something, so no cell of it is idle. Whether labels inform one answer is a matter of that prompt and
step: interchange by several other prompts leaves it alone, and so must removal, unless attention has to go somewhere
(probes/README.md, Battery).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching.attention_changes import AttentionChange
from interp.tasks import Batch
from probes import keys
from probes.arms.presence_cells import Cells
from probes.arms.presence_groups import Group, groups_of
from probes.arms.presence_interchanges import ChangeOf, Interchanges, grafted, measure_edited
from probes.arms.presence_metrics import answer_accuracy
from probes.arms.presence_removals import counted, nulled
from probes.arms.presence_search import STILL
from probes.arms.presence_sources import N_BY_ANSWER, sources_by_answer
from probes.arms.readings import evidence_on, halves, of_members, strongest
from probes.evidence import Evidence, EvidenceKey, Interval
from probes.intervals import ratio

QUESTIONS = {
    keys.UNINFORMED: "labels are removed where they inform no answer: how many answers do other keys lose at most?",
    keys.UNINFORMED_CONSTANT: "labels are removed there: how many answers does a key with their average value restore?",
    keys.UNINFORMED_TWICE: "each label counts twice there: how many of these answers does that lose?",
}
QUANTITY = "share of accuracy above chance"
# Of the sources, those whose values are averaged.
AVERAGED = 4
# Groups are left out that lose less than this share of the accuracy above chance at answers that labels do not inform.
FEWEST = 0.1


@dataclass(frozen=True, eq=False)
class Lost:
    """What a group loses of the accuracy, per prompt, at answers that labels do not inform.

    `other_keys`: to other keys that share the attention, beyond what a null key of equal score loses. `restored`:
    beyond what a key of equal score with the average value loses. `interchanged`: by the source that did not choose the
    answers. `twice`: where each label counts twice.
    """

    other_keys: Float[Tensor, " prompt"]
    restored: Float[Tensor, " prompt"]
    interchanged: Float[Tensor, " prompt"]
    twice: Float[Tensor, " prompt"]


def measure_by_answer(model: PreTrainedModel, batch: Batch, idle: Cells, seed: int) -> list[Evidence]:
    """Measure the denominator at answers that labels do not inform, at one length; `idle`: cells that carry nothing.

    An answer counts where interchange of keys and values at labels, by any source, moves its margin by at most `STILL`
    of the mean margin; never that of the first step, whose state is the same in all prompts. Of the groups of cells
    (`groups_of`), the one that loses most is chosen on one half of the prompts and estimated on the other.
    """
    groups = groups_of(model, batch, idle)
    if not groups:
        return []  # labels carry nothing anywhere
    work = Interchanges(model, batch, seed, answer_accuracy(batch), sources_by_answer(batch, seed))
    lost = {name: lost_by(work, group) for name, group in groups.items()}
    clean = work.clean - 1 / len(batch.format.outputs)
    half = halves(len(batch), seed)

    def of_chosen(name: str, by: str = "other_keys") -> Interval:
        """Return what the group loses that loses most by another measure, as a share."""
        values, effects = (torch.stack([getattr(x, field) for x in lost.values()]) for field in (name, by))
        return ratio(of_members(values, strongest(effects, half)), clean, floor=1 / len(batch))

    top = sorted(lost, key=lambda name: -float(lost[name].other_keys.mean()))[:3]
    details = {"lost to other keys": {name: float(lost[name].other_keys.mean() / clean.mean()) for name in top}}

    def evidence(key: EvidenceKey, value: Interval, control: Interval, details: dict | None = None) -> Evidence:
        return evidence_on(batch, key, QUESTIONS[key], QUANTITY, value, control, details)

    control = of_chosen("interchanged")
    constant = of_chosen("restored", "restored"), of_chosen("interchanged", "restored")
    return [
        evidence(keys.UNINFORMED, of_chosen("other_keys"), control, details),
        evidence(keys.UNINFORMED_CONSTANT, *constant),
        evidence(keys.UNINFORMED_TWICE, of_chosen("twice"), control),
    ]


def lost_by(work: Interchanges, group: Group) -> Lost:
    """Return what a group loses where labels do not inform the answer; all zero where that is less than `FEWEST`.

    Removal comes first: where it loses nothing, no interchange is needed.
    """
    src = torch.isin(work.batch.role, torch.tensor(group.side))
    most = STILL * float(work.lead.abs().mean())
    least = FEWEST * (float(work.clean.mean()) - 1 / len(work.batch.format.outputs))
    wrong = leads_after(work, group, counted(src, -math.inf)) <= 0
    idle = work.lead > 0
    idle[:, 0] = False
    for k in range(N_BY_ANSWER - 1):
        if (idle & wrong).double().mean() < least:
            nothing = torch.zeros(len(work.batch), dtype=torch.float64)
            return Lost(nothing, nothing, nothing, nothing)
        idle &= (leads_after(work, group, grafted(work, k, src)) - work.lead).abs() <= most

    def lost(change_of: ChangeOf) -> Float[Tensor, " prompt"]:
        return (idle & (leads_after(work, group, change_of) <= 0)).double().mean(dim=1)

    removed = (idle & wrong).double().mean(dim=1)
    return Lost(
        other_keys=removed - lost(nulled(work, src)),
        restored=removed - lost(averaged(work, src)),
        interchanged=lost(grafted(work, N_BY_ANSWER - 1, src)),
        twice=lost(counted(src, math.log(2))),
    )


def leads_after(work: Interchanges, group: Group, change_of: ChangeOf) -> Float[Tensor, "prompt step"]:
    """Return the margins with a change of attention in the cells of a group."""
    return torch.cat([lead for _, lead in measure_edited(work, group.cells, change_of)])


def averaged(work: Interchanges, src: Bool[Tensor, " pos"]) -> ChangeOf:
    """Return the change in which the attention on labels reads the mean value of `AVERAGED` sources."""
    sources = [grafted(work, k, src) for k in range(AVERAGED)]

    def change_of(layer: int, mask: Tensor, rows: Tensor) -> AttentionChange:
        found = [source(layer, mask, rows) for source in sources]
        values = torch.stack([change.values for change in found if change.values is not None]).mean(dim=0)
        return replace(found[0], keys=None, values=values)

    return change_of
