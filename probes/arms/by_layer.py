"""Entries of interchanges on all trials, and by layer: in a deep model the latter are measured on fewer trials."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from probes.arms.bands import FEW_LAYERS
from probes.arms.inputs import FEW
from probes.arms.m01_identity import Entries, effects_of_entries
from probes.trials.parity import Trials, balanced


def effects_by_entry(
    model: PreTrainedModel, trials: Trials, entries_of: Callable[[Trials], tuple[Entries, Entries]]
) -> tuple[dict[str, Float[Tensor, " trial"]], Int[Tensor, " row"]]:
    """Return the effect of each entry on the margin at the trials' steps, and the rows that entries by layer use.

    `entries_of` returns two sets of entries: those that all trials are measured on, and those by layer, which only
    describe. In a deep model the latter are most of the passes, so they are measured on about `FEW` trials.
    """
    on_all, by_layer = entries_of(trials)
    rows = _described(trials, model.config.num_hidden_layers)
    if len(rows) == len(trials):
        return effects_of_entries(model, trials, {**on_all, **by_layer}), rows
    some = trials.rows(rows)
    of_some = effects_of_entries(model, some, entries_of(some)[1])
    return {**effects_of_entries(model, trials, on_all), **of_some}, rows


def _described(trials: Trials, n_layers: int) -> Int[Tensor, " row"]:
    """Return the rows of the trials of entries by layer: all, or in a deep model about `FEW`, equally many per cell."""
    if n_layers <= FEW_LAYERS or len(trials) <= FEW:
        return torch.arange(len(trials))
    every = torch.ones(len(trials), dtype=torch.bool)
    return balanced(trials.cell, every, FEW, trials.cell.unique().tolist())
