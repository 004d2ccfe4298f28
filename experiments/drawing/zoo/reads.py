"""Which bit decides a step, by length: offsets from the right bit, inside and past the trained range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.frames import (
    FAMILIES,
    NoRows,
    counted,
    in_order,
    rows_of,
    shown_kind,
    trained_alike,
    usual_size,
)
from experiments.drawing.zoo.layout import dots, keys, panels, shade
from interp.views.colours import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy import ndarray
    from pandas import DataFrame

# Larger offsets share one bin on each side.
FARTHEST = 40
BEYOND = FARTHEST + 1
# The column of "no single bit decides", apart from the offsets.
NONE = BEYOND + 16
DIAMOND: dict[str, Any] = {"color": SERIES[1], "markersize": 4, "fillstyle": "none"}
# Name: colour, style, marker.
READS = {
    "at 0: the right bit": (SERIES[0], "-", "o"),
    "within ±1": (SERIES[2], "--", "^"),
    "no single bit decides": (SERIES[1], "-.", "s"),
}


def offsets(frame: DataFrame, family: str | None = "alibi") -> Figure:
    """Draw one heat map per format: the share of steps that the bit at an offset (column) decides, by length (row).

    With `family` None, one per family and format, of the scratchpad and the aligned format.

    Offset 0 is the right bit, +3 is three bits too late. Values are means over the seeds that learned, or over all if
    none did. Offsets beyond ±40 are in the outermost columns; steps that no single bit decides have a separate column.
    Diamonds mark a reader of fixed distances past training: distances learned on prompts of `trained_to` bits are
    n - trained_to too short for n bits and lead to a later bit (probes/README.md, Hypotheses). None beyond ±40.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from matplotlib.lines import Line2D

    rows = _offset_rows(frame, "offsets", family, () if family else ("scratchpad", "aligned"))
    families, formats = in_order(rows["family"], tuple(FAMILIES)), in_order(rows["format"])
    shown = [
        (kind, name, here)
        for kind in families
        for name in formats
        if len(here := rows[(rows["family"] == kind) & (rows["format"] == name)])
    ]
    most = max(here["length"].nunique() for _, _, here in shown)
    figure, axes = panels(len(shown), 3 if family else len(formats), (2.8, 0.9 + 0.17 * most), share=False)
    # A square root, as otherwise all shares but that at 0 would be white.
    scale = ScalarMappable(PowerNorm(0.5, 0, 1), "Blues")
    look: dict[str, Any] = {
        "cmap": scale.cmap,
        "norm": scale.norm,
        "aspect": "auto",
        "interpolation": "nearest",
    }
    for axis, (kind, name, here) in zip(axes, shown, strict=True):
        lengths, shares = _matrix(here)
        # Two images: the column of "none" is apart.
        axis.imshow(shares[:, :-1], extent=(-BEYOND - 0.5, BEYOND + 0.5, len(lengths) - 0.5, -0.5), **look)
        axis.imshow(shares[:, -1:], extent=(NONE - 2.5, NONE + 2.5, len(lengths) - 0.5, -0.5), **look)
        for row, n in enumerate(lengths):
            trained = sorted(here[here["length"] == n]["trained_to"].unique())
            past = [n - longest for longest in trained if 0 < n - longest <= FARTHEST]
            if past:
                axis.plot(past, [row] * len(past), "D", label="_index", **DIAMOND)
        inside = sum(n <= here["trained_to"].min() for n in lengths)
        axis.axhline(inside - 0.5, color="black", linewidth=0.9)
        axis.axvline(0, color="black", linewidth=0.7, linestyle=":", zorder=3)
        ticks = (f"<-{FARTHEST}", "-20", "0", "20", f">{FARTHEST}", "none")
        axis.set_xticks((-BEYOND, -20, 0, 20, BEYOND, NONE), ticks)
        axis.set_yticks(range(len(lengths)), [str(n) for n in lengths])
        axis.set(xlim=(-BEYOND - 0.5, NONE + 2.5), ylim=(len(lengths) - 0.5, -0.5))
        axis.tick_params(labelsize=7, length=2)
        panel = name if family else f"{shown_kind(kind)}, {name}"
        axis.set_title(f"{panel}: {counted(here)}", fontsize=8)
        axis.set_ylabel("bits", fontsize=7)
        axis.set_xlabel("offset of the bit that is read", fontsize=7)
    bar = figure.colorbar(scale, ax=axes, fraction=0.02, pad=0.01, aspect=25, ticks=(0, 0.05, 0.25, 0.5, 1))
    bar.set_label("share of steps", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    handles = [
        Line2D(
            [],
            [],
            marker="D",
            linewidth=0,
            **DIAMOND,
            label="where a reader of fixed distances would look: n - trained length too late",
        ),
        Line2D([], [], color="black", linewidth=0.9, label="below: longer than any in training"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=1 + (len(shown) > 1), fontsize=7, frameon=False)
    figure.suptitle(_title("Which bit decides a step?", rows, family), fontsize=9)
    return figure


def where_read(frame: DataFrame, family: str = "alibi") -> Figure:
    """Draw the shares of steps decided by the right bit, by it or a neighbour, by no single bit; a panel per format."""
    rows = _offset_rows(frame, "where reads go", family)
    formats = in_order(rows["format"])
    figure, axes = panels(len(formats), 4, (2.1, 1.75))
    for k, (axis, name) in enumerate(zip(axes, formats, strict=True)):
        here = rows[rows["format"] == name]
        _shares(axis, here)
        shade(axis, here["trained_to"])
        axis.set_title(f"{name}: {counted(here)}", fontsize=8)
        axis.set(ylim=(-0.04, 1.04), xlim=(0, None))
        axis.set_yticks((0, 0.5, 1))
        axis.tick_params(labelsize=8, labelbottom=True)
        if k + 4 >= len(axes):
            axis.set_xlabel("bits", fontsize=8)
        if k % 4 == 0:
            axis.set_ylabel("share of steps", fontsize=8)
    width = figure.get_size_inches()[0]
    figure.legend(
        handles=keys(READS), loc="outside lower center", ncols=max(2, int(width // 2.1)), fontsize=7, frameon=False
    )
    figure.suptitle(_title("Does a step read its own bit past training?", rows, family), fontsize=9)
    return figure


def _offset_rows(frame: DataFrame, figure: str, family: str | None, formats: tuple[str, ...] = ()) -> Any:
    """Return the rows of offsets with a column `offset`: a number, or NaN if no single bit decides."""
    import pandas as pd

    rows = rows_of(frame, figure, families=(family,) if family else (), formats=formats)
    rows = rows[rows["metric"].str.startswith("offset ")]
    if not family:
        rows = usual_size(rows)
    if rows.empty:
        raise NoRows(f"{figure}: the table has no rows of offsets, family {family or 'any'}")
    names = rows["metric"].str.removeprefix("offset ")
    return rows.assign(offset=pd.to_numeric(names.where(names != "none"), errors="raise"))


def _matrix(rows: Any) -> tuple[list[int], ndarray]:
    """Return lengths, and `[length offset]` shares from -41 to +41, then none: the mean of seeds with equal weights."""
    import numpy as np

    some = rows[rows["learned"].astype(bool)]
    some = rows if some.empty else some
    lengths = sorted(rows["length"].unique())
    shares = np.zeros((len(lengths), 2 * BEYOND + 2))
    for row, n in enumerate(lengths):
        here = some[some["length"] == n]
        for offset, value in zip(here["offset"], here["value"], strict=True):
            column = -1 if np.isnan(offset) else int(np.clip(offset, -BEYOND, BEYOND)) + BEYOND
            shares[row, column] += value / here["run"].nunique()
    return [int(n) for n in lengths], shares


def _shares(axis: Axes, rows: Any) -> None:
    """Draw each share's line per seed, dotted if it did not learn, and the median of those that did.

    The first share is on top, as others cover it where all are 1.
    """
    import pandas as pd

    parts = (rows["offset"] == 0, rows["offset"].abs() <= 1, rows["offset"].isna())
    for k, ((name, (colour, style, marker)), part) in enumerate(zip(READS.items(), parts, strict=True)):
        # An offset that was never read has no row; its share is the sum over no rows, 0.
        sums = rows["value"].where(part, 0.0).groupby([rows["run"], rows["length"]]).sum()
        learned = rows.groupby("run")["learned"].first().astype(bool)
        lines = pd.DataFrame(sums.unstack("run"))
        for run in lines:
            line, good = lines[run].dropna(), bool(learned[run])
            axis.plot(
                line.index,
                line.to_numpy(),
                style if good else ":",
                color=colour,
                linewidth=0.8 if good else 1.1,
                alpha=0.45 if good else 0.85,
                label=f"_{run} {name}",
            )
        middle = lines[learned[learned].index].median(axis=1).dropna()
        if len(middle):
            axis.plot(
                middle.index,
                middle.to_numpy(),
                style,
                color=colour,
                linewidth=1.9,
                label=name,
                zorder=3 - k / 4,
                **dots(marker, style),
            )


def _title(question: str, rows: Any, family: str | None) -> str:
    return f"{question} Parity, {shown_kind(family) if family else 'by positional encoding'}\n{trained_alike(rows)}"
