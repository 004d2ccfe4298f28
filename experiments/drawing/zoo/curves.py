"""Accuracy by length inside and past the trained range, one line per seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.drawing.zoo.frames import (
    FAMILIES,
    LONGER,
    LONGEST,
    NoRows,
    counted,
    in_order,
    rows_of,
    shown_kind,
    usual_size,
)
from experiments.drawing.zoo.layout import (
    BY_MODE,
    MODE_KEYS,
    MODES,
    draw_by_mode,
    draw_lines,
    finished,
    frame_axis,
    grid_of_panels,
    mode_text,
    modes_of,
    name_rows,
)
from interp.tasks import known_formats, parse_format
from interp.views.colours import MARKERS, SERIES
from probes.views.accuracy import STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

METRICS = {"step": "step accuracy", "exact": "exact match", "final": "final bit"}
_FORMATS = [parse_format(name) for name in known_formats()]
_GAPS = [fmt.gap for fmt in _FORMATS if fmt.gap]
GAPS = {"aligned": "gap 0 (aligned)", **{f"gap{n}": f"gap {n}" for n in _GAPS}}
ADDITION = {fmt.name: fmt.title for fmt in _FORMATS if fmt.task == "addition"}


def by_family(frame: DataFrame, kinds: str = "positional encoding") -> Figure:
    """Draw the paper's Figure 4: parity with a scratchpad and with aligned mnemonics, one column per family.

    `kinds`: what families are, in the title.

    Above: exact match; below: step accuracy. Solid: labels given (environment-forced); dashed: written by the model.
    Models of other sizes are in `scale`.
    """
    rows = rows_of(frame, "accuracy by family", formats=("scratchpad", "aligned"), metrics=("exact", "step"))
    rows = usual_size(rows)
    if rows.empty:
        raise NoRows("accuracy by family: the table has no rows of models of the usual size")
    families = in_order(rows["family"], tuple(FAMILIES))
    figure, axes = grid_of_panels(2, len(families), (8.4 / len(families), 2.0))
    styles: dict[str, tuple[str, str, str]] = {}
    below: list[str] = []
    for column, family in enumerate(families):
        here = rows[rows["family"] == family]
        for row, metric in enumerate(("exact", "step")):
            axis, measured = axes[row][column], here[here["metric"] == metric]
            for k, name in enumerate(("aligned", "scratchpad")):
                lines = measured[measured["format"] == name]
                for mode in modes_of(lines):
                    some = lines[lines["mode"] == mode]
                    look = (SERIES[k], STYLES[mode], MARKERS[k])
                    draw_lines(axis, some, *look, f"{name}{mode_text(name, mode)}: {counted(some)}")
                    styles[name + mode_text(name, mode)] = look
            frame_axis(axis, measured)
        axes[0][column].set_title(shown_kind(family), fontsize=10)
        counts = [f"{name}: {counted(here[here['format'] == name])}" for name in in_order(here["format"])]
        below.append("\n".join(counts))
    name_rows(axes, ("exact match", "step accuracy"))
    question = f"How far past training does each {kinds} work, with mnemonics and without?"
    return finished(figure, axes, rows, question, styles=styles, below=below)


def variants(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw the paper's Figure 6, the variants of labels: one row per format, one column per metric."""
    rows = rows_of(frame, "variants", families=(family,), metrics=tuple(METRICS))
    rows = rows[~rows["format"].str.startswith("gap")]
    formats = in_order(rows["format"])
    if set(formats) <= {"aligned"}:
        raise NoRows(f"variants: the table has no rows with a format other than aligned, family {family}")
    figure, axes = grid_of_panels(len(formats), len(METRICS), (2.9, 1.35))
    for row, name in enumerate(formats):
        for column, metric in enumerate(METRICS):
            some = rows[(rows["format"] == name) & (rows["metric"] == metric)]
            draw_by_mode(axes[row][column], some)
    for axis, words in zip(axes[0], METRICS.values(), strict=True):
        axis.set_title(words, fontsize=10)
    name_rows(axes, [f"{name}\n{counted(rows[rows['format'] == name])}" for name in formats])
    return finished(
        figure, axes, rows, f"What must labels be like? Parity, {shown_kind(family)}, by format", styles=MODE_KEYS
    )


def gaps(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw the paper's study of spacing: aligned labels with 0, 1, 2, 4 and 8 tokens between a label and its bit."""
    rows = rows_of(frame, "gaps", families=(family,), formats=tuple(GAPS), metrics=("exact", "step"))
    if set(rows["format"]) <= {"aligned"}:
        raise NoRows(f"gaps: the table has no rows with a gap of 1 or more, family {family}")
    modes = modes_of(rows)
    figure, axes = grid_of_panels(2, len(modes), (4.4, 2.2))
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
    name_rows(axes, ("exact match", "step accuracy"))
    styles = {
        f"{text}: {counted(rows[rows['format'] == name])}": (SERIES[k], "-", "os^Dv"[k])
        for k, (name, text) in enumerate(GAPS.items())
        if name in set(rows["format"])
    }
    title = f"How far may a label be from its bit? Parity, {shown_kind(family)}, gap in tokens"
    return finished(figure, axes, rows, title, styles=styles)


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
    figure, axes = grid_of_panels(len(MODES), len(formats), (8.4 / len(formats), 2.0))
    for column, name in enumerate(formats):
        for row, (mode, (colour, style, marker, label)) in enumerate(BY_MODE.items()):
            axis, some = axes[row][column], rows[(rows["format"] == name) & (rows["mode"] == mode)]
            draw_lines(axis, some, colour, style, marker, label)
            frame_axis(axis, some)
            axis.axvline(LONGEST, color="#666666", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes[0][column].set_title(f"{name}\n{counted(rows[rows['format'] == name])}", fontsize=9)
    name_rows(axes, tuple(f"exact match,\n{text}" for text in MODES.values()))
    title = f"How far past {LONGEST} bits, the longest list rehearsed? Parity, {shown_kind(family)}"
    return finished(figure, axes, rows, title, styles=MODE_KEYS)


def addition(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw the paper's Figure 7: addition by digits, one column per format.

    Above: exact match; below: step accuracy.
    """
    rows = rows_of(frame, "addition", "addition", families=(family,), metrics=("exact", "step"))
    formats = in_order(rows["format"], tuple(ADDITION))
    figure, axes = grid_of_panels(2, len(formats), (8.4 / len(formats), 2.1))
    for column, name in enumerate(formats):
        for row, metric in enumerate(("exact", "step")):
            draw_by_mode(axes[row][column], rows[(rows["format"] == name) & (rows["metric"] == metric)])
        here = rows[rows["format"] == name]
        axes[0][column].set_title(f"{ADDITION.get(name, name)}\n{counted(here)}", fontsize=9)
    name_rows(axes, ("exact match", "step accuracy"))
    return finished(
        figure, axes, rows, f"Do labels help addition? {shown_kind(family)}, by format", "digits", MODE_KEYS
    )
