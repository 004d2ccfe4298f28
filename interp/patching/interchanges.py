"""Interchange interventions: one run in which several sites take their values from runs on other prompts.

An example: all attention scores from prompts with other labels, and all values from prompts with another history.
Sites, layers and positions of an entry are set jointly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of, require_same_layout
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import Edit, Place, chunks, difference_from_raw, forward_with_edits, measure
from interp.patching.effect import PatchEffect
from interp.patching.knockouts import Knockout, masks_of
from interp.patching.metric import MetricLike, bind_metric
from interp.places import At, positions_at
from interp.sites import HEAD_SITES, Site, head_count, require_site
from interp.tasks import Prompts

INTERCHANGE_SITES: tuple[Site, ...] = ("resid_pre", "q", "k", "v", "attn_scores", "z", "attn_out", "mlp_out")


@dataclass(frozen=True, eq=False)
class Interchange:
    """A site whose values are taken from the run on `source`. With the base as source, the site is frozen.

    `at`: positions, as a mask `[batch pos]` or `[1 pos]` or as a role, span or index (None: all). For "attn_scores"
    (scores before the softmax, causal mask included) they are destination positions. `layers`, `heads`: None for all;
    k and v have key-value heads.
    """

    site: Site
    source: PromptsLike
    at: Bool[Tensor, "#batch pos"] | At | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        require_site(self.site, INTERCHANGE_SITES)
        if isinstance(self.at, Tensor) and not self.at.any():
            raise ValueError(f"the interchange of {self.site} has no position: nothing would change")
        if self.layers is not None and not self.layers:
            raise ValueError(f"the interchange of {self.site} has no layer; None means all")
        with_heads = [site for site in INTERCHANGE_SITES if site in HEAD_SITES]
        if self.heads is not None and (not self.heads or self.site not in with_heads):
            raise ValueError(
                f"heads must be one or more heads of {', '.join(with_heads)}; got {self.heads} of {self.site}"
            )

    def __repr__(self) -> str:
        at = "a mask" if isinstance(self.at, Tensor) else repr(self.at)
        return f"Interchange({self.site!r}, at={at}, layers={self.layers}, heads={self.heads})"


Intervention = Interchange | Knockout


@exclusive
@torch.no_grad()
def interchange(
    model: AnyModel, base: PromptsLike, entries: Mapping[str, Sequence[Intervention]], metric: MetricLike
) -> PatchEffect:
    """Return the metric of each base prompt under each entry: interchanges and "renormalise" knockouts in one run.

    Everything that an entry does not set is recomputed. Knockouts act after the interchange of attn_scores, so both
    can act on one head. The only axis is "interchange". There is no single source run, so `source` is the base and
    `recovered` raises; use `change`.

    Raises `ValueError` for prompts of different layouts, a layer that does not exist, an empty entry, two
    interchanges of one site in one layer, and a knockout of a mode other than "renormalise".

    >>> entries = {"routing": [Interchange("attn_scores", swapped)], "values": [Interchange("v", flipped, at=labels)]}
    >>> effect = interchange(run, batch, entries, logit_diff(batch, step=9))
    """
    anatomy = anatomy_of(raw_of(model))
    base = prompts_of(model, base, "base")
    metric = bind_metric(metric, model, base)
    plans = {name: _Plan(model, anatomy, base, name, parts) for name, parts in entries.items()}
    if not plans:
        raise ValueError("no entries were given")
    # Sources by identity: several interchanges may share one.
    needed: dict[int, set[Place]] = {id(base): {("resid_pre", p.start) for p in plans.values()}}
    sources = {id(base): base}
    for plan in plans.values():
        for place, part in plan.interchanges.items():
            sources[id(part.source)] = part.source  # type: ignore[assignment]
            needed.setdefault(id(part.source), set()).add(place)
    values, baselines, raw_difference = [], [], 0.0
    for rows in chunks(anatomy, base, metric, copies=4 + sum(map(len, needed.values()))):
        kept: dict[int, Mapping[Place, Tensor]] = {}
        for key, prompts in sources.items():
            resid = anatomy.embed(prompts.tokens[rows].to(anatomy.device))
            final, kept[key] = forward_with_edits(anatomy, resid, keep=sorted(needed[key]))
            if prompts is base:
                if not baselines:
                    raw_difference = difference_from_raw(anatomy, base.tokens[rows], final, metric)
                baselines.append(measure(anatomy, final, metric, rows))
        cells = []
        for plan in plans.values():
            resid = kept[id(base)]["resid_pre", plan.start]
            final, _ = forward_with_edits(anatomy, resid, plan.start, edits=plan.edits(kept, rows))
            cells.append(measure(anatomy, final, metric, rows))
        values.append(torch.stack(cells))
    before = torch.cat(baselines)
    return PatchEffect(
        site="joint",
        metric=metric.name,
        direction="interchange",
        axes=("interchange",),
        labels={"interchange": tuple(plans)},
        values=torch.cat(values, dim=-1),
        base=before,
        source=before,
        details={"raw_difference": raw_difference},
    )


class _Plan:
    """One checked entry: the interchange at each place, the edges removed, and the first layer that changes."""

    def __init__(
        self, model: AnyModel, anatomy: Anatomy, base: Prompts, name: str, parts: Sequence[Intervention]
    ) -> None:
        self.interchanges: dict[Place, Interchange] = {}
        for part in parts:
            if isinstance(part, Interchange):
                part = _resolved(model, base, name, part)
                for layer in _layers(anatomy, name, part):
                    if (part.site, layer) in self.interchanges:
                        raise ValueError(f"{name}: two interchanges of {part.site} in layer {layer}; give one")
                    self.interchanges[part.site, layer] = part
        knockouts = tuple(p for p in parts if isinstance(p, Knockout))
        if bad := [k for k in knockouts if k.mode != "renormalise"]:
            raise ValueError(f"{name}: a knockout beside interchanges must be 'renormalise'; got {bad[0].mode!r}")
        self.removed = masks_of(anatomy, base, knockouts).get("renormalise", {}) if knockouts else {}
        layers = {layer for _, layer in self.interchanges} | set(self.removed)
        if not layers:
            raise ValueError(f"{name} has no parts: nothing would change")
        self.start = min(layers)

    def edits(self, kept: Mapping[int, Mapping[Place, Tensor]], rows: Tensor) -> dict[Place, Edit]:
        """Return the edits of the entry for some prompts."""
        edits: dict[Place, Edit] = {}
        for place in {*self.interchanges, *(("attn_scores", layer) for layer in self.removed)}:
            site, layer = place
            part = self.interchanges.get(place)
            new = None if part is None else kept[id(part.source)][place]
            removed = self.removed.get(layer) if site == "attn_scores" else None

            def edit(
                value: Tensor,
                _: Mapping,
                part: Interchange | None = part,
                new: Tensor | None = new,
                removed: Tensor | None = removed,
            ) -> Tensor:
                out = value if part is None or new is None else torch.where(_mask(part, rows, value), new, value)
                return out.clone() if removed is None else out.masked_fill(removed.to(value.device), -torch.inf)

            edits[place] = edit
        return edits


def _resolved(model: AnyModel, base: Prompts, name: str, part: Interchange) -> Interchange:
    """Return the interchange with its source as `Prompts` and its positions as a mask."""
    source, at = prompts_of(model, part.source, f"{name}: source"), part.at
    require_same_layout(base, source, (f"{name}: base", "source"))
    if at is not None and not isinstance(at, Tensor):
        at = torch.zeros(1, base.n_pos, dtype=torch.bool).index_fill(1, positions_at(base, at), True)
    if at is not None and at.shape not in ((1, base.n_pos), (len(base), base.n_pos)):
        raise ValueError(f"{name}: `at` must be [1 or {len(base)}, {base.n_pos}]; got {tuple(at.shape)}")
    return replace(part, source=source, at=at)


def _layers(anatomy: Anatomy, name: str, part: Interchange) -> list[int]:
    """Return the layers of an interchange. Raises `ValueError` for a layer or head that does not exist."""
    n_layers = len(anatomy.blocks)
    layers = list(range(n_layers) if part.layers is None else part.layers)
    if bad := [layer for layer in layers if not 0 <= layer < n_layers]:
        raise ValueError(f"{name}: no layer {bad[0]}; layers are 0 to {n_layers - 1}")
    n_heads = head_count(part.site, anatomy.n_heads, anatomy.n_kv_heads)
    if bad := [head for head in part.heads or () if not 0 <= head < n_heads]:
        raise ValueError(f"{name}: {part.site} has no head {bad[0]}; heads are 0 to {n_heads - 1}")
    return layers


def _mask(part: Interchange, rows: Tensor, value: Tensor) -> Bool[Tensor, "..."]:
    """Return which entries of a site's value come from the source; the mask broadcasts over the other axes."""
    at = torch.ones(1, value.shape[-2 if part.site == "attn_scores" else 1], dtype=torch.bool)
    if part.at is not None:
        assert isinstance(part.at, Tensor)
        at = part.at if len(part.at) == 1 else part.at[rows]
    at = at.to(value.device)
    if value.ndim == 3:  # [row pos d_model]
        return at.unsqueeze(-1)
    size = value.shape[1 if part.site == "attn_scores" else 2]
    heads = torch.ones(size, dtype=torch.bool, device=value.device)
    if part.heads is not None:
        heads = torch.zeros_like(heads).index_fill(0, torch.tensor(part.heads, device=value.device), True)
    if part.site == "attn_scores":  # [row head dest src]: destination rows
        return at[:, None, :, None] & heads[None, :, None, None]
    return at[:, :, None, None] & heads[None, None, :, None]
