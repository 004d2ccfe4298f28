"""Step accuracy of the same weights on formats that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.frames import NoRows, in_order, rows_of, shown_kind, trained_alike
from interp.views.colours import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


# Width of a cell, in inches.
CELL = 0.34


def transfer(frame: DataFrame, lengths: Sequence[int] = (), family: str = "alibi", mode: str = "forced") -> Figure:
    """Draw the step accuracy of weights trained on one format (row) on another format (column), one panel per length.

    Values are medians over the seeds that learned their own format. Hatched: not measured; framed: their own format.
    `lengths` default to the longest trained length and the longest up to twice that. Raises `NoRows` if no run that
    learned its own format was evaluated on another.
    """
    figure_name = "transfer between formats"
    rows = rows_of(frame, figure_name, families=(family,), metrics=("step",), own=False)
    rows = rows[(rows["mode"] == mode) & rows["learned"].astype(bool)]
    rows = rows.assign(shown=rows["posed"].str.removeprefix("parity-"))
    other = rows[rows["shown"] != rows["format"]]
    if other.empty:
        raise NoRows(f"{figure_name}: no run of family {family} that learned its own format was posed another ({mode})")
    trained = in_order(other["format"])
    posed = in_order([*other["shown"], *trained])
    lengths = lengths or _lengths(other)
    if unmeasured := [n for n in lengths if n not in set(other["length"])]:
        raise NoRows(f"{figure_name}: not measured at length {', '.join(map(str, unmeasured))}")

    from matplotlib.figure import Figure

    size = (1.7 + len(lengths) * (0.2 + CELL * len(posed)), 2.2 + 0.36 * len(trained))
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(1, len(lengths), squeeze=False, sharey=True)[0]
    for axis, n in zip(axes, lengths, strict=True):
        _matrix(axis, rows[rows["length"] == n], trained, posed)
        past = "past training" if n > rows["trained_to"].max() else "trained length"
        axis.set_title(f"{n} bits ({past})", fontsize=9)
        axis.set_xlabel("evaluated on", fontsize=8)
    runs = {str(name): len(set(some["run"])) for name, some in rows.groupby("format")}
    names = [f"{name} ({runs[name]} seed{'s' * (runs[name] != 1)})" for name in trained]
    axes[0].set_yticks(range(len(trained)), names, fontsize=8)
    axes[0].set_ylabel("trained on", fontsize=8)
    title = f"What do the same weights do with other formats? Step accuracy, parity, {shown_kind(family)}"
    given = "labels given" if mode == "forced" else "labels written by the model"
    note = (
        "digits are cut, not rounded; a token that is no answer counts as wrong, so that values may be below chance, .5"
    )
    figure.suptitle(f"{title}\n{given}; {trained_alike(rows)}\n{note}", fontsize=9)
    return figure


def _lengths(rows: Any) -> list[int]:
    """Return the longest trained length and the longest up to twice that; the shortest measured if there is neither."""
    longest, measured = int(rows["trained_to"].min()), sorted(int(n) for n in rows["length"].unique())
    inside, past = [n for n in measured if n <= longest], [n for n in measured if longest < n <= 2 * longest]
    return inside[-1:] + past[-1:] or measured[:1]


def _matrix(axis: Axes, rows: Any, trained: Sequence[str], posed: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    values = rows.groupby(["format", "shown"])["value"].median()
    chance = rows["chance"].dropna()
    low = min(float(chance.min()) if len(chance) else 0.5, 0.5)
    cells = [[values.get((row, column), float("nan")) for column in posed] for row in trained]
    axis.imshow(cells, cmap="Blues", vmin=low, vmax=1.15, aspect="auto", interpolation="nearest")
    for i, row in enumerate(trained):
        for j, column in enumerate(posed):
            value = cells[i][j]
            if value != value:
                axis.add_patch(
                    Rectangle(
                        (j - 0.5, i - 0.5),
                        1,
                        1,
                        fill=False,
                        hatch="////",
                        edgecolor="#BBBBBB",
                        linewidth=0,
                        label="_none",
                    )
                )
                continue
            colour = "white" if value > 0.88 else "black"
            # Cut, not rounded: .9996 must differ from 1.
            text = "1" if value == 1 else f"{int(value * 100) / 100:.2f}".lstrip("0")
            axis.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour)
            if row == column:
                axis.add_patch(
                    Rectangle(
                        (j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor=SERIES[1], linewidth=1.6, label="_own"
                    )
                )
    axis.set_xticks(range(len(posed)), posed, fontsize=8, rotation=40, ha="right", rotation_mode="anchor")
    axis.tick_params(labelsize=8, length=0)
