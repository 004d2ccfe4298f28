"""What does a run answer when several of its parts come from runs on other prompts?

Interchange of variables rather than of single activations: all scores from the prompts with other labels and all
values from the prompts with another history, say, in one run. The sites, layers and positions are joint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel

from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.bridge import raw_of
from interp.patching.editing import Edit, Place, chunks, difference_from_raw, forward_with_edits, measure
from interp.patching.effect import PatchEffect
from interp.patching.knockouts import Knockout, masks_of
from interp.patching.metrics import Metric
from interp.tasks import Batch

GraftSite = Literal["resid_pre", "q", "k", "v", "scores", "z", "attn_out", "mlp_out"]
GRAFT_SITES: tuple[GraftSite, ...] = get_args(GraftSite)


@dataclass(frozen=True, eq=False)
class Interchange:
    """A site that is taken from the run on `source`; the base itself as source freezes the site.

    `at`: `[batch pos]` or `[1 pos]`, positions that are taken (None: all); for "scores" (the attention before
    its softmax, causal mask included) the positions that attend. `layers`, `heads`: None for all; k and v have the
    key-value heads.
    """

    site: GraftSite
    source: Batch
    at: Bool[Tensor, "#batch pos"] | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.site not in GRAFT_SITES:
            raise ValueError(f"site must be one of {', '.join(GRAFT_SITES)}; got {self.site!r}")
        if self.at is not None and not self.at.any():
            raise ValueError(f"the graft of {self.site} names no position: nothing would be taken")
        if self.layers is not None and not self.layers:
            raise ValueError(f"the graft of {self.site} names no layer; None means all")
        if self.heads is not None and (not self.heads or self.site not in ("q", "k", "v", "scores", "z")):
            raise ValueError(f"heads must be named, and of q, k, v, scores or z; got {self.heads} of {self.site}")


Part = Interchange | Knockout


@torch.no_grad()
def interchange(
    raw_model: PreTrainedModel, base: Batch, entries: Mapping[str, Sequence[Part]], metric: Metric
) -> PatchEffect:
    """The metric of each base prompt under each entry: grafts, and knockouts that renormalise, in one run.

    Everything that no part of an entry sets is computed anew. Grafted scores lose the edges of the entry's
    knockouts, so both can act on one head. The only axis is "graft"; there is no one source, so `source` is
    the base again and `recovered` raises: look at `change`.

    Raises `ValueError` for prompts of two layouts, a layer that is not there, an entry without parts, two
    grafts of one site in one layer, or a knockout of a mode other than "renormalise".

    >>> entries = {"attention": [Interchange("scores", swapped)], "values": [Interchange("v", flipped, at=labels)]}
    >>> effect = interchange(run.raw, batch, entries, logit_diff(batch, step=9))
    """
    anatomy = anatomy_of(raw_of(raw_model))
    plans = {name: _Plan(anatomy, base, name, parts) for name, parts in entries.items()}
    if not plans:
        raise ValueError("no entries were given")
    wanted: dict[int, set[Place]] = {id(base): {("resid_pre", p.start) for p in plans.values()}}
    batches = {id(base): base}
    for plan in plans.values():
        for place, graft in plan.grafts.items():
            batches[id(graft.source)] = graft.source
            wanted.setdefault(id(graft.source), set()).add(place)
    values, baselines, raw_difference = [], [], 0.0
    for rows in chunks(anatomy, base, metric, copies=4 + sum(map(len, wanted.values()))):
        kept: dict[int, Mapping[Place, Tensor]] = {}
        for key, batch in batches.items():
            final, kept[key] = forward_with_edits(
                anatomy, anatomy.embed(batch.tokens[rows].to(anatomy.device)), keep=sorted(wanted[key])
            )
            if batch is base:
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
        "joint",
        metric.name,
        "interchange",
        ("graft",),
        {"graft": tuple(plans)},
        torch.cat(values, dim=-1),
        before,
        before,
        details={"raw_difference": raw_difference},
    )


class _Plan:
    """One entry, checked: which graft serves each place, which edges go, and the first layer that changes."""

    def __init__(self, anatomy: Anatomy, base: Batch, name: str, parts: Sequence[Part]) -> None:
        n_layers = len(anatomy.blocks)
        self.grafts: dict[Place, Interchange] = {}
        for part in parts:
            if isinstance(part, Knockout):
                continue
            if part.source.tokens.shape != base.tokens.shape or not (
                torch.equal(part.source.role, base.role) and torch.equal(part.source.step, base.step)
            ):
                raise ValueError(f"{name}: base and source must have as many prompts and the same roles and steps")
            if part.at is not None and part.at.shape not in ((1, base.n_pos), (len(base), base.n_pos)):
                raise ValueError(f"{name}: `at` must be [1 or {len(base)}, {base.n_pos}]; got {tuple(part.at.shape)}")
            for layer in range(n_layers) if part.layers is None else part.layers:
                if not 0 <= layer < n_layers:
                    raise ValueError(f"{name}: no layer {layer}; layers are 0 to {n_layers - 1}")
                size = anatomy.n_kv_heads if part.site in ("k", "v") else anatomy.n_heads
                if odd := [h for h in part.heads or () if not 0 <= h < size]:
                    raise ValueError(f"{name}: {part.site} has no head {odd[0]}; heads are 0 to {size - 1}")
                if (part.site, layer) in self.grafts:
                    raise ValueError(f"{name}: two grafts of {part.site} in layer {layer}; give one")
                self.grafts[part.site, layer] = part
        knockouts = tuple(p for p in parts if isinstance(p, Knockout))
        if odd := [k for k in knockouts if k.mode != "renormalise"]:
            raise ValueError(f"{name}: beside grafts a knockout renormalises; got {odd[0].mode!r}")
        self.gone = masks_of(anatomy, base, knockouts).get("renormalise", {}) if knockouts else {}
        layers = {layer for _, layer in self.grafts} | set(self.gone)
        if not layers:
            raise ValueError(f"{name} has no parts: nothing would change")
        self.start = min(layers)

    def edits(self, kept: Mapping[int, Mapping[Place, Tensor]], rows: Tensor) -> dict[Place, Edit]:
        """The functions that carry the entry out on some prompts."""
        found: dict[Place, Edit] = {}
        for place in {*self.grafts, *(("scores", layer) for layer in self.gone)}:
            site, layer = place
            graft = self.grafts.get(place)
            new = None if graft is None else kept[id(graft.source)][place]
            gone = self.gone.get(layer) if site == "scores" else None

            def edit(
                value: Tensor,
                _: Mapping,
                graft: Interchange | None = graft,
                new: Tensor | None = new,
                gone: Tensor | None = gone,
            ) -> Tensor:
                out = value if graft is None or new is None else torch.where(_taken(graft, rows, value), new, value)
                return out.clone() if gone is None else out.masked_fill(gone.to(value.device), -torch.inf)

            found[place] = edit
        return found


def _taken(graft: Interchange, rows: Tensor, value: Tensor) -> Bool[Tensor, "..."]:
    """Which entries of a site's value are taken, as a mask that broadcasts over its other axes."""
    at = torch.ones(1, graft.source.n_pos, dtype=torch.bool) if graft.at is None else graft.at
    at = (at if len(at) == 1 else at[rows]).to(value.device)
    if value.ndim == 3:  # [row pos d_model]
        return at.unsqueeze(-1)
    size = value.shape[1 if graft.site == "scores" else 2]
    heads = torch.ones(size, dtype=torch.bool, device=value.device)
    if graft.heads is not None:
        heads = torch.zeros_like(heads).index_fill(0, torch.tensor(graft.heads, device=value.device), True)
    if graft.site == "scores":  # [row head dest src]: the rows that attend
        return at[:, None, :, None] & heads[None, :, None, None]
    return at[:, :, None, None] & heads[None, None, :, None]
