"""Accuracy by length, inside and past the trained range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from interp.views.colours import MARKERS, SERIES
from interp.views.figures import as_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from interp.views.view import View

STYLES = {"forced": "-", "written": "--"}
# Who writes the labels, by mode.
MODES = {"forced": "labels given", "written": "labels written by the model"}
# Measures of a task whose last answer is one bit; `titles_of` names that of other tasks.
TITLES = {
    "step": "step accuracy, teacher-forced",
    "exact": "exact match, free-running",
    "final": "final bit, free-running",
}
# What the metric "final" is about, by task (`probes.competence`).
FINAL = {"parity": "final bit", "addition": "final sum"}
# Chances below this are not told apart.
LEAST = 1e-6
QUESTION = "How far past the trained length does the model work?"


class Estimate(Protocol):
    """A value with its interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Point(Protocol):
    """One accuracy, such as `probes.evidence.Accuracy`."""

    @property
    def metric(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def estimate(self) -> Estimate: ...
    @property
    def chance(self) -> float: ...


def final_of(task: str) -> str:
    """Return what must be right for the metric "final": the final bit, every digit of the final sum, or an answer."""
    return FINAL.get(task, "final answer")


def titles_of(task: str) -> dict[str, str]:
    """Return the titles of the measures, by metric."""
    return {**TITLES, "final": f"{final_of(task)}, free-running"}


def by_length(
    curves: Mapping[str, Sequence[Point]],
    trained: int | None,
    title: str = "Accuracy by length",
    task: str = "parity",
) -> View:
    """Return `accuracy_by_length` as a view, with its numbers.

    >>> view = by_length({run.name: evaluate(run)}, trained=20)
    """
    titles = titles_of(task)
    rows = [
        (
            name,
            titles.get(p.metric, p.metric),
            MODES.get(p.mode, p.mode),
            p.length,
            *_numbers(p.estimate),
            f"{p.chance:.3g}" if p.chance >= LEAST else f"< {LEAST:g}",
        )
        for name, points in curves.items()
        for p in points
    ]
    shaded = f" Trained up to length {trained}, which is shaded." if trained else ""
    alt = f"{title}: curves of {', '.join(curves)}, by length.{shaded}"
    columns = ("model", "measure", "labels", "length", "value", "low", "high", "chance")
    narrow = accuracy_by_length(curves, trained, task, narrow=True)
    return as_view(accuracy_by_length(curves, trained, task), title, alt, columns, rows, narrow)


def accuracy_by_length(
    curves: Mapping[str, Sequence[Point]], trained: int | None, task: str = "parity", narrow: bool = False
) -> Figure:
    """Draw one panel per metric and one colour per run. The trained range is shaded, chance is dotted.

    Where chance differs between modes, each has a line: that of written labels has sparser dots. `task` names the last
    answer in a title; all runs are of one task.

    `narrow`: for a phone, with the panels below each other.

    Solid: labels are given. Dashed: the model writes them. Bands are 95 % intervals, of steps clustered by prompt.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.9, 8.5) if narrow else (9, 3.9), layout="constrained")
    titles = titles_of(task)
    axes = figure.subplots(len(titles), 1, sharex=True) if narrow else figure.subplots(1, len(titles), sharey=True)
    for axis, (metric, title) in zip(axes, titles.items(), strict=True):
        chances: dict[str, dict[int, float]] = {}
        for k, (name, points) in enumerate(curves.items()):
            for mode, style in STYLES.items():
                line = sorted((p for p in points if (p.metric, p.mode) == (metric, mode)), key=lambda p: p.length)
                if line:
                    _curve(axis, line, k, style, f"{name}, {MODES[mode]}")
                    chances.setdefault(mode, {}).update({p.length: p.chance for p in line})
        _chance(axis, chances)
        if trained:
            axis.axvspan(0, trained, color="#888888", alpha=0.12, linewidth=0)
            axis.text(trained / 2, 1.03, "trained", ha="center", va="bottom", fontsize=8, color="#555555")
        axis.set(xlabel="length", ylim=(-0.03, 1.12), xlim=(0, None))
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=9)
    axes[0].set_ylabel("accuracy")
    if drawn := [axis for axis in axes if axis.lines]:
        figure.legend(
            *drawn[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=1 if narrow else 2,
            fontsize=8,
            frameon=False,
        )
    figure.suptitle(QUESTION, fontsize=9 if narrow else 11)
    return figure


def _curve(axis: Axes, line: Sequence[Any], k: int, style: str, label: str) -> None:
    """Draw run k's accuracies with their band."""
    lengths, colour = [p.length for p in line], SERIES[k % len(SERIES)]
    look: dict[str, Any] = {"color": colour, "marker": MARKERS[k // len(SERIES) % len(MARKERS)], "markersize": 3}
    axis.plot(lengths, [p.estimate.value for p in line], style, label=label, **look)
    low, high = [p.estimate.low for p in line], [p.estimate.high for p in line]
    axis.fill_between(lengths, low, high, color=colour, alpha=0.15, linewidth=0)


def _chance(axis: Axes, chances: Mapping[str, Mapping[int, float]]) -> None:
    """Draw chance by length, once for all modes where they agree; `chances`: by mode, then length."""
    merged: dict[int, float] = {}
    agree = True
    for own in chances.values():
        agree &= all(merged.get(n, chance) == chance for n, chance in own.items())
        merged |= own
    lines = {"chance": merged} if agree else {f"chance, {MODES[mode]}": own for mode, own in chances.items()}
    for (label, own), dots in zip(lines.items(), (":", (0, (1, 4))), strict=False):
        if own:
            axis.plot(*zip(*sorted(own.items()), strict=True), linestyle=dots, color="#555555", label=label)


def _numbers(estimate: Estimate) -> tuple[str, str, str]:
    return f"{estimate.value:.3f}", f"{estimate.low:.3f}", f"{estimate.high:.3f}"
