"""What a knockout removes: attention edges by position, layer and head."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, get_args

import torch
from jaxtyping import Bool

from interp.models.anatomy import Anatomy
from interp.models.resolve import AnyModel, raw_of
from interp.places import At, describe, positions_at
from interp.tasks import Prompts
from interp.tasks.limits import is_index

Mode = Literal["renormalise", "null", "mean"]
MODES: tuple[Mode, ...] = get_args(Mode)
MeanBy = Literal["role", "step", "pos", "token"]
# Layer and head.
Head = tuple[int, int]
# Edges `[head dest src]` by mode and layer.
Masks = dict[Mode, dict[int, Bool[torch.Tensor, "head dest src"]]]


def require_in_layers(heads: Collection[Head] | None, layers: Collection[int] | None) -> None:
    """Raise `ValueError` for heads of other layers than `layers`; None for all layers."""
    if layers is not None and (outside := sorted(head for head in heads or () if head[0] not in layers)):
        raise ValueError(f"heads {outside} are not in layers {sorted(layers)}")


@dataclass(frozen=True)
class Knockout:
    """Edges from `src` to `dest` that are removed together.

    `src`, `dest`: a Role, a (Role, step) pair, a span's name, an index, a tuple of these, or None (all). Edges that
    the causal mask forbids are ignored. A position in both loses its edge to itself too.
    `layers`: None for all, a number for one. `heads`: (layer, head) pairs, None for all heads of `layers`.
    `mode`: "renormalise" masks the scores, so that the other keys (including a sink) share the attention. "null"
    deletes the numerators and keeps the denominator, as if the attention went to a value of zero. "mean" keeps the
    attention and replaces the value by its mean over the prompts (intact run, same layer and head) at positions of
    the same role; with `mean_by="step"` of the same role and step, with "pos" at that position, with "token" at all
    positions of the same token, and alone where the token differs between prompts. Prompts without roles are averaged
    by position instead of by role or step.
    """

    src: At | None
    dest: At | None
    layers: tuple[int, ...] | None = None
    heads: Collection[Head] | None = None
    mode: Mode = "renormalise"
    mean_by: MeanBy = "role"

    def __post_init__(self) -> None:
        if isinstance(self.layers, int):
            object.__setattr__(self, "layers", (self.layers,))
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}; got {self.mode!r}")
        if self.mean_by not in get_args(MeanBy):
            raise ValueError(f"mean_by must be 'role', 'step', 'pos' or 'token'; got {self.mean_by!r}")
        if isinstance(self.heads, int):
            raise ValueError(f"heads must be (layer, head) pairs, such as [(0, {self.heads})]; got {self.heads}")
        for name in ("layers", "heads"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise ValueError(f"{name} is empty: nothing would be knocked out; None means all")
        require_in_layers(self.heads, self.layers)

    def __str__(self) -> str:
        where = "" if self.layers is None else " L" + ",".join(map(str, sorted(self.layers)))
        where = where if self.heads is None else " " + ",".join(f"L{i}H{j}" for i, j in sorted(self.heads))
        by = f" by {self.mean_by}" if self.mode == "mean" and self.mean_by != "role" else ""
        return f"{describe(self.src)} -> {describe(self.dest)}{where} ({self.mode}{by})"


# One knockout, or several that are applied in one run.
Entry = Knockout | tuple[Knockout, ...]


def single(model: AnyModel, knockout: Knockout) -> dict[str, Entry]:
    """Return the knockout in each of its heads alone, for `knock_out`: {"L0H0": ..., "L0H1": ...}."""
    heads = _heads(model, knockout)
    return groups(model, knockout, {f"L{layer}H{head}": [(layer, head)] for layer, head in heads})


def pairwise(model: AnyModel, knockout: Knockout) -> dict[str, Entry]:
    """Return the knockout in each pair of its heads: {"L0H0+L0H1": ...}. Compared with `single`, it shows backups."""
    pairs = combinations(_heads(model, knockout), 2)
    return groups(model, knockout, {"+".join(f"L{i}H{j}" for i, j in pair): pair for pair in pairs})


def groups(model: AnyModel, knockout: Knockout, heads: Mapping[str, Collection[Head]]) -> dict[str, Entry]:
    """Return the knockout in each named set of heads. Raises `ValueError` for a head that the model does not have."""
    entries = {name: replace(knockout, heads=tuple(some)) for name, some in heads.items()}
    for entry in entries.values():
        _heads(model, entry)
    return dict(entries)


def named(knockouts: Entry | list[Entry] | Mapping[str, Entry | list[Knockout]]) -> dict[str, Entry]:
    """Return the entries by name.

    Raises `ValueError` for no entry, an empty one, or two that are the same, and `TypeError` for what is none.
    """
    if isinstance(knockouts, Mapping):
        # A list under a name can only be one entry, as in `interchange`.
        entries = {name: _entry(tuple(e) if isinstance(e, list) else e) for name, e in knockouts.items()}
    else:
        # A tuple of knockouts is one entry; a list holds entries.
        listed = [_entry(e) for e in knockouts] if isinstance(knockouts, list) else [_entry(knockouts)]
        entries = {" + ".join(map(str, knockouts_of(entry))): entry for entry in listed}
        if len(entries) < len(listed):
            raise ValueError("two entries are the same knockout")
    if not entries or not all(knockouts_of(entry) for entry in entries.values()):
        raise ValueError("no knockouts were given")
    return entries


def _entry(given: Entry) -> Entry:
    """Return an entry as it is. Raises `TypeError` unless it is one."""
    if wrong := [part for part in knockouts_of(given) if not isinstance(part, Knockout)]:
        raise TypeError(f"an entry must be a Knockout or a tuple of them; got {type(wrong[0]).__name__}")
    return given


def knockouts_of(entry: Entry) -> tuple[Knockout, ...]:
    """Return the knockouts of an entry."""
    return entry if isinstance(entry, tuple) else (entry,)


def mean_by_of(entry: Entry) -> str | None:
    """Return what the values of an entry are averaged by; None where no value is replaced."""
    groupings = {k.mean_by for k in knockouts_of(entry) if k.mode == "mean"}
    if len(groupings) > 1:
        raise ValueError("knockouts in one entry must have the same mean_by; got " + " and ".join(sorted(groupings)))
    return groupings.pop() if groupings else None


def masks_of(anatomy: Anatomy, prompts: Prompts, entry: Entry) -> Masks:
    """Return the edges of an entry by mode and layer, `[head dest src]`. Raises the errors of `knock_out`."""
    mean_by_of(entry)
    masks: Masks = {}
    allowed = torch.ones(prompts.n_pos, prompts.n_pos, dtype=torch.bool)
    allowed = allowed.tril() if anatomy.causal else allowed
    for knockout in knockouts_of(entry):
        edges = torch.zeros_like(allowed)
        edges[positions_at(prompts, knockout.dest).unsqueeze(1), positions_at(prompts, knockout.src)] = True
        edges &= allowed
        if not edges.any():
            raise ValueError(f"{knockout} has no edge: every source is after every destination")
        for layer, head in _heads(anatomy.raw, knockout):
            by_layer = masks.setdefault(knockout.mode, {})
            by_layer.setdefault(layer, torch.zeros(anatomy.n_heads, *edges.shape, dtype=torch.bool))[head] |= edges
    for layer, mask in masks.get("renormalise", {}).items():
        # A row with all scores at -inf is NaN; at finfo.min it would attend to future positions.
        empty = (mask | ~allowed).all(dim=-1)
        if empty.any():
            head, dest = empty.nonzero()[0].tolist()
            raise ValueError(
                f"L{layer}H{head} is left without a key at {prompts.name(dest)} (position {dest}); keep one source "
                "(its own position is one), or use mode='null'"
            )
    return masks


def _heads(model: AnyModel, knockout: Knockout) -> list[Head]:
    """Return the (layer, head) pairs of a knockout, in order."""
    config = raw_of(model).config
    n_layers, n_heads = config.num_hidden_layers, config.num_attention_heads
    for layer in (*(knockout.layers or ()), *(i for i, _ in knockout.heads or ())):
        if not is_index(layer, n_layers):
            raise ValueError(f"no layer {layer}; layers are 0 to {n_layers - 1}")
    for _, head in knockout.heads or ():
        if not is_index(head, n_heads):
            raise ValueError(f"no head {head}; heads are 0 to {n_heads - 1}")
    if knockout.heads is not None:
        return sorted(set(knockout.heads))
    layers = range(n_layers) if knockout.layers is None else sorted(set(knockout.layers))
    return [(layer, head) for layer in layers for head in range(n_heads)]
