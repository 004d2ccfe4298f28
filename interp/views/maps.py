"""Where does a patch matter, and which token does each answer depend on? Effects and attributions as maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from interp.tasks import Role
from interp.views.axes import Axis, axis_of_words, positions
from interp.views.grid import Outline, Panel, array_of, draw_grid

if TYPE_CHECKING:
    from interp.tasks import Batch
    from interp.views.view import View


class Effect(Protocol):
    """What a sweep of patches found: see `interp.patching.PatchEffect`."""

    @property
    def site(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def direction(self) -> str: ...
    @property
    def axes(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Mapping[str, Sequence[str | int]]: ...
    @property
    def change(self) -> Any: ...
    @property
    def base(self) -> Any: ...
    @property
    def source(self) -> Any: ...


class Attributed(Protocol):
    """What each answer's margin depends on: see `interp.attribution.Attribution`."""

    @property
    def values(self) -> Any: ...
    @property
    def batch(self) -> Batch: ...
    @property
    def dest(self) -> Any: ...
    @property
    def kind(self) -> str: ...
    @property
    def method(self) -> str: ...


def effect(found: Effect, title: str = "") -> View:
    """The mean change of the metric over prompts: layer by position, or with heads layer by head.

    With heads the first map has, for each head, the position that moves the metric most; a map by position for each
    head follows. All have one scale. `found` is a `PatchEffect`. Raises `ValueError` for other axes than layer, head
    and pos.

    >>> view = effect(patch(run.model, clean, corrupted, site="resid_pre", metric=logit_diff(clean, step=25)))
    """
    axes = tuple(found.axes)
    if axes not in (("layer", "pos"), ("layer", "head", "pos"), ("layer", "head"), ("layer",)):
        raise ValueError(f"a map of a patch has layers, with heads, positions or both; got {', '.join(axes)}")
    change = array_of(found.change).mean(axis=-1)
    layers = Axis("layer", tuple(f"layer {layer}" for layer in found.labels["layer"]))
    unit = f"change in {found.metric}"
    base, source = (array_of(run) for run in (found.base, found.source))
    caption = (
        f"Blue: the patch raises the {found.metric}; red: it lowers it; neutral: nothing changes. Mean over "
        f"{base.size} prompt{'s' * (base.size != 1)}. Without a patch it is {base.mean():.3g}; in the run that "
        f"activations come from it is {source.mean():.3g}, so that {source.mean() - base.mean():+.3g} would be the "
        "whole way."
    )
    limit = float(np.abs(change).max()) or 1.0
    if "head" not in axes:
        columns = axis_of_words(found.labels["pos"]) if "pos" in axes else Axis("site", (found.site,))
        panels = [Panel("layer by position", change.reshape(len(layers), -1), layers, columns, unit)]
        phrase = "{row}, {column}"
    else:
        heads = Axis("head", tuple(f"head {head}" for head in found.labels["head"]))
        peaks, phrase = change, "{row}, {column}"
        if "pos" in axes:
            peaks = np.take_along_axis(change, np.abs(change).argmax(axis=2)[..., None], axis=2)[..., 0]
        panels = [Panel("layer by head: the position that moves it most", peaks, layers, heads, unit)]
        if "pos" in axes:
            columns = axis_of_words(found.labels["pos"])
            panels += [
                Panel(f"{name}: layer by position", change[:, k], layers, columns, unit, limit=limit)
                for k, name in enumerate(heads.names)
            ]
            caption += " In the map of heads, each cell has the position that moves it most."
    title = title or f"What patching {found.site} changes ({found.direction})"
    return draw_grid(panels, title, caption, phrase)


def attribution(found: Attributed, prompts: int | Sequence[int] = 2, title: str = "") -> View:
    """The paper's map (Figure 5): a column for each output token, a row for each context token.

    First the mean over prompts, signed; then the mean of absolute values, which do not cancel; then single prompts
    with their tokens, the first so many or those chosen. Where the answer at step i should come from is outlined:
    bit i, and the parity before it. `found` is an `Attribution`; of the kinds "absolute" and "l2" there is no signed
    map. A map describes, it decides nothing (science 1.3). Raises `ValueError` for a prompt that is not there.

    >>> view = attribution(gradient_x_input(run.raw, run.sample(64, 20, seed=0)))
    """
    values, batch = array_of(found.values).swapaxes(1, 2), found.batch
    chosen = range(min(prompts, len(values))) if isinstance(prompts, int) else prompts
    if bad := [row for row in chosen if not 0 <= row < len(values)]:
        raise ValueError(f"no prompt {bad[0]}; there are {len(values)}")
    dest = [int(p) for p in found.dest]
    rows, columns = positions(batch, title="context token"), _some(positions(batch, title="output token"), dest)
    unit = {"signed": "logits of the answer's margin", "absolute": "sum of |input x gradient|"}.get(
        found.kind, "norm of input x gradient"
    )
    panels, mean = [], values.mean(axis=0)
    many = f"mean over {len(values)} prompts" if len(values) > 1 else "the prompt"
    if found.kind == "signed":
        panels.append(Panel(f"{many}, signed", mean, rows, columns, unit))
        panels.append(
            Panel(f"{many}, absolute", np.abs(values).mean(axis=0), rows, columns, f"size, {unit}", "sequential")
        )
    else:
        panels.append(Panel(f"{many}, {found.kind}", mean, rows, columns, unit, "sequential"))
    for row in chosen:
        spoken, answers = positions(batch, row, "context token"), _some(positions(batch, row, "output token"), dest)
        scale = "diverging" if found.kind == "signed" else "sequential"
        panels.append(Panel(f"prompt {row}, {found.kind}", values[row], spoken, answers, unit, scale))
    caption = (
        f"{found.method[:1].upper()}{found.method[1:]}, {found.kind}, at the token embeddings. "
        + ("Blue speaks for the right answer, red against it. " if found.kind == "signed" else "")
        + "It is blind to attention that is saturated: what selects a bit may show nothing. It decides no question."
    )
    return draw_grid(
        panels,
        title or f"Which tokens each answer depends on ({found.method})",
        caption,
        "{column} from {row}",
        ideal_cells(batch, dest),
    )


def ideal_cells(batch: Batch, dest: Sequence[int]) -> list[Outline]:
    """Where parity at step i comes from: input i, and the output before it. Other tasks have no such diagonals."""
    if batch.format.task != "parity":
        return []
    found: dict[str, list[tuple[int, int]]] = {"bit i": [], "parity at i-1": []}
    for column, p in enumerate(dest):
        step = int(batch.step[p])
        for name, role, at in (("bit i", Role.INPUT, step), ("parity at i-1", Role.OUTPUT, step - 1)):
            places = ((batch.role == role) & (batch.step == at)).nonzero().flatten().tolist() if at > 0 else []
            found[name] += [(row, column) for row in places if row < p]
    return [Outline(name, tuple(cells)) for name, cells in found.items() if cells]


def _some(axis: Axis, chosen: Sequence[int]) -> Axis:
    """Some of the entries."""
    parts = {name: tuple(getattr(axis, name)[p] for p in chosen) for name in ("names", "groups", "steps")}
    return replace(axis, **parts, tokens=tuple(axis.tokens[p] for p in chosen) if axis.tokens else ())
