"""Trained models whose labels cannot be told apart, because all have one embedding."""

from __future__ import annotations

import copy

import torch

from interp.models import Run, run_in_memory
from interp.tasks import parse_format

# Trained runs of the constant format, two seeds.
TIED = ("parity-constant-alibi", "parity-constant-alibi-seed2")


@torch.no_grad()
def tie_labels(run: Run, fmt: str = "parity-aligned") -> Run:
    """Return a run on a format with random labels, in which every label has the embedding of the constant label.

    The run must be trained on a format whose labels are all one symbol. It solves the new format as it solves its own,
    and no label can be told from another: whatever labels do, their identity does not matter, so they are no anchor.

    Raises `ValueError` for a run of another format, and for a format without random labels of its own.
    """
    own, wanted = run.format, parse_format(fmt)
    if own is None or run.vocabulary is None or own.labels != "fixed" or len(set(own.fixed_labels(8))) > 1:
        raise ValueError(f"{run.name} must be trained on a format with one label throughout, such as parity-constant")
    if wanted.labels != "pool":
        raise ValueError(f"{wanted} has no random labels to tie; use a format such as parity-aligned")
    vocabulary = run.vocabulary
    raw = copy.deepcopy(run.raw)
    names = [*vocabulary.labels, *vocabulary.held_out]
    constant = vocabulary[own.fixed_labels(1)[0]]
    for table in (raw.get_input_embeddings(), raw.get_output_embeddings()):
        assert table is not None
        weight = table.get_parameter("weight")
        weight[[vocabulary[name] for name in names]] = weight[constant].clone()
    return run_in_memory(f"{run.name}, labels tied", raw, wanted, vocabulary)
