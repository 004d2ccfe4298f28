"""The faithfulness of circuits by number of edges, beside random circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from interp.views.colours import MARKERS, SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CurveLine(Protocol):
    """A curve with its band: sizes in edges, and shares of what the full model does."""

    @property
    def sizes(self) -> Sequence[int]: ...
    @property
    def values(self) -> Sequence[float]: ...
    @property
    def low(self) -> Sequence[float]: ...
    @property
    def high(self) -> Sequence[float]: ...


def faithfulness_by_size(lines: Mapping[str, CurveLine], edges: int, title: str, narrow: bool = False) -> Figure:
    """Draw faithfulness by number of edges, on a logarithmic axis. Bands are 95 % intervals over prompts.

    A line of one point is drawn as a star. 1 is the full model, 0 no circuit at all; `edges` is the full model's.
    `narrow`: for a phone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.9, 3.9) if narrow else (6.5, 4), layout="constrained")
    axis = figure.subplots()
    for k, (name, line) in enumerate(lines.items()):
        colour = SERIES[k % len(SERIES)]
        if len(line.sizes) == 1:
            error = [[line.values[0] - line.low[0]], [line.high[0] - line.values[0]]]
            style = {"fmt": "*", "markersize": 13, "color": colour, "label": name, "zorder": 5}
            axis.errorbar(line.sizes, line.values, yerr=error, **style)
            continue
        kept = [i for i, size in enumerate(line.sizes) if size > 0]  # zero has no place on a logarithmic axis
        x, y, low, high = ([some[i] for i in kept] for some in (line.sizes, line.values, line.low, line.high))
        axis.plot(x, y, marker=MARKERS[k % len(MARKERS)], markersize=4, color=colour, label=name)
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    for level in (0, 1):
        axis.axhline(level, color="#888888", linewidth=0.7, linestyle=":")
    axis.set_xscale("log")
    axis.set(xlabel=f"edges (of {edges})", ylabel="faithfulness")
    axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=9 if narrow else 12)
    return figure
