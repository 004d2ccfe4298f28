"""How does accuracy depend on length, inside and past the trained range?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# A second round of colours has another marker.
MARKERS = "os^D"
STYLES = {"forced": "-", "written": "--"}
TITLES = {
    "step": "step accuracy, teacher forced",
    "exact": "exact match, free-running",
    "final": "final bit, free-running",
}


class Estimate(Protocol):
    """A value with its interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Point(Protocol):
    """One accuracy: see `probes.evidence.Accuracy`."""

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


def accuracy_by_length(curves: Mapping[str, Sequence[Point]], trained: int | None) -> Figure:
    """One panel a metric, one colour a run; the trained range is shaded, chance is dotted.

    Solid lines are environment-forced, dashed ones model-written; bands are 95 % Wilson intervals.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, len(TITLES), sharey=True)
    for axis, (metric, title) in zip(axes, TITLES.items(), strict=True):
        chances: dict[int, float] = {}
        for k, (name, points) in enumerate(curves.items()):
            colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k // len(COLOURS) % len(MARKERS)]
            for mode, style in STYLES.items():
                line = sorted((p for p in points if (p.metric, p.mode) == (metric, mode)), key=lambda p: p.length)
                if not line:
                    continue
                lengths = [p.length for p in line]
                axis.plot(
                    lengths,
                    [p.estimate.value for p in line],
                    style,
                    color=colour,
                    marker=marker,
                    markersize=3,
                    label=f"{name} ({mode})",
                )
                low, high = [p.estimate.low for p in line], [p.estimate.high for p in line]
                axis.fill_between(lengths, low, high, color=colour, alpha=0.15, linewidth=0)
                chances |= {p.length: p.chance for p in line}
        if chances:
            axis.plot(*zip(*sorted(chances.items()), strict=True), ":", color="#555555", label="chance")
        if trained:
            axis.axvspan(0, trained, color="#888888", alpha=0.12, linewidth=0)
            axis.text(trained / 2, 1.03, "trained", ha="center", va="bottom", fontsize=8, color="#555555")
        axis.set(title=title, xlabel="length", ylim=(-0.03, 1.12), xlim=(0, None))
    axes[0].set_ylabel("accuracy")
    if drawn := [axis for axis in axes if axis.lines]:
        drawn[0].legend(fontsize=7, loc="lower left")
    return figure
