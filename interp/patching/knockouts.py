"""What becomes of the answer when some positions may no longer attend to others?

An edge runs from a source position (key) to a destination (query) in one head. Removing the mnemonics in
three ways tells an address from a sink (M6 of science 2.1): the metric lost under "renormalise" less that
under "null" is the softmax denominator's share, under "null" less under "mean" that of a constant value, and
what "mean" loses depends on the input.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.models.anatomy import Anatomy, anatomy_of
from interp.patching.effect import PatchEffect, require_finite
from interp.patching.metrics import Metric
from interp.patching.stepwise import (
    At,
    Edit,
    Place,
    chunks,
    difference_from_raw,
    measure,
    positions_at,
    walk,
    words_of,
)
from interp.tasks import Batch

Mode = Literal["renormalise", "null", "mean"]
MODES: tuple[Mode, ...] = get_args(Mode)
Head = tuple[int, int]
# Edges `[head dest src]` by mode and layer.
Masks = dict[Mode, dict[int, Bool[Tensor, "head dest src"]]]


@dataclass(frozen=True)
class Knockout:
    """Edges from `src` to `dest`, which are removed together, and how.

    `src`, `dest`: a Role, a (Role, step) pair, a tuple of these, or a tuple of positions. Edges that the
    causal mask forbids are left out; a position that is in both loses its edge to itself too.
    `layers`: None for all. `heads`: (layer, head) pairs, None for all of `layers`.
    `mode`: "renormalise" masks the scores, so that the other keys share the attention; "null" deletes the
    numerators and keeps the denominator, as if the attention went to a sink of value zero; "mean" keeps the
    attention and replaces the value by its mean over the batch (of the intact run, in that layer and head)
    at positions of the same role, or with `mean_by="step"` of the same role and step.
    """

    src: At
    dest: At
    layers: tuple[int, ...] | None = None
    heads: Collection[Head] | None = None
    mode: Mode = "renormalise"
    mean_by: Literal["role", "step"] = "role"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}; got {self.mode!r}")
        if self.mean_by not in ("role", "step"):
            raise ValueError(f"mean_by must be 'role' or 'step'; got {self.mean_by!r}")
        for name in ("layers", "heads"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise ValueError(f"{name} is empty: nothing would be knocked out; None means all")
        if self.layers is not None and (odd := sorted(h for h in self.heads or () if h[0] not in self.layers)):
            raise ValueError(f"heads {odd} are not in layers {sorted(self.layers)}")

    def __str__(self) -> str:
        where = "" if self.layers is None else " L" + ",".join(map(str, sorted(self.layers)))
        where = where if self.heads is None else " " + ",".join(f"L{i}H{j}" for i, j in sorted(self.heads))
        by = " by step" if self.mode == "mean" and self.mean_by == "step" else ""
        return f"{words_of(self.src)} -> {words_of(self.dest)}{where} ({self.mode}{by})"


Entry = Knockout | tuple[Knockout, ...]


def knock_out(
    raw_model: PreTrainedModel, batch: Batch, knockouts: Entry | Sequence[Entry] | Mapping[str, Entry],
    metric: Metric, freeze_later: bool = False,
) -> PatchEffect:  # fmt: skip
    """The metric of each prompt under each knockout. A tuple of knockouts is one entry: they act in one run.

    The only axis is "knockout", named by the mapping's keys or by the knockouts themselves. An ablation has
    no source run: `source` is the base again, so `recovered` raises; look at `change`. In a joint entry edges
    are masked first, then nulled, and the values of those that still carry attention are replaced last.

    `freeze_later=True` (M12): the scores of every layer are those of the intact run (with the entry's own
    edges removed from them), so that no later head can look elsewhere and stand in.

    Raises `ValueError` for a role, step, position, layer or head that is not there, for a knockout without
    an edge, and for a row that "renormalise" leaves without a key.

    >>> effect = knock_out(run.raw, batch, [Knockout(Role.INPUT_LABEL, Role.OUTPUT, mode="null")], logit_diff(batch))
    """
    anatomy = anatomy_of(raw_model)
    entries = _named(knockouts)
    for entry in entries.values():  # every mistake is named before work starts
        _masks(anatomy, batch, entry)
    n_layers = len(anatomy.blocks)
    keep: list[Place] = [("resid_pre", layer) for layer in range(n_layers)]
    keep += [("scores", layer) for layer in range(n_layers)] if freeze_later else []
    means = _value_means(anatomy, batch, metric, entries)
    base, values, raw_difference = [], [], 0.0
    for rows in chunks(anatomy, batch, metric, copies=4 + (n_layers if freeze_later else 0)):
        tokens = batch.tokens[rows].to(anatomy.device)
        final, intact = walk(anatomy, anatomy.embed(tokens), keep=keep)
        if not base:
            raw_difference = difference_from_raw(anatomy, tokens, final, metric)
        base.append(measure_at(anatomy, final, metric, rows))
        cells = []
        for entry in entries.values():
            masks = _masks(anatomy, batch, entry)
            start = min(layer for by_layer in masks.values() for layer in by_layer)
            edits = _edits(anatomy, masks, means, entry, intact if freeze_later else {}, start)
            cut, _ = walk(anatomy, intact["resid_pre", start], start, edits=edits)
            cells.append(measure_at(anatomy, cut, metric, rows))
        values.append(torch.stack(cells))
    before = require_finite(torch.cat(base), metric.name)
    details = {"freeze_later": freeze_later, "raw_difference": raw_difference}
    return PatchEffect(
        "attention edges", metric.name, "knockout", ("knockout",), {"knockout": tuple(entries)},
        require_finite(torch.cat(values, dim=-1), metric.name), before, before, details=details,
    )  # fmt: skip
