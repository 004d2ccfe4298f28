"""Accuracy by length inside and past the trained range, one line per seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.frames import (
    FAMILIES,
    LONGEST,
    NoRows,
    counted,
    in_order,
    rows_of,
    shown_kind,
    trained_alike,
    usual_size,
)
from interp.tasks import known_formats, parse_format
from interp.views.colours import MARKERS, SERIES
from probes.views.accuracy import STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

METRICS = {"step": "step accuracy", "exact": "exact match", "final": "final bit"}
MODES = {"forced": "labels given", "written": "labels written by the model"}
# Chance has another colour than any model.
CHANCE: dict[str, Any] = {"color": "#AAAAAA", "linewidth": 0.9}
_FORMATS = [parse_format(name) for name in known_formats()]
_GAPS = [fmt.gap for fmt in _FORMATS if fmt.gap]
GAPS = {"aligned": "gap 0 (aligned)", **{f"gap{n}": f"gap {n}" for n in _GAPS}}
ADDITION = {fmt.name: fmt.title for fmt in _FORMATS if fmt.task == "addition"}
# By mode, for formats of which some have no labels: colour, style, marker, name.
BY_MODE = {
    "forced": (SERIES[0], STYLES["forced"], MARKERS[0], "labels given, or none"),
    "written": (SERIES[1], STYLES["written"], MARKERS[1], MODES["written"]),
}
MODE_KEYS = {name: (colour, style, marker) for colour, style, marker, name in BY_MODE.values()}
# Past every length that is measured.
LONGER = 10**6
# The style of seeds that did not learn, whatever the mode.
DOTTED = ":"


def by_family(frame: DataFrame) -> Figure:
    """Draw the paper's Figure 4: parity with a scratchpad and with aligned mnemonics, one column per family.

    Above: exact match; below: step accuracy. Solid: labels given (environment-forced); dashed: written by the model.
    Models of other sizes are in `scale`.
    """
    rows = rows_of(frame, "accuracy by family", formats=("scratchpad", "aligned"), metrics=("exact", "step"))
    rows = usual_size(rows)
    if rows.empty:
        raise NoRows("accuracy by family: the table has no rows of models of the usual size")
    families = in_order(rows["family"], tuple(FAMILIES))
    figure, axes = _panels(2, len(families), (8.4 / len(families), 2.0))
    styles: dict[str, tuple[str, str, str]] = {}
    below: list[str] = []
    for column, family in enumerate(families):
        here = rows[rows["family"] == family]
        for row, metric in enumerate(("exact", "step")):
            axis, measured = axes[row][column], here[here["metric"] == metric]
            for k, name in enumerate(("aligned", "scratchpad")):
                lines = measured[measured["format"] == name]
                for mode in _modes(lines):
                    some = lines[lines["mode"] == mode]
                    look = (SERIES[k], STYLES[mode], MARKERS[k])
                    draw_lines(axis, some, *look, f"{name}{_mode_text(name, mode)}: {counted(some)}")
                    styles[name + _mode_text(name, mode)] = look
            frame_axis(axis, measured)
        axes[0][column].set_title(shown_kind(family), fontsize=10)
        counts = [f"{name}: {counted(here[here['format'] == name])}" for name in in_order(here["format"])]
        below.append("\n".join(counts))
    _sides(axes, ("exact match", "step accuracy"))
    question = "How far past training does each positional encoding work, with mnemonics and without?"
    return _finished(figure, axes, rows, question, styles=styles, below=below)


def variants(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw the paper's Figure 6, the variants of labels: one row per format, one column per metric."""
    rows = rows_of(frame, "variants", families=(family,), metrics=tuple(METRICS))
    rows = rows[~rows["format"].str.startswith("gap")]
    formats = in_order(rows["format"])
    if set(formats) <= {"aligned"}:
        raise NoRows(f"variants: the table has no rows with a format other than aligned, family {family}")
    figure, axes = _panels(len(formats), len(METRICS), (2.9, 1.35))
    for row, name in enumerate(formats):
        for column, metric in enumerate(METRICS):
            some = rows[(rows["format"] == name) & (rows["metric"] == metric)]
            _by_mode(axes[row][column], some)
    for axis, words in zip(axes[0], METRICS.values(), strict=True):
        axis.set_title(words, fontsize=10)
    _sides(axes, [f"{name}\n{counted(rows[rows['format'] == name])}" for name in formats])
    return _finished(
        figure, axes, rows, f"What must labels be like? Parity, {shown_kind(family)}, by format", styles=MODE_KEYS
    )


def gaps(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw the paper's study of spacing: aligned labels with 0, 1, 2, 4 and 8 tokens between a label and its bit."""
    rows = rows_of(frame, "gaps", families=(family,), formats=tuple(GAPS), metrics=("exact", "step"))
    if set(rows["format"]) <= {"aligned"}:
        raise NoRows(f"gaps: the table has no rows with a gap of 1 or more, family {family}")
    modes = _modes(rows)
    figure, axes = _panels(2, len(modes), (4.4, 2.2))
    for column, mode in enumerate(modes):
        for row, metric in enumerate(("exact", "step")):
            axis, here = axes[row][column], rows[(rows["mode"] == mode) & (rows["metric"] == metric)]
            for k, name in enumerate(GAPS):
                some = here[here["format"] == name]
                if len(some):
                    # The title names the mode; markers and colours tell gaps apart.
                    draw_lines(axis, some, SERIES[k], "-", "os^Dv"[k], GAPS[name])
            frame_axis(axis, here)
        axes[0][column].set_title(MODES[mode], fontsize=10)
    _sides(axes, ("exact match", "step accuracy"))
    styles = {
        f"{text}: {counted(rows[rows['format'] == name])}": (SERIES[k], "-", "os^Dv"[k])
        for k, (name, text) in enumerate(GAPS.items())
        if name in set(rows["format"])
    }
    title = f"How far may a label be from its bit? Parity, {shown_kind(family)}, gap in tokens"
    return _finished(figure, axes, rows, title, styles=styles)


def reach(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw exact match to the longest length measured, one column per format of parity with longer results.

    Above: labels given; below: written by the model. One line per seed, so that seeds that fall past `LONGEST` show.
    """
    every = rows_of(frame, "reach", families=(family,), metrics=("exact",), longest=LONGER)
    runs = set(every[every["length"] > LONGEST]["run"])
    rows = every[every["run"].isin(runs) & every["mode"].isin(list(MODES))]
    formats = [name for name in in_order(rows["format"]) if parse_format(f"parity-{name}").labels]
    if not formats:
        raise NoRows(f"reach: no run with labels has results past {LONGEST} bits")
    rows = rows[rows["format"].isin(formats)]
    figure, axes = _panels(len(MODES), len(formats), (8.4 / len(formats), 2.0))
    for column, name in enumerate(formats):
        for row, (mode, (colour, style, marker, label)) in enumerate(BY_MODE.items()):
            axis, some = axes[row][column], rows[(rows["format"] == name) & (rows["mode"] == mode)]
            draw_lines(axis, some, colour, style, marker, label)
            frame_axis(axis, some)
            axis.axvline(LONGEST, color="#666666", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes[0][column].set_title(f"{name}\n{counted(rows[rows['format'] == name])}", fontsize=9)
    _sides(axes, tuple(f"exact match,\n{text}" for text in MODES.values()))
    title = f"How far past {LONGEST} bits, the longest list rehearsed? Parity, {shown_kind(family)}"
    return _finished(figure, axes, rows, title, styles=MODE_KEYS)


def addition(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw the paper's Figure 7: addition by digits, one column per format.

    Above: exact match; below: step accuracy.
    """
    rows = rows_of(frame, "addition", "addition", families=(family,), metrics=("exact", "step"))
    formats = in_order(rows["format"], tuple(ADDITION))
    figure, axes = _panels(2, len(formats), (8.4 / len(formats), 2.1))
    for column, name in enumerate(formats):
        for row, metric in enumerate(("exact", "step")):
            _by_mode(axes[row][column], rows[(rows["format"] == name) & (rows["metric"] == metric)])
        here = rows[rows["format"] == name]
        axes[0][column].set_title(f"{ADDITION.get(name, name)}\n{counted(here)}", fontsize=9)
    _sides(axes, ("exact match", "step accuracy"))
    return _finished(
        figure, axes, rows, f"Do labels help addition? {shown_kind(family)}, by format", "digits", MODE_KEYS
    )


def panels(n: int, across: int, size: tuple[float, float], share: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure of n panels, `across` per row; the rest of the last row is empty."""
    from matplotlib.figure import Figure

    down = -(-n // across)
    figure = Figure(figsize=(0.6 + size[0] * min(n, across), 1.1 + size[1] * down), layout="constrained", dpi=110)
    axes = figure.subplots(down, min(n, across), squeeze=False, sharex=share, sharey=share).ravel().tolist()
    for axis in axes[n:]:
        axis.remove()
    return figure, axes[:n]


def _panels(down: int, across: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    figure, axes = panels(down * across, across, size)
    return figure, [axes[row * across : (row + 1) * across] for row in range(down)]


def _modes(rows: Any) -> list[str]:
    return [mode for mode in STYLES if mode in set(rows["mode"])]


def _mode_text(name: str, mode: str) -> str:
    """Return who writes the labels; "" for a format without labels."""
    return f", {MODES[mode].removesuffix(' by the model')}" if parse_format(f"parity-{name}").labels else ""


def _by_mode(axis: Axes, rows: Any) -> None:
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


def _sides(axes: Sequence[Sequence[Axes]], names: Sequence[str]) -> None:
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


def _finished(
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
