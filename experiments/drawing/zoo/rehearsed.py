"""Accuracy by length and by what was rehearsed, one line per seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.frames import CONDITION, LONGER, NoRows, counted, precisions, rows_of
from experiments.drawing.zoo.layout import MODES, draw_lines, frame_axis, keys, panels
from experiments.training.rehearsal import USUAL, parse_condition
from interp.tasks import parse_format
from interp.views.colours import MARKERS, SERIES
from probes.views.accuracy import STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

# The order of conditions, from what no labels can use to what they can.
ORDER = ("none", "copying60", "lookup20", "disjoint60", USUAL, "own60")
TITLES = {
    "none": "nothing",
    "copying": "copying to {n},\nno labels",
    "lookup": "lookup to {n}",
    "disjoint": "lookup to {n}, labels\nthat parity never has",
    "own": "lookup to {n},\nits own labels",
}


def rehearsal(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw exact match by length of the scratchpad and of aligned labels, one column per thing that was rehearsed."""
    return _by_condition(frame, family, ("aligned", "scratchpad"), "What does the reach owe to what was rehearsed?")


def own_labels(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw exact match by length of formats with fixed labels that rehearsed these, beside the usual rehearsal."""
    return _by_condition(frame, family, ("numeric", "cyclic"), "Do other labels fail because they were not rehearsed?")


def by_condition(rows: Any, family: str) -> Any:
    """Return the rows of parity of a family with any rehearsal, with a column that names the condition."""
    rows = rows[rows["task"] == "parity"]
    kinds = [kind.partition(CONDITION) for kind in rows["family"]]
    rows = rows.assign(condition=[condition or USUAL for _, _, condition in kinds])
    return rows[[kind == family for kind, _, _ in kinds]]


def _by_condition(frame: DataFrame, family: str, formats: tuple[str, ...], question: str) -> Figure:
    """Draw two rows, labels given and written, and one column per condition.

    The dotted line is the longest list that was rehearsed. Raises `NoRows` where only the usual condition has results.
    """
    from matplotlib.lines import Line2D

    rows = rows_of(frame, question, formats=formats, metrics=("exact",), longest=LONGER, conditions=True)
    rows = by_condition(rows, family)
    conditions = [name for name in ORDER if name in set(rows["condition"])]
    if conditions in ([], [USUAL]):
        raise NoRows(f"{question} The table has no run of family {family} that rehearsed anything but {USUAL}")
    figure, axes = panels(len(MODES) * len(conditions), len(conditions), (8.4 / len(conditions), 2.0))
    styles: dict[str, tuple[Any, Any, str]] = {}
    for column, condition in enumerate(conditions):
        here = rows[rows["condition"] == condition]
        for row, mode in enumerate(MODES):
            axis = axes[row * len(conditions) + column]
            for k, name in enumerate(formats):
                # A format without labels has one mode; it is drawn in both rows, for comparison.
                labels = bool(parse_format(f"parity-{name}").labels)
                some = here[(here["format"] == name) & (here["mode"] == (mode if labels else "forced"))]
                if len(some):
                    look = (SERIES[k], STYLES["forced"], MARKERS[k])
                    draw_lines(axis, some, *look, f"{name}: {counted(some)}")
                    styles[name if labels else f"{name} (no labels)"] = look
            frame_axis(axis, here[here["mode"] == mode] if mode in set(here["mode"]) else here)
            if longest := parse_condition(condition).longest:
                axis.axvline(longest, color="#666666", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes[column].set_title(_title(condition, here), fontsize=8)
        counts = [f"{name}: {counted(here[here['format'] == name])}" for name in formats if name in set(here["format"])]
        axes[-len(conditions) + column].set_xlabel("\n".join(("bits", *counts)), fontsize=8)
    for row, text in enumerate(MODES.values()):
        axes[row * len(conditions)].set_ylabel(f"exact match,\n{text.removesuffix(' by the model')}", fontsize=8)
    rehearsed = Line2D(
        [], [], color="#666666", linewidth=0.8, linestyle=(0, (2, 2)), label="longest list that was rehearsed"
    )
    figure.legend(handles=[*keys(styles), rehearsed], loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    trained = ", ".join(str(n) for n in sorted(rows["trained_to"].unique()))
    figure.suptitle(f"{question} Parity\ntrained on up to {trained} bits; columns: what was rehearsed", fontsize=9)
    return figure


def _title(condition: str, rows: Any) -> str:
    parsed = parse_condition(condition)
    return f"{TITLES[parsed.what].format(n=parsed.longest)}\n{precisions(rows)}".strip()
