"""The pieces of work of which the arms of lists are measured: each on the prompts of one trial, in any process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from interp.models.resolve import AnyModel, raw_of
from interp.tasks import Prompts
from probes.binding.edits import ARMS, NEXT, Absent, answer_traded, edit_of, next_of
from probes.binding.found import RULES, Group
from probes.binding.margins import (
    FULL,
    FULL_NEXT,
    FULL_OVER_ALL,
    FULL_OVER_LIST,
    leads_over,
    margins_under,
    moved_to_next,
)
from probes.binding.sinks import sink_effects
from probes.binding.trials import DEEP_ARMS, DEEP_CHECKS, Trial
from probes.binding.wanted import LATER

# What is measured, "candidates" for sinks among it, and "more" arms where the first leave a status open; with about how
# many passes. Deep trials have about half as many arms.
Kind = Literal["accuracy", "arms", "candidates", "more"]
PASSES: dict[Kind, int] = {"accuracy": 1, "arms": 8, "candidates": 16, "more": 3}


@dataclass(frozen=True)
class Piece:
    """One piece of work on the trial of that number, among the usual ones and then the deep ones.

    `arms`, `to_next`: for "more" the arms, and the addresses of which the edit that leads to the next item is measured.
    `title` names it while it runs; accuracy has none.
    """

    kind: Kind
    number: int
    title: str = ""
    arms: tuple[str, ...] = ()
    to_next: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name under which what it finds is kept; the accuracy is the same by any rules."""
        return f"{self.kind}-{self.number}" if self.kind == "accuracy" else f"{self.kind}-{RULES}-{self.number}"

    def tokens(self, asked: Sequence[Trial], used: Sequence[Trial]) -> int:
        """Return about how many tokens the model reads for it."""
        trial = self._trial(asked, used)
        return PASSES[self.kind] * trial.lookups.prompts.tokens.numel() // (1 + trial.only_deep)

    def measure(self, model: AnyModel, asked: Sequence[Trial], used: Sequence[Trial]) -> Group:
        """Return what it finds; `asked` and `used` are those of `arranged`."""
        trial, left_out = self._trial(asked, used), dict[str, str]()
        if self.kind == "accuracy":
            return _accuracy(model, trial)
        if self.kind == "arms":
            values = _arms(model, trial, left_out)
        elif self.kind == "more":
            values = _more(model, trial, self.arms, self.to_next, left_out)
        else:
            values = sink_effects(model, trial, *leads_over(trial), left_out)
        return Group({name: value.double().cpu() for name, value in values.items()}, left_out)

    def _trial(self, asked: Sequence[Trial], used: Sequence[Trial]) -> Trial:
        return (asked if self.kind == "accuracy" else used)[self.number]


# Returns what a piece found, kept or measured, by its name; measures some pieces in any order, and returns their names.
Recall = Callable[[str, Callable[[], Group]], Group]
Prepare = Callable[[Sequence[Piece]], Collection[str]]


def arranged(trials: Sequence[Trial], prompts: int | None) -> tuple[list[Trial], list[Trial]]:
    """Return the trials of accuracy, and those of the arms, deep ones last, with about `prompts` prompts (None: all).

    Prompts that repeat another one of their trial are left out.
    """
    trials = [trial.distinct() for trial in trials]
    usual, deep = [t for t in trials if not t.only_deep], [t for t in trials if t.only_deep]
    if prompts is None:
        return usual, [*usual, *deep]
    return usual, [*(t.first(-(-prompts // len(usual))) for t in usual), *(t.first(prompts) for t in deep)]


def pieces_of(used: Sequence[Trial], kinds: Mapping[Kind, Mapping[str, Any]], more: str = "") -> list[Piece]:
    """Return the pieces of some kinds on all trials, with what each kind measures; the first of each trial has a title.

    No candidates are removed on deep trials.
    """
    return [
        Piece(kind, k, f"item {trial.query} to {trial.target}{more}" * (kind == next(iter(kinds))), **given)
        for k, trial in enumerate(used)
        for kind, given in kinds.items()
        if not (trial.only_deep and kind == "candidates")
    ]


def is_deep(name: str) -> bool:
    """Return whether an arm is measured on deep trials."""
    return name.startswith((*DEEP_ARMS, *DEEP_CHECKS))


def _accuracy(model: AnyModel, trial: Trial) -> Group:
    """Return the most likely token after each prompt, and whether it is the value asked for."""
    from interp.forward import predict

    prompts = trial.lookups.prompts
    logits = predict(raw_of(model), prompts, torch.tensor([prompts.n_pos]))
    given = logits[:, -1].argmax(dim=-1).cpu()
    right = given == trial.lookups.answer(trial.query).cpu()
    return Group({"right": right.double(), "given": given.double()})


def _arms(model: AnyModel, trial: Trial, left_out: dict[str, str]) -> Mapping[str, Tensor]:
    """Return what the first arms and their controls take from the answer's margin, per prompt, and who leads then."""
    edited = {FULL: trial.lookups.prompts.with_tokens(answer_traded(trial))}
    edited |= _edited(trial, [arm for arm in ARMS if arm not in LATER], left_out)
    measured, (before, after), whole = margins_under(model, trial, edited)
    if not trial.only_deep:
        # Without its sink a head may bring in any value or token, which the lead over the target's would not show.
        measured[FULL_OVER_LIST] = before.amin(dim=0) - after[:, 0].amin(dim=0)
        measured[FULL_OVER_ALL] = whole.base - whole.values[0]
    return measured


def _more(
    model: AnyModel, trial: Trial, arms: Sequence[str], to_next: Sequence[str], left_out: dict[str, str]
) -> Mapping[str, Tensor]:
    """Return the same for the arms that the first ones left open, and for edits that lead to the next item."""
    base, edited = trial.lookups.prompts, _edited(trial, arms, left_out)
    measured = margins_under(model, trial, edited)[0] if edited else {}
    if trial.only_deep:
        return measured
    nearby: dict[str, Prompts] = {}
    for address in to_next:
        try:
            nearby[NEXT[address]] = base.with_tokens(next_of(trial, address))
        except Absent as reason:
            left_out[NEXT[address]] = str(reason)
    if nearby:
        nearby[FULL_NEXT] = base.with_tokens(answer_traded(trial, trial.query + 1))
        measured |= moved_to_next(model, trial, nearby)
    return measured


def _edited(trial: Trial, arms: Sequence[str], left_out: dict[str, str]) -> dict[str, Prompts]:
    """Return the prompts of arms and their controls."""
    base, edited = trial.lookups.prompts, dict[str, Prompts]()
    for arm in arms:
        if trial.only_deep and not is_deep(arm):
            continue
        try:
            edit = edit_of(trial, arm)
        except Absent as reason:
            left_out[arm] = str(reason)
            continue
        edited[arm] = base.with_tokens(edit.tokens)
        if arm not in DEEP_CHECKS:
            edited[f"{arm} control"] = base.with_tokens(edit.control)
    return edited
