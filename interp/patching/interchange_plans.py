"""Plans: what an entry of interchanges and removed edges changes, and from where on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.arguments import prompts_of, require_same_layout
from interp.models.anatomy import Anatomy
from interp.models.resolve import AnyModel
from interp.patching.changes import Changes, Where, WhereEdit
from interp.patching.editing import Place
from interp.patching.interchange_parts import Interchange, Intervention
from interp.patching.knockouts import Knockout, masks_of
from interp.patching.patched_runs import pattern_from_scores, rows_of
from interp.patching.unpatched import Unpatched, at_positions
from interp.places import positions_at
from interp.sites import Site, head_count
from interp.tasks import Prompts
from interp.tasks.limits import is_index

# Sites that have all positions in the last layer, too, as its keys and values need them.
WHOLE: tuple[Site, ...] = ("resid_pre", "q", "k", "v")


class Plan:
    """One checked entry: the interchange at each place, the edges removed, and where the run begins to differ.

    An interchange from the base freezes its site, which changes nothing before another part does.
    """

    def __init__(
        self, model: AnyModel, anatomy: Anatomy, base: Prompts, name: str, parts: Sequence[Intervention]
    ) -> None:
        self.anatomy = anatomy
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
        moving = {place: part for place, part in self.interchanges.items() if part.source is not base or part.moves}
        moving = moving or ({} if self.removed else self.interchanges)
        layers = {layer for _, layer in moving} | set(self.removed)
        if not layers:
            raise ValueError(f"{name} has no parts: nothing would change")
        self.start = min(layers)
        firsts = [_first_moved(base, part) for part in moving.values()]
        firsts += [
            removed.any(dim=-1).any(dim=0).long().argmax().expand(len(base)) for removed in self.removed.values()
        ]
        # The first position of each prompt that can differ from the unpatched run, `[batch]`.
        self.firsts = torch.stack(firsts).amin(dim=0) if anatomy.causal else torch.zeros(len(base), dtype=torch.long)

    @property
    def whole(self) -> Prompts | None:
        """The source whose whole run this entry is (`whole_run`); None for other entries."""
        part = self.interchanges.get(("resid_pre", 0))
        if part is None or part.at is not None or part.moves or len(self.interchanges) > 1 or self.removed:
            return None
        assert isinstance(part.source, Prompts)
        return part.source

    def sites_of(self, layer: int) -> set[Site]:
        """Return the sites that are patched in a layer, without attention that is given as a whole."""
        sites: set[Site] = {site for site, at in self.interchanges if at == layer and not self._given((site, layer))}
        if self._given(("attn_scores", layer)):
            sites.add("z")
        elif layer in self.removed:
            sites.add("attn_scores")
        return sites

    def taken(self, place: Place) -> Place:
        """Return the place that is kept of a source run: of attention that is given as a whole, its pattern."""
        layer = place[1]
        if place in self.interchanges and (other := self.interchanges[place].source_layer) is not None:
            return place[0], other
        return ("pattern", layer) if self._given(place) and layer not in self.removed else place

    def changes(self, run: Unpatched, kept: Mapping[int, Mapping[Place, Tensor]]) -> Changes:
        """Return the changes of the entry in a run. `kept` has the values of each source run by identity."""
        edits: dict[Place, WhereEdit] = {}
        patterns: dict[int, Callable[[Where], Tensor]] = {}
        for place in {*self.interchanges, *(("attn_scores", layer) for layer in self.removed)}:
            site, layer = place
            if layer < self.start:
                continue
            part = self.interchanges.get(place)
            new = None if part is None else _moved(part, kept[id(part.source)][self.taken(place)])
            removed = self.removed.get(layer) if site == "attn_scores" else None
            if self._given(place):
                assert new is not None
                patterns[layer] = partial(_given_pattern, self.anatomy, run, layer, new, removed)
            else:
                edits[place] = partial(_edited, part, run, new, removed)
        return Changes(self.start, int(self.firsts[run.rows].min()), edits, patterns)

    def _given(self, place: Place) -> bool:
        """Return whether the whole attention of a layer comes from a source, so that none is computed."""
        part = self.interchanges.get(place)
        return part is not None and part.site == "attn_scores" and part.at is None and part.heads is None


def _given_pattern(
    anatomy: Anatomy, run: Unpatched, layer: int, source: Tensor, removed: Tensor | None, where: Where
) -> Float[Tensor, "row head dest src"]:
    """Return the pattern of a source run, or that of its scores without the edges that are removed."""
    source = at_positions(source, "pattern", where, run.reads)
    if removed is None:
        return source
    scores = source.masked_fill(rows_of(removed, where, source.shape[-1]).to(source.device), -torch.inf)
    return pattern_from_scores(anatomy, layer, scores)


def _edited(
    part: Interchange | None,
    run: Unpatched,
    new: Tensor | None,
    removed: Tensor | None,
    value: Tensor,
    _: Mapping[Site, Tensor],
    where: Where,
) -> Tensor:
    """Return the value of a site with the source's at the interchange's positions, without the removed edges."""
    if part is not None and new is not None:
        whole = part.moves or part.site in WHOLE
        new = new[:, where] if whole else at_positions(new, part.site, where, run.reads)
        value = torch.where(_mask(part, run.rows, value, where), new, value)
    if removed is None:
        return value
    return value.masked_fill(rows_of(removed, where, value.shape[-1]).to(value.device), -torch.inf)


def _first_moved(base: Prompts, part: Interchange) -> Int[Tensor, " batch"]:
    """Return the first position of each prompt at which an interchange acts and its source differs.

    Under a causal mask a source has the base's values before its first other token.
    """
    assert isinstance(part.source, Prompts)
    at = torch.ones(1, base.n_pos, dtype=torch.bool) if part.at is None else part.at
    assert isinstance(at, Tensor)
    at = at.expand(len(base), -1)
    if not part.moves and part.source is not base:
        at = at & ((part.source.tokens != base.tokens).cumsum(dim=1) > 0)
    return torch.where(at.any(dim=1), at.long().argmax(dim=1), base.n_pos)


def _resolved(model: AnyModel, base: Prompts, name: str, part: Interchange) -> Interchange:
    """Return the interchange with its source as `Prompts` and its positions as a mask."""
    source, at = prompts_of(model, part.source, f"{name}: source"), part.at
    if part.moves:
        if isinstance(at, Tensor):
            raise ValueError(f"{name}: with source_at or source_layer, `at` must be positions; got a mask")
        return _resolved_move(base, name, replace(part, source=source))
    require_same_layout(base, source, (f"{name}: base", "source"))
    if at is not None and not isinstance(at, Tensor):
        at = torch.zeros(1, base.n_pos, dtype=torch.bool).index_fill(1, positions_at(base, at), True)
    if at is not None and at.shape not in ((1, base.n_pos), (len(base), base.n_pos)):
        raise ValueError(f"{name}: `at` must be [1 or {len(base)}, {base.n_pos}]; got {tuple(at.shape)}")
    return replace(part, source=source, at=at)


def _resolved_move(base: Prompts, name: str, part: Interchange) -> Interchange:
    """Return the interchange with both sets of positions as indices, `at` as a mask."""
    source = part.source
    assert isinstance(source, Prompts)
    assert not isinstance(part.at, Tensor)
    if len(base) != len(source):
        raise ValueError(
            f"{name}: base and source must have the same number of prompts; got {len(base)}, {len(source)}"
        )
    there = positions_at(base, part.at)
    taken = positions_at(source, part.at if part.source_at is None else part.source_at)
    if len(there) != len(taken):
        raise ValueError(f"{name}: `at` has {len(there)} positions and `source_at` {len(taken)}; they are pairs")
    mask = torch.zeros(1, base.n_pos, dtype=torch.bool).index_fill(1, there, True)
    return replace(part, at=mask, source_at=taken.tolist())


def _moved(part: Interchange, value: Tensor) -> Tensor:
    """Return a source's value, with what is taken from other positions at those that it is put at."""
    if not part.moves:
        return value
    assert isinstance(part.at, Tensor)
    assert isinstance(part.source_at, list)
    out = value.new_zeros(len(value), part.at.shape[1], *value.shape[2:])
    out[:, part.at[0].to(value.device)] = value[:, torch.as_tensor(part.source_at, device=value.device)]
    return out


def _layers(anatomy: Anatomy, name: str, part: Interchange) -> list[int]:
    """Return the layers of an interchange. Raises `ValueError` for a layer or head that does not exist."""
    n_layers = len(anatomy.blocks)
    layers = list(range(n_layers) if part.layers is None else part.layers)
    if bad := [layer for layer in layers if not is_index(layer, n_layers)]:
        raise ValueError(f"{name}: no layer {bad[0]}; layers are 0 to {n_layers - 1}")
    if part.source_layer is not None and not is_index(part.source_layer, n_layers):
        raise ValueError(f"{name}: the source has no layer {part.source_layer}; layers are 0 to {n_layers - 1}")
    n_heads = head_count(part.site, anatomy.n_heads, anatomy.n_kv_heads)
    if bad := [head for head in part.heads or () if not is_index(head, n_heads)]:
        raise ValueError(f"{name}: {part.site} has no head {bad[0]}; heads are 0 to {n_heads - 1}")
    return layers


def _mask(part: Interchange, rows: Tensor, value: Tensor, where: Where) -> Bool[Tensor, "..."]:
    """Return which entries of a site's value come from the source; the mask broadcasts over the other axes."""
    at = torch.ones(1, value.shape[-2 if part.site == "attn_scores" else 1], dtype=torch.bool)
    if part.at is not None:
        assert isinstance(part.at, Tensor)
        where = where if isinstance(where, slice) else where.to(part.at.device)
        at = (part.at if len(part.at) == 1 else part.at[rows])[:, where]
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
