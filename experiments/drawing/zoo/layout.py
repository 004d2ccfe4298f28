"""Panels of curves: lines of seeds and their median, the trained range, chance, and the legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.frames import trained_alike
from interp.tasks import parse_format
from interp.views.colours import MARKERS, SERIES
from probes.views.accuracy import STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODES = {"forced": "labels given", "written": "labels written by the model"}
# Chance has another colour than any model.
CHANCE: dict[str, Any] = {"color": "#AAAAAA", "linewidth": 0.9}
# By mode, for formats of which some have no labels: colour, style, marker, name.
BY_MODE = {
    "forced": (SERIES[0], STYLES["forced"], MARKERS[0], "labels given, or none"),
    "written": (SERIES[1], STYLES["written"], MARKERS[1], MODES["written"]),
}
MODE_KEYS = {name: (colour, style, marker) for colour, style, marker, name in BY_MODE.values()}
# The style of seeds that did not learn, whatever the mode.
DOTTED = ":"


def panels(n: int, across: int, size: tuple[float, float], share: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure of n panels, `across` per row; the rest of the last row is empty."""
    from matplotlib.figure import Figure

    down = -(-n // across)
    figure = Figure(figsize=(0.6 + size[0] * min(n, across), 1.1 + size[1] * down), layout="constrained", dpi=110)
    axes = figure.subplots(down, min(n, across), squeeze=False, sharex=share, sharey=share).ravel().tolist()
    for axis in axes[n:]:
        axis.remove()
    return figure, axes[:n]


def grid_of_panels(down: int, across: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of `down` rows of `across` panels, and its axes row by row; size: width and height in inches."""
    figure, axes = panels(down * across, across, size)
    return figure, [axes[row * across : (row + 1) * across] for row in range(down)]


def modes_of(rows: Any) -> list[str]:
    """Return the modes that some rows have, in the order of their styles."""
    return [mode for mode in STYLES if mode in set(rows["mode"])]


def mode_text(name: str, mode: str) -> str:
    """Return who writes the labels; "" for a format without labels."""
    return f", {MODES[mode].removesuffix(' by the model')}" if parse_format(f"parity-{name}").labels else ""


def draw_by_mode(axis: Axes, rows: Any) -> None:
    """Draw the lines of one format, coloured by who writes the labels."""
    for mode, look in BY_MODE.items():
        some = rows[rows["mode"] == mode]
        if len(some):
            draw_lines(axis, some, *look)
    frame_axis(axis, rows)


def draw_lines(axis: Axes, rows: Any, colour: str, style: str, marker: str, label: str) -> None:
    """Draw one thin line per seed, dotted if it did not learn, and the median of those that did, with the label.

    A seed's line is labelled "_" and its run, which keeps it out of legends.
    """
    from matplotlib.lines import Line2D

    for run, line in rows.groupby("run"):
        line, learned = line.sort_values("length"), bool(line["learned"].iloc[0])
        look: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.45} if learned else {"linewidth": 1.1, "alpha": 0.85}
        axis.plot(line["length"], line["value"], style if learned else DOTTED, color=colour, label=f"_{run}", **look)
    middle = rows[rows["learned"].astype(bool)].groupby("length")["value"].median()
    if len(middle):
        look = {"color": colour, "linewidth": 1.9, "label": label, **dots(marker, style)}
        axis.plot(middle.index, middle.to_numpy(), style, **look)
    else:
        axis.add_line(Line2D([], [], linestyle=DOTTED, color=colour, linewidth=1.1, label=label))


def dots(marker: str, style: Any) -> dict[str, Any]:
    """Return a marker's look: open and larger on dashed lines, which filled markers would hide."""
    if style == "-":
        return {"marker": marker, "markersize": 3.8}
    return {"marker": marker, "markersize": 5.2, "markerfacecolor": "white"}


def shade(axis: Axes, longest: Iterable[int]) -> None:
    """Shade the trained range; several ranges overlap if runs were trained to several lengths."""
    for n in sorted(set(longest)):
        axis.axvspan(0, n, color="#888888", alpha=0.14, linewidth=0)


def frame_axis(axis: Axes, rows: Any) -> None:
    """Draw chance and the trained range, and set the limits of an axis of accuracies by length."""
    chance = rows.dropna(subset=["chance"]).groupby("length")["chance"].mean()
    if len(chance):
        axis.plot(chance.index, chance.to_numpy(), label="_chance", **CHANCE)
    shade(axis, rows["trained_to"])
    # Addition has at least one digit; parity's axis starts where training starts.
    left = max(0, rows["length"].min() - 1) if "addition" in set(rows["task"]) else 0
    axis.set(ylim=(-0.04, 1.04), xlim=(left, None))
    axis.set_yticks((0, 0.5, 1))
    axis.tick_params(labelsize=8)


def name_rows(axes: Sequence[Sequence[Axes]], names: Sequence[str]) -> None:
    """Write each row's name beside its first panel."""
    for row, name in zip(axes, names, strict=True):
        row[0].set_ylabel(name, fontsize=8)


def keys(styles: Mapping[str, tuple[Any, Any, str]] | None = None) -> list[Any]:
    """Return the legend's entries: given styles, then those that all figures share."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    own: list[Any] = [
        Line2D([], [], color=colour, linestyle=style, linewidth=1.9, label=name, **dots(marker, style))
        for name, (colour, style, marker) in (styles or {}).items()
    ]
    return [
        *own,
        Line2D([], [], color="black", linewidth=1.9, label="median of the seeds that learned"),
        Line2D([], [], color="black", linewidth=0.8, alpha=0.5, label="one of them"),
        Line2D([], [], color="black", linewidth=1.1, linestyle=DOTTED, label="a seed that did not learn"),
        Patch(color="#888888", alpha=0.2, linewidth=0, label="trained lengths"),
    ]


def finished(
    figure: Figure,
    axes: Sequence[Sequence[Axes]],
    rows: Any,
    title: str,
    unit: str = "bits",
    styles: Mapping[str, tuple[Any, Any, str]] | None = None,
    below: Sequence[str] = (),
) -> Figure:
    """Add axis labels, the legend and the title. `below` are texts under the columns."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    for k, axis in enumerate(axes[-1]):
        axis.set_xlabel("\n".join((unit, *below[k : k + 1])), fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=(1, 2, 5, 10)))
    handles = [*keys(styles), Line2D([], [], label="chance, labels right", **CHANCE)]
    width = figure.get_size_inches()[0]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(2, int(width // 2.1)), fontsize=7, frameon=False
    )
    figure.suptitle(f"{title}\n{trained_alike(rows)}", fontsize=9)
    return figure
