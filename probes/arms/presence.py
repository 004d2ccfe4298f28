"""Presence: remove labels from attention for each head and kind of query in which they carry nothing.

M6 removes labels from whole heads, before and after `===`. This arm tests the presence of labels by cell, a head and a
kind of query, so that a head which matches labels for one kind of query and rests on them for another is seen. Its
effect is zero in every model that needs no label where labels carry nothing (probes/README.md, Battery).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching.knockouts import Entry
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.idle_heads import LABELS
from probes.arms.presence_cells import Cells
from probes.arms.presence_interchanges import Interchanges
from probes.arms.presence_metrics import answer_accuracy
from probes.arms.presence_number import lost_when_twice
from probes.arms.presence_removals import removed
from probes.arms.readings import evidence_on, halves, of_members, strongest
from probes.evidence import Evidence, EvidenceKey, Interval
from probes.intervals import ratio

QUESTIONS = {
    keys.LARGEST_PRESENCE: "labels are removed where they carry nothing: how many answers does that lose at most?",
    keys.PRESENCE_MARGIN: "labels are removed where they carry nothing: how much of the margin does that move at most?",
    keys.PRESENCE_MARGIN_REPAIRED: "how much of that does a key of equal score without information restore?",
    keys.PRESENCE_REPAIRED: "which of these answers does a key of equal score without information restore?",
    keys.PRESENCE_NUMBER: "half of the labels are removed: what does their number matter beyond the attention on them?",
    keys.PRESENCE_TWICE: "every label counts twice: how many answers does that lose at most?",
}
# The labels of odd steps, and those of even steps.
HALVES = ("half", "other half")
ANSWERS, MARGIN = "share of accuracy above chance", "mean |change| over the mean margin"


def measure_presence(model: PreTrainedModel, batch: Batch, cells: Cells, seed: int) -> list[Evidence]:
    """Measure the largest presence intervention at one length, and what names it; nothing where there is no cell.

    The family of removals: from all cells, other keys share the attention ("renormalise"), it reads zero from a null
    key of equal score ("null"), or it reads the mean value ("mean"); and "renormalise" for each kind of query alone.
    The strongest is chosen on one half of the prompts and estimated on the other. The control is the interchange that
    found the cells, on these prompts. "repaired" is what a null key of equal score with the mean value restores, of
    answers and of margins. "number" is what is lost when every second label is removed and is not when the attention on
    them is kept, by that half of the labels that loses less: a query that can rest on one label alone counts nothing.
    "twice" is what is lost at most when labels count twice: a sink is left as it is, a head that counts labels is not.
    """
    if not cells.kinds():
        return []
    interchanged = Interchanges(model, batch, seed, answer_accuracy(batch))
    entries = removals(batch, cells)
    effects = removed(interchanged, entries)
    lost, moved = ({name: getattr(x, field) for name, x in effects.items()} for field in ("lost", "margin"))
    family = [name for name in entries if not name.startswith(HALVES)]
    half = halves(len(batch), seed)
    clean = interchanged.clean - 1 / len(batch.format.outputs)
    size = interchanged.lead.double().abs().mean(dim=1)
    control = interchanged.effects(cells)
    twice = lost_when_twice(interchanged, cells)

    def share(values: Float[Tensor, " prompt"], full: Float[Tensor, " prompt"]) -> Interval:
        return ratio(values, full, floor=1 / len(batch))

    def largest(effects: list[Tensor], full: Tensor) -> Interval:
        stacked = torch.stack(effects)
        return share(of_members(stacked, strongest(stacked, half)), full)

    details = {
        "cells": {kind: [list(head) for head in cells.heads(kind)] for kind in cells.kinds()},
        "cells at some steps": [[kind, *head, list(steps)] for (kind, head), steps in cells.parts],
        "answers lost": {name: float(lost[name].mean() / clean.mean()) for name in entries},
        "lost when twice": {name: float(x.mean() / clean.mean()) for name, x in twice.items()},
        "margin moved": {name: float(moved[name].mean() / size.mean()) for name in entries},
    }

    def evidence(
        key: EvidenceKey, quantity: str, value: Interval, matched: Interval | None, details: dict | None = None
    ) -> Evidence:
        return evidence_on(batch, key, QUESTIONS[key], quantity, value, matched, details)

    by_answers = largest([m.lost for m in control], clean)
    by_margin = largest([m.margin for m in control], size)
    value = largest([lost[name] for name in family], clean)
    on_margin = largest([moved[name] for name in family], size)
    repaired = share(lost["renormalise"] - lost["mean"], clean)
    repaired_margin = share(moved["renormalise"] - moved["mean"], size)
    by_half = [lost[f"{name}, renormalise"] - lost[f"{name}, mean"] for name in HALVES]
    number = share(min(by_half, key=lambda effect: float(effect.mean())), clean)
    return [
        evidence(keys.LARGEST_PRESENCE, ANSWERS, value, by_answers, details),
        evidence(keys.PRESENCE_MARGIN, MARGIN, on_margin, by_margin),
        evidence(keys.PRESENCE_MARGIN_REPAIRED, MARGIN, repaired_margin, by_margin),
        evidence(keys.PRESENCE_REPAIRED, ANSWERS, repaired, by_answers),
        evidence(keys.PRESENCE_NUMBER, ANSWERS, number, by_answers),
        evidence(keys.PRESENCE_TWICE, ANSWERS, largest(list(twice.values()), clean), by_answers),
    ]


def removals(batch: Batch, cells: Cells) -> dict[str, Entry]:
    """Return the removals by name: the family, then of every second label with the attention on it shared or kept."""
    entries: dict[str, Entry] = {mode: cells.knockouts(mode) for mode in ("renormalise", "null", "mean")}
    if len(cells.kinds()) > 1:
        entries |= {f"renormalise, {kind}": cells.knockouts("renormalise", kinds=(kind,)) for kind in cells.kinds()}
    steps = sorted({int(s) for s, role in zip(batch.step, batch.role, strict=True) if int(role) in LABELS})
    present = [role for role in LABELS if (batch.role == role).any()]
    for start, name in enumerate(HALVES):
        half = tuple((role, step) for role in present for step in steps[start::2] if _has(batch, role, step))
        entries |= {f"{name}, {mode}": cells.knockouts(mode, src=half) for mode in ("renormalise", "mean")}
    return entries


def _has(batch: Batch, role: Role, step: int) -> bool:
    return bool(((batch.role == role) & (batch.step == step)).any())
