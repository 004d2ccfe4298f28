"""Which bit does a step read, and where does the read go when the prompt is longer than any in training?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.curves import dots, keys, panels, shade
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
from interp.views.colours import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy import ndarray
    from pandas import DataFrame

# Offsets beyond are one bin on each side.
FARTHEST = 40
BEYOND = FARTHEST + 1
# Where "no bit decides" stands, apart from the offsets.
NONE = BEYOND + 8
DIAMOND: dict[str, Any] = {"color": SERIES[1], "markersize": 4, "fillstyle": "none"}
# Name: colour, style, marker.
READS = {
    "at 0: the right bit": (SERIES[0], "-", "o"),
    "within ±1": (SERIES[2], "--", "^"),
    "no single bit decides": (SERIES[1], "-.", "s"),
}


def offsets(frame: DataFrame, family: str | None = "alibi") -> Figure:
    """A heat map a format: share of steps (colour) that are decided by the bit at an offset (column), by length (row).

    With `family` None one a format and family, of the scratchpad and the aligned format.

    0 is right, +3 reads three bits too late. Mean over the seeds that learned, or over all where none did. What lies
    beyond ±40 is in the outermost columns, and apart stand the steps that no single bit decides. Diamonds: where a
    reader of fixed distances would look, past training: distances learned on the longest prompts, `trained_to` bits
    back, are n - trained_to too short for n bits, and lead to a later bit (science 1.2); none where that is beyond.
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
    figure, axes = panels(len(shown), 3 if family else len(formats), (3.3, 0.85 + 0.17 * most), share=False)
    # A square root, lest all that is not at 0 be white.
    scale = ScalarMappable(PowerNorm(0.5, 0, 1), "Blues")
    look: dict[str, Any] = {
        "cmap": scale.cmap,
        "norm": scale.norm,
        "aspect": "auto",
        "interpolation": "nearest",
    }
    for axis, (kind, name, here) in zip(axes, shown, strict=True):
        lengths, shares = _matrix(here)
        # Two pictures: the column of "none" stands apart.
        axis.imshow(shares[:, :-1], extent=(-BEYOND - 0.5, BEYOND + 0.5, len(lengths) - 0.5, -0.5), **look)
        axis.imshow(shares[:, -1:], extent=(NONE - 1.5, NONE + 1.5, len(lengths) - 0.5, -0.5), **look)
        for row, n in enumerate(lengths):
            trained = sorted(here[here["length"] == n]["trained_to"].unique())
            past = [n - longest for longest in trained if 0 < n - longest <= FARTHEST]
            if past:
                axis.plot(past, [row] * len(past), "D", label="_index", **DIAMOND)
        inside = sum(n <= here["trained_to"].min() for n in lengths)
        axis.axhline(inside - 0.5, color="black", linewidth=0.9)
        axis.axvline(0, color="black", linewidth=0.7, linestyle=":", zorder=3)
        words = (f"<-{FARTHEST}", "-20", "0", "20", f">{FARTHEST}", "none")
        axis.set_xticks((-BEYOND, -20, 0, 20, BEYOND, NONE), words)
        axis.set_yticks(range(len(lengths)), [str(n) for n in lengths])
        axis.set(xlim=(-BEYOND - 0.5, NONE + 1.5), ylim=(len(lengths) - 0.5, -0.5))
        axis.tick_params(labelsize=7, length=2)
        words = name if family else f"{shown_kind(kind)}, {name}"
        axis.set_title(f"{words}: {counted(here)}", fontsize=8)
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
    figure.suptitle(_title("Which bit decides a step", rows, family), fontsize=9)
    return figure


def where_read(frame: DataFrame, family: str = "alibi") -> Figure:
    """By length, a panel a format: share of steps decided by the right bit, by it or a neighbour, by no single bit."""
    rows = _offset_rows(frame, "where reads go", family)
    formats = in_order(rows["format"])
    figure, axes = panels(len(formats), 4, (2.3, 1.75))
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
    figure.suptitle(_title("Where the read goes", rows, family), fontsize=9)
    return figure


def _offset_rows(frame: DataFrame, figure: str, family: str | None, formats: tuple[str, ...] = ()) -> Any:
    """The rows of offsets, with the offset itself: a number, or NaN where no single bit decides."""
    import pandas as pd

    rows = rows_of(frame, figure, families=(family,) if family else (), formats=formats)
    rows = rows[rows["metric"].str.startswith("offset ")]
    if not family:
        rows = usual_size(rows)
    if rows.empty:
        raise NoRows(f"{figure}: the table has no rows of offsets, family {family or 'any'}")
    words = rows["metric"].str.removeprefix("offset ")
    return rows.assign(offset=pd.to_numeric(words.where(words != "none"), errors="raise"))


def _matrix(rows: Any) -> tuple[list[int], ndarray]:
    """Lengths, and `[length offset]` shares from -26 to +26, then none: the mean of seeds, each an equal part."""
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
    """A line a seed of each of the shares, dotted where it did not learn, and the median of those that did.

    The first, which others cover where all are 1, lies on top.
    """
    import pandas as pd

    parts = (rows["offset"] == 0, rows["offset"].abs() <= 1, rows["offset"].isna())
    for k, ((name, (colour, style, marker)), part) in enumerate(zip(READS.items(), parts, strict=True)):
        # An offset that was never read has no row: its share is 0, which a sum over no rows is.
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


def _title(words: str, rows: Any, family: str | None) -> str:
    return f"{words}: parity, {shown_kind(family) if family else 'by positional encoding'}\n{trained_alike(rows)}"
