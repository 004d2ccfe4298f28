"""Heat maps of patching effects, head scores and logit lenses, from results or from plain arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from interp.views.axes import Axis, axis_of_labels, positions, token_axis
from interp.views.grid import draw_grid
from interp.views.panel import Panel, array_of

if TYPE_CHECKING:
    from numpy import ndarray

    from interp.tasks import Prompts
    from interp.views.view import View


# Most panels of single heads or neurons.
MOST_PANELS = 64


class Effect(Protocol):
    """The effects of a patching sweep, such as `interp.patching.PatchEffect`."""

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


def effect(
    effects: Effect | Any, title: str = "", tokens: Sequence[str] | Prompts | None = None, unit: str = "change"
) -> View:
    """Return the mean change of the metric as a heat map: layer by position, or with heads layer by head.

    Args:
        effects: a `PatchEffect`; or an array of changes, `[layer pos]` or `[layer head pos]` with `tokens`,
            `[layer head]` without.
        title: the default names what is patched.
        tokens: for an array, the prompt's tokens: strings, or prompts, of which the first is shown.
        unit: for an array, what a value is.

    With heads or neurons, the first panel shows for each the position that changes the metric most; a panel by position
    per head or neuron follows, where they are at most 64. All panels have one scale. Other effects (of knockouts,
    paths, features) have one or two axes, which are the map's. Raises `ValueError` for more.

    >>> effect([[0.0, 1.5], [0.0, -0.5]], tokens=["Mary", " John"]).alt
    'What patching changes. Heat map, 2 rows (layer) by 2 columns (position): strongest are layer 0, John (1): +1.5; layer 1, John (1): -0.5.'
    """  # noqa: E501
    if not hasattr(effects, "change"):
        return _array_effect(array_of(effects), title or "What patching changes", tokens, unit)
    axes: tuple[str, ...] = tuple(effects.axes)
    part = "neuron" if "neuron" in axes else "head"
    by_layer = " ".join(axes) in ("layer", "layer pos", f"layer {part}", f"layer {part} pos")
    if not by_layer and len(axes) > 2:
        raise ValueError(
            f"a map of a patch has layers, heads or neurons, and positions, or two axes; got {', '.join(axes)}"
        )
    change = array_of(effects.change).mean(axis=-1)
    base, source = (array_of(run) for run in (effects.base, effects.source))
    caption = (
        f"Blue: the patch raises the {effects.metric}; red: it lowers it; neutral: nothing changes. Mean over "
        f"{base.size} prompt{'s' * (base.size != 1)}. Without a patch it is {base.mean():.3g}"
    )
    if effects.source is effects.base:  # ablations take nothing from another run
        caption += "."
    else:
        caption += (
            f"; in the run that activations come from it is {source.mean():.3g}, so that "
            f"{source.mean() - base.mean():+.3g} would be the whole way."
        )
    title = title or f"What patching {effects.site} changes ({effects.direction})"
    unit = f"change in {effects.metric}"
    if not by_layer:
        rows, *others = (_axis(effects, axis) for axis in axes)
        columns = others[0] if others else Axis("effect", ("change",))
        panel = Panel(f"by {rows.title}", change.reshape(len(rows), -1), rows, columns, unit)
        return draw_grid([panel], title, caption)
    layers = _axis(effects, "layer")
    if part not in axes:
        columns = axis_of_labels(effects.labels["pos"]) if "pos" in axes else Axis("site", (effects.site,))
        panels = [Panel("layer by position", change.reshape(len(layers), -1), layers, columns, unit)]
        return draw_grid(panels, title, caption)
    heads = Axis(part, tuple(f"{part} {one}" for one in effects.labels[part]))
    at = axis_of_labels(effects.labels["pos"]) if "pos" in axes else None
    if at:
        caption += f" In the map of {part}s, each cell has the position that changes the metric most."
    return draw_grid(_head_panels(change, layers, heads, at, unit), title, caption)


def _axis(effects: Effect, name: str) -> Axis:
    """Return an axis of an effect: positions by their labels, numbers with the name of the axis."""
    labels = effects.labels[name]
    if name == "pos":
        return axis_of_labels(labels)
    title = name.replace("_", " ")
    return Axis(title, tuple(f"{title} {label}" if isinstance(label, int) else str(label) for label in labels))


def _array_effect(change: ndarray, title: str, tokens: Any, unit: str) -> View:
    """Draw `[layer pos]`, `[layer head]` or `[layer head pos]`."""
    if change.ndim not in (2, 3) or (change.ndim == 3 and tokens is None):
        raise ValueError(
            f"effects must be [layer pos] or [layer head pos] with tokens, or [layer head] without; got {change.shape}"
        )
    layers, at = numbered("layer", len(change)), None if tokens is None else prompt_axis(tokens)
    if at is not None and len(at) != change.shape[-1]:
        raise ValueError(f"effects have {change.shape[-1]} positions for {len(at)} tokens")
    if change.ndim == 3 or at is None:
        return draw_grid(_head_panels(change, layers, numbered("head", change.shape[1]), at, unit), title)
    return draw_grid(Panel("layer by position", change, layers, at, unit), title)


def _head_panels(change: ndarray, layers: Axis, heads: Axis, at: Axis | None, unit: str) -> list[Panel]:
    """Return a panel of layer by head; with positions `at`, the strongest position there, and a panel per head."""
    if at is None:
        return [Panel(f"layer by {heads.title}", change, layers, heads, unit)]
    peaks = np.take_along_axis(change, np.abs(change).argmax(axis=2)[..., None], axis=2)[..., 0]
    limit = float(np.abs(change).max()) or 1.0
    return [
        Panel(f"layer by {heads.title}: the position that moves it most", peaks, layers, heads, unit),
        *(
            Panel(f"{name}: layer by position", change[:, k], layers, at, unit, limit=limit)
            for k, name in enumerate(heads.names if len(heads) <= MOST_PANELS else ())
        ),
    ]


def heads(scores: Any, title: str = "", unit: str = "") -> View:
    """Return scores of heads as a heat map of layer by head.

    `scores` is an array `[layer head]`; a mapping from names to such arrays (a panel per name); `HeadScores`; or a
    `LogitAttribution`, which has a column for the MLPs, too. `head_table` shows the same as a table. Raises
    `ValueError` for other shapes.

    >>> heads({"induction": [[0.0, 0.75]], "previous token": [[0.5, 0.25]]}).title
    'Head scores'
    """
    if hasattr(scores, "components"):
        return _component_grid(scores, title or "What each component adds to the answer", unit or "logits")
    if hasattr(scores, "by_kind"):
        named, unit = scores.by_kind, unit or f"score ({scores.measure})"
    else:
        named = scores if isinstance(scores, Mapping) else {"layer by head": scores}
    panels = []
    for name, values in named.items():
        array = array_of(values)
        if array.ndim != 2:
            raise ValueError(f"{name}: scores must be [layer head]; got {array.shape}")
        layers, columns = numbered("layer", len(array)), numbered("head", array.shape[1])
        panels.append(Panel(str(name), array, layers, columns, unit or "score", _scale(array)))
    return draw_grid(panels, title or "Head scores")


def _component_grid(attribution: Any, title: str, unit: str) -> View:
    """Draw a `LogitAttribution`: its mean over prompts and read positions, by layer and head or MLP."""
    means = dict(zip(attribution.components, array_of(attribution.parts).mean(axis=(1, 2)), strict=True))
    cells = {found: value for name, value in means.items() if (found := re.fullmatch(r"L(\d+)(?:H(\d+)| MLP)", name))}
    n_layers = 1 + max(int(found[1]) for found in cells)
    n_heads = 1 + max((int(found[2]) for found in cells if found[2]), default=-1)
    values = np.full((n_layers, n_heads + 1), np.nan)
    for found, value in cells.items():
        values[int(found[1]), n_heads if found[2] is None else int(found[2])] = value
    columns = Axis("component", (*(f"head {k}" for k in range(n_heads)), "MLP"))
    rest = {name: value for name, value in means.items() if not re.match(r"L\d", name)}
    caption = "Beside these: " + ", ".join(f"{name} {value:+.3g}" for name, value in rest.items()) + "." if rest else ""
    return draw_grid(Panel("layer by component", values, numbered("layer", n_layers), columns, unit), title, caption)


def lens(
    values: Any,
    tokens: Sequence[str] | Prompts | None = None,
    predictions: Sequence[Sequence[str]] = (),
    title: str = "Logit lens",
    unit: str = "logit",
    layers: Sequence[str] = (),
) -> View:
    """Return a logit lens as a heat map of layer by position, with the predicted tokens in the cells.

    Args:
        values: a `LogitLens`, of which the mean margin is shown; or `[layer pos]`, such as the logit, log-probability
            or rank of the answer at each layer.
        tokens: for an array, the prompt's tokens: strings, or prompts, of which the first is shown.
        predictions: `[layer pos]` token strings, such as the top prediction; () for none. A `LogitLens` of one prompt
            has its own.
        unit: what a value is.
        layers: names of the rows; "layer 0", ... by default.

    >>> lens([[0.1, 0.2], [0.3, 0.9]], ["The", " cat"], [[" a", " b"], [" c", " sat"]]).title
    'Logit lens'
    """
    if hasattr(values, "margin"):
        array, columns = array_of(values.margin).mean(axis=1), axis_of_labels(values.names)
        layers = layers or (*(f"before layer {k}" for k in range(len(array) - 1)), "output")
        unit = "margin" if unit == "logit" else unit
        predictions = predictions or (values.words() if values.margin.shape[1] == 1 else ())
    else:
        if tokens is None:
            raise ValueError("the tokens are missing: give tokens= (strings or prompts), or a LogitLens")
        array, columns = array_of(values), prompt_axis(tokens)
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise ValueError(f"values must be [layer pos] with {len(columns)} positions; got {array.shape}")
    rows = Axis("layer", tuple(map(str, layers))) if layers else numbered("layer", len(array))
    notes = tuple(tuple(map(str, row)) for row in predictions)
    return draw_grid(Panel("layer by position", array, rows, columns, unit, _scale(array), notes=notes), title)


def numbered(name: str, n: int) -> Axis:
    """Return the axis of layers or heads by number.

    >>> numbered("head", 2).names
    ('head 0', 'head 1')
    """
    return Axis(name, tuple(f"{name} {k}" for k in range(n)))


def prompt_axis(tokens: Sequence[str] | Prompts) -> Axis:
    """Return the axis of a prompt, from its tokens as strings or from prompts (of which the first is shown)."""
    return positions(tokens, 0) if hasattr(tokens, "n_pos") else token_axis(tokens)  # type: ignore[arg-type]


def _scale(values: ndarray) -> Any:
    return "sequential" if (values[~np.isnan(values)] >= 0).all() else "diverging"
