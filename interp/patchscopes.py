"""Patchscopes: move an activation to another prompt, position and layer, and read what the model makes of it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interp.arguments import PromptsLike, prompts_of
from interp.models.anatomy import anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.cells import chosen
from interp.patching.effect import PatchEffect
from interp.patching.interchanges import Interchange, interchange
from interp.patching.metric import MetricLike
from interp.places import At
from interp.sites import Site


def patchscope(
    model: AnyModel,
    source: PromptsLike,
    target: PromptsLike,
    metric: MetricLike,
    source_at: At = -1,
    target_at: At = -1,
    source_layers: int | Sequence[int] | None = None,
    target_layers: int | Sequence[int] | None = None,
    site: Site = "resid_pre",
) -> PatchEffect:
    """Return the metric of the target prompts with an activation of the source prompts put in (2401.06102, section 3).

    Each prompt of `target` gets the activation of the prompt of `source` with the same index; the two may have
    different lengths. Positions are indices (counted from the end if negative), spans or roles; several are paired in
    rising order. Every source layer is combined with every target layer: the axes are "source_layer" and
    "target_layer". To generate text from a moved activation use `patched(..., source_layer=, source_positions=)`.

    Raises `ValueError` for layers or positions that do not exist, and for numbers of positions that differ.

    >>> patchscope(run, ["The Eiffel Tower"], ["cat -> cat; x"], metric, source_layers=8, target_layers=(0, 1, 2))
    """
    raw = raw_of(model)
    n_layers = len(anatomy_of(raw).blocks)
    own, base = prompts_of(model, source, "source"), prompts_of(model, target, "target")
    from_layers = chosen("layer", source_layers, n_layers)
    to_layers = chosen("layer", target_layers, n_layers)
    at, taken = _from_end(target_at, base.n_pos), _from_end(source_at, own.n_pos)
    entries = {
        f"L{first} to L{last}": [
            Interchange(site, own, at=at, layers=(last,), source_at=taken, source_layer=first),
        ]
        for first in from_layers
        for last in to_layers
    }
    effect = interchange(model, base, entries, metric)
    shape = (len(from_layers), len(to_layers), -1)
    return replace(
        effect,
        site=site,
        direction="patchscope",
        axes=("source_layer", "target_layer"),
        labels={"source_layer": tuple(from_layers), "target_layer": tuple(to_layers)},
        values=effect.values.reshape(shape),
    )


def _from_end(at: At, n_pos: int) -> At:
    """Return a negative index counted from the start."""
    if isinstance(at, int) and not isinstance(at, bool) and -n_pos <= at < 0:
        return at + n_pos
    return at
