"""What becomes of the answer when some positions may no longer attend to others?

An edge runs from a source position (key) to a destination (query) in one head. Removing the mnemonics in
three ways tells an address from a sink (M6 of science 2.1): the metric lost under "renormalise" less that
under "null" is the softmax denominator's share, under "null" less under "mean" that of a constant value, and
what "mean" loses depends on the input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel

from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.bridge import raw_of
from interp.patching.editing import (
    At,
    Edit,
    Place,
    Site,
    chunks,
    difference_from_raw,
    forward_with_edits,
    measure,
    positions_at,
    words_of,
)
from interp.patching.effect import PatchEffect
from interp.patching.metrics import Metric
from interp.support.finite import require_finite
from interp.tasks import Batch

Mode = Literal["renormalise", "null", "mean"]
MODES: tuple[Mode, ...] = get_args(Mode)
Head = tuple[int, int]
# Edges `[head dest src]` by mode and layer.
Masks = dict[Mode, dict[int, Bool[Tensor, "head dest src"]]]


@dataclass(frozen=True)
class Knockout:
    """Edges from `src` to `dest`, which are removed together, and how.

    `src`, `dest`: a Role, a (Role, step) pair, a tuple of these, a tuple of positions, or None (all). Edges that the
    causal mask forbids are left out; a position that is in both loses its edge to itself too.
    `layers`: None for all. `heads`: (layer, head) pairs, None for all of `layers`.
    `mode`: "renormalise" masks the scores, so that other keys (a sink, too) share the attention; "null" deletes the
    numerators and keeps the denominator, as if the attention went to a sink of value zero; "mean" keeps the
    attention and replaces the value by its mean over the batch (of the intact run, in that layer and head)
    at positions of the same role, or with `mean_by="step"` of the same role and step.
    """

    src: At | None
    dest: At | None
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
    raw_model: PreTrainedModel,
    batch: Batch,
    knockouts: Entry | list[Entry] | Mapping[str, Entry],
    metric: Metric,
    freeze_later: bool = False,
) -> PatchEffect:
    """The metric of each prompt under each knockout. A tuple of knockouts is one entry: they act in one run.

    The only axis is "knockout", named by the mapping's keys or by the knockouts themselves. An ablation has
    no source run: `source` is the base again, so `recovered` raises; look at `change`. In a joint entry edges
    are masked first, then nulled, and the values of those that still carry attention are replaced last.

    `freeze_later=True` (M12): the scores of every layer are those of the intact run (with the entry's own
    edges removed), so that no later head can look elsewhere and stand in.

    Raises `ValueError` for a role, step, position, layer or head that is not there, for a knockout without
    an edge, and for a row that "renormalise" leaves without a key.

    >>> effect = knock_out(run.raw, batch, [Knockout(Role.INPUT_LABEL, Role.OUTPUT, mode="null")], logit_diff(batch))
    """
    (effect,) = knock_out_for(raw_model, batch, knockouts, [metric], freeze_later)
    return effect


@torch.no_grad()
def knock_out_for(
    raw_model: PreTrainedModel,
    batch: Batch,
    knockouts: Entry | list[Entry] | Mapping[str, Entry],
    metrics: Sequence[Metric],
    freeze_later: bool = False,
) -> list[PatchEffect]:
    """As `knock_out`, for several metrics of the same runs, in their order."""
    anatomy = anatomy_of(raw_of(raw_model))
    entries = _named(knockouts)
    if not metrics:
        raise ValueError("give at least one metric")
    for entry in entries.values():  # every mistake is named before work starts
        masks_of(anatomy, batch, entry)
    n_layers = len(anatomy.blocks)
    sites: tuple[Site, ...] = ("resid_pre", "scores") if freeze_later else ("resid_pre",)
    keep: list[Place] = [(site, layer) for site in sites for layer in range(n_layers)]
    widest = max(metrics, key=lambda m: len(m.positions))
    means = _value_means(anatomy, batch, widest, {_mean_by(entry) for entry in entries.values()})
    base: list[list[Tensor]] = [[] for _ in metrics]
    values: list[list[Tensor]] = [[] for _ in metrics]
    raw_difference = 0.0
    for metric in metrics:
        chunks(anatomy, batch, metric, copies=1).__next__()  # its errors, for every metric
    for rows in chunks(anatomy, batch, widest, copies=4 + (n_layers if freeze_later else 0)):
        tokens = batch.tokens[rows].to(anatomy.device)
        final, intact = forward_with_edits(anatomy, anatomy.embed(tokens), keep=keep)
        if not base[0]:
            raw_difference = difference_from_raw(anatomy, tokens, final, widest)
        cells: list[list[Tensor]] = [[] for _ in metrics]
        for found, metric in zip(base, metrics, strict=True):
            found.append(measure(anatomy, final, metric, rows))
        for entry in entries.values():
            masks = masks_of(anatomy, batch, entry)
            start = min(layer for by_layer in masks.values() for layer in by_layer)
            edits = _edits(anatomy, masks, means.get(_mean_by(entry) or "", {}), intact, start)
            cut, _ = forward_with_edits(anatomy, intact["resid_pre", start], start, edits=edits)
            for cell, metric in zip(cells, metrics, strict=True):
                cell.append(measure(anatomy, cut, metric, rows))
        for found, cell in zip(values, cells, strict=True):
            found.append(torch.stack(cell))
    details = {"freeze_later": freeze_later, "raw_difference": raw_difference}
    effects = []
    for metric, before, after in zip(metrics, base, values, strict=True):
        intact_values = torch.cat(before)
        effects.append(
            PatchEffect(
                "attention edges",
                metric.name,
                "knockout",
                ("knockout",),
                {"knockout": tuple(entries)},
                torch.cat(after, dim=-1),
                intact_values,
                intact_values,
                details=details,
            )
        )
    return effects


def single(raw_model: PreTrainedModel, knockout: Knockout) -> dict[str, Entry]:
    """The knockout in each of its heads alone, for `knock_out`: {"L0H0": ..., "L0H1": ...}."""
    heads = _heads(raw_model, knockout)
    return groups(raw_model, knockout, {f"L{layer}H{head}": [(layer, head)] for layer, head in heads})


def pairwise(raw_model: PreTrainedModel, knockout: Knockout) -> dict[str, Entry]:
    """The knockout in each pair of its heads at once: {"L0H0+L0H1": ...}. With `single`, it shows backups."""
    pairs = combinations(_heads(raw_model, knockout), 2)
    return groups(raw_model, knockout, {"+".join(f"L{i}H{j}" for i, j in pair): pair for pair in pairs})


def groups(raw_model: PreTrainedModel, knockout: Knockout, heads: Mapping[str, Collection[Head]]) -> dict[str, Entry]:
    """The knockout in each named set of heads at once. Raises `ValueError` for a head that the model lacks."""
    entries: dict[str, Entry] = {name: replace(knockout, heads=tuple(some)) for name, some in heads.items()}
    for entry in entries.values():
        _heads(raw_model, entry)
    return entries


def _named(knockouts: Entry | list[Entry] | Mapping[str, Entry]) -> dict[str, Entry]:
    if isinstance(knockouts, Mapping):
        named = dict(knockouts)
    else:
        # A tuple of knockouts is one entry; a list holds entries.
        listed = [knockouts] if isinstance(knockouts, Knockout | tuple) else list(knockouts)
        named = {" + ".join(map(str, _parts(entry))): entry for entry in listed}
        if len(named) < len(listed):
            raise ValueError("two entries are the same knockout")
    if not named or not all(_parts(entry) for entry in named.values()):
        raise ValueError("no knockouts were given")
    return named


def _parts(entry: Entry) -> tuple[Knockout, ...]:
    return entry if isinstance(entry, tuple) else (entry,)


def _mean_by(entry: Entry) -> str | None:
    """What the values of an entry are averaged by; None where no value is replaced."""
    found = {k.mean_by for k in _parts(entry) if k.mode == "mean"}
    if len(found) > 1:
        raise ValueError("knockouts in one entry have one mean_by, 'role' or 'step'; got both")
    return found.pop() if found else None


def _heads(raw_model: PreTrainedModel, knockout: Entry) -> list[Head]:
    """The (layer, head) pairs of a knockout, in order."""
    assert isinstance(knockout, Knockout)
    n_layers, n_heads = raw_model.config.num_hidden_layers, raw_model.config.num_attention_heads
    for layer in (*(knockout.layers or ()), *(i for i, _ in knockout.heads or ())):
        if not 0 <= layer < n_layers:
            raise ValueError(f"no layer {layer}; layers are 0 to {n_layers - 1}")
    for _, head in knockout.heads or ():
        if not 0 <= head < n_heads:
            raise ValueError(f"no head {head}; heads are 0 to {n_heads - 1}")
    if knockout.heads is not None:
        return sorted(set(knockout.heads))
    layers = range(n_layers) if knockout.layers is None else sorted(set(knockout.layers))
    return [(layer, head) for layer in layers for head in range(n_heads)]


def masks_of(anatomy: Anatomy, batch: Batch, entry: Entry) -> Masks:
    """The edges of an entry by mode and layer, `[head dest src]`; raises the errors that `knock_out` promises."""
    masks: Masks = {}
    allowed = torch.ones(batch.n_pos, batch.n_pos, dtype=torch.bool)
    allowed = allowed.tril() if anatomy.causal else allowed
    for knockout in _parts(entry):
        edges = torch.zeros_like(allowed)
        edges[positions_at(batch, knockout.dest).unsqueeze(1), positions_at(batch, knockout.src)] = True
        edges &= allowed
        if not edges.any():
            raise ValueError(f"{knockout} has no edge: every source stands after every destination")
        for layer, head in _heads(anatomy.raw, knockout):
            by_layer = masks.setdefault(knockout.mode, {})
            by_layer.setdefault(layer, torch.zeros(anatomy.n_heads, *edges.shape, dtype=torch.bool))[head] |= edges
    for layer, mask in masks.get("renormalise", {}).items():
        # All scores of a row at -inf would be NaN, at finfo.min they would leak to the future.
        empty = (mask | ~allowed).all(dim=-1)
        if empty.any():
            head, dest = empty.nonzero()[0].tolist()
            raise ValueError(
                f"L{layer}H{head} is left without a key at {batch.name(dest)} (position {dest}); keep one source "
                "(its own position is one), or use mode='null'"
            )
    return masks


def _value_means(anatomy: Anatomy, batch: Batch, metric: Metric, by: set[str | None]) -> dict[str, dict]:
    """The intact run's values by layer, `[pos kv_head d_head]`, averaged over prompts and like positions."""
    wanted = [name for name in by if name is not None]
    if not wanted:
        return {}
    places: list[Place] = [("v", layer) for layer in range(len(anatomy.blocks))]
    total: dict[int, Tensor] = {}
    for rows in chunks(anatomy, batch, metric, copies=4):
        _, kept = forward_with_edits(anatomy, anatomy.embed(batch.tokens[rows].to(anatomy.device)), keep=places)
        for (_, layer), v in kept.items():
            require_finite(v, f"a value of layer {layer}", rows, axis=0)  # the mean would hand it to all prompts
            total[layer] = total.get(layer, 0) + v.double().sum(dim=0)
    role, step = batch.role, batch.step
    like = {"role": role.unsqueeze(1) == role}
    like["step"] = like["role"] & (step.unsqueeze(1) == step)
    means = {}
    for name in wanted:
        weights = like[name].double() / (like[name].sum(dim=1, keepdim=True) * len(batch))
        means[name] = {
            layer: torch.einsum("ps,she->phe", weights.to(summed.device), summed).to(anatomy.dtype)
            for layer, summed in total.items()
        }
    return means


def _edits(
    anatomy: Anatomy, masks: Masks, means: Mapping[int, Tensor], intact: Mapping[Place, Tensor], start: int
) -> dict[Place, Edit]:
    """The functions that carry out an entry; scores that `intact` holds replace those of layers from `start` on."""
    edits: dict[Place, Edit] = {}
    for layer in range(start, len(anatomy.blocks)):
        gone, saved = masks.get("renormalise", {}).get(layer), intact.get(("scores", layer))
        if gone is not None or saved is not None:
            edits["scores", layer] = lambda x, _, gone=gone, saved=saved: _without(x if saved is None else saved, gone)
        if (null := masks.get("null", {}).get(layer)) is not None:
            edits["pattern", layer] = lambda x, _, gone=null: x.masked_fill(gone.to(x.device), 0.0)
        if (dull := masks.get("mean", {}).get(layer)) is not None:

            def replaced(z: Tensor, seen: Mapping, dull: Tensor = dull, mean: Tensor = means[layer]) -> Tensor:
                instead = anatomy.expand_heads(mean - seen["v"])
                return z + torch.einsum("rhds,rshe->rdhe", seen["pattern"] * dull.to(z.device), instead)

            edits["z", layer] = replaced
    return edits


def _without(scores: Tensor, gone: Tensor | None) -> Tensor:
    return scores.clone() if gone is None else scores.masked_fill(gone.to(scores.device), -torch.inf)
