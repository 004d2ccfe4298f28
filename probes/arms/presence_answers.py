"""Presence, by answer: remove labels where nothing that they carry reaches the answer of this prompt at this step.

A head can read labels in some prompts and rest on them in others, or read those of one side and rest on those of the
other. It carries something, so no cell of it is idle. Whether labels inform one answer is a matter of that prompt and
step: interchange by several other prompts leaves it alone, and so must removal, unless attention has to go somewhere
(probes/README.md, Battery).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching.attention_changes import AttentionChange
from interp.tasks import Batch
from probes import keys
from probes.arms.group_search import FEWER_PROMPTS, MANY_UNITS
from probes.arms.idle_heads import all_heads
from probes.arms.presence_cells import Cells
from probes.arms.presence_groups import Group, groups_of
from probes.arms.presence_interchanges import (
    Interchanges,
    grafted,
    masks_of_cells,
    measure_all,
)
from probes.arms.presence_metrics import answer_accuracy
from probes.arms.presence_removals import counted, nulled
from probes.arms.presence_search import STILL
from probes.arms.presence_sharing import ChangeOf, ChangesBy
from probes.arms.presence_sources import N_BY_ANSWER, sources_by_answer
from probes.arms.readings import evidence_on, halves, of_members, strongest
from probes.evidence import Evidence, EvidenceKey, Interval
from probes.intervals import ratio

# Takes labels, and returns a change of the attention on them.
ChangeAt = Callable[[Bool[Tensor, " pos"]], ChangeOf]
# By group, which answers are meant.
Marks = dict[str, Bool[Tensor, "prompt step"]]
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
    lost = lost_by(work, groups)
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


def lost_by(work: Interchanges, groups: Mapping[str, Group]) -> dict[str, Lost]:
    """Return what each group loses where labels do not inform the answer; zero where that is less than `FEWEST`.

    Of many heads, groups are first measured on a quarter of the prompts, at least `FEWER_PROMPTS`; those that lose less
    than half of `FEWEST` there count as losing nothing. All groups that are left meet one source before the next, so
    that runs of sources are shared.
    """
    nothing = torch.zeros(len(work.batch), dtype=torch.float64)
    found = dict.fromkeys(groups, Lost(nothing, nothing, nothing, nothing))
    least = least_lost(work)
    if len(all_heads(work.anatomy.raw)) > MANY_UNITS and len(work.batch) > FEWER_PROMPTS:
        few = on_first(work, max(FEWER_PROMPTS, len(work.batch) // 4))
        groups = losing(*after_first(few, groups, least / 2), least / 2)
    left, idle, wrong = after_first(work, groups, least)
    for k in range(1, N_BY_ANSWER - 1):
        left = losing(left, idle, wrong, least)
        idle |= unmoved(work, k, left, idle)

    def lost(change: ChangeAt) -> dict[str, Float[Tensor, " prompt"]]:
        leads = leads_after(work, left, change)
        return {name: (idle[name] & (lead <= 0)).double().mean(dim=1) for name, lead in leads.items()}

    null, mean = lost(lambda src: nulled(work, src)), lost(lambda src: averaged(work, src))
    interchanged = lost(lambda src: grafted(work, N_BY_ANSWER - 1, src))
    twice = lost(lambda src: counted(src, math.log(2)))
    for name in left:
        removed = (idle[name] & wrong[name]).double().mean(dim=1)
        found[name] = Lost(removed - null[name], removed - mean[name], interchanged[name], twice[name])
    return found


def least_lost(work: Interchanges) -> float:
    """Return the smallest share of answers that counts as lost: `FEWEST` of the accuracy above chance."""
    return FEWEST * (float(work.clean.mean()) - 1 / len(work.batch.format.outputs))


def on_first(work: Interchanges, n_prompts: int) -> Interchanges:
    """Return the same interchanges on the first prompts."""
    batch, *sources = (x.rows(slice(n_prompts)) for x in (work.batch, *work.sources))
    return Interchanges(work.anatomy.raw, batch, 0, answer_accuracy(batch), sources)


def after_first(work: Interchanges, groups: Mapping[str, Group], least: float) -> tuple[dict[str, Group], Marks, Marks]:
    """Return the groups that may lose `least`, what labels may not inform by the first source, and what removal loses.

    Removal comes before interchange: where it loses nothing, none is needed. In wide groups the first source comes
    before it, because labels inform nearly all of their answers.
    """
    right = work.lead > 0
    right[:, 0] = False
    idle, done = dict.fromkeys(groups, right), wide(groups)
    idle |= unmoved(work, 0, {name: groups[name] for name in done}, idle)
    left = {name: group for name, group in groups.items() if idle[name].double().mean() >= least}
    wrong = {name: lead <= 0 for name, lead in leads_after(work, left, lambda src: counted(src, -math.inf)).items()}
    left = losing(left, idle, wrong, least)
    idle |= unmoved(work, 0, {name: group for name, group in left.items() if name not in done}, idle)
    return left, idle, wrong


def losing(groups: Mapping[str, Group], idle: Marks, wrong: Marks, least: float) -> dict[str, Group]:
    """Return the groups that lose at least this share of all answers, where labels may not inform them."""
    return {name: group for name, group in groups.items() if (idle[name] & wrong[name]).double().mean() >= least}


def unmoved(work: Interchanges, k: int, groups: Mapping[str, Group], idle: Marks) -> Marks:
    """Return, of the answers in `idle`, those whose margin source number `k` moves by at most `STILL` of the mean."""
    most = STILL * float(work.lead.abs().mean())
    leads = leads_after(work, groups, lambda src: grafted(work, k, src))
    return {name: idle[name] & ((lead - work.lead).abs() <= most) for name, lead in leads.items()}


def wide(groups: Mapping[str, Group]) -> set[str]:
    """Return the groups with more than half of the cells of the largest one, where there are others."""
    size = {name: len(group.cells.members) for name, group in groups.items()}
    return {name for name in groups if 2 * size[name] > max(size.values())} if len(groups) > 1 else set()


def leads_after(
    work: Interchanges, groups: Mapping[str, Group], change: ChangeAt
) -> dict[str, Float[Tensor, "prompt step"]]:
    """Return by group the margins with a change of attention on its labels in its cells."""
    sides = {group.side for group in groups.values()}
    change_of = {side: change(torch.isin(work.batch.role, torch.tensor(side))) for side in sides}
    changes = {
        name: ChangesBy(masks_of_cells(work, group.cells), change_of[group.side]) for name, group in groups.items()
    }
    return {name: lead for name, (_, lead) in measure_all(work, changes).items()}


def averaged(work: Interchanges, src: Bool[Tensor, " pos"]) -> ChangeOf:
    """Return the change in which the attention on labels reads the mean value of `AVERAGED` sources."""
    sources = [grafted(work, k, src) for k in range(AVERAGED)]

    def change_of(layer: int, mask: Tensor, rows: Tensor) -> AttentionChange:
        found = [source(layer, mask, rows) for source in sources]
        values = torch.stack([change.values for change in found if change.values is not None]).mean(dim=0)
        return replace(found[0], keys=None, values=values)

    return change_of
