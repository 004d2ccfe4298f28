"""Attribution maps without mnemonics and with them, side by side: the paper's Figure 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.tasks import Batch
from interp.views.attributions import Attributed, ideal_cells
from interp.views.axes import positions
from interp.views.colours import SERIES
from interp.views.panel import array_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Outlines must be visible on blue.
OUTLINES = (SERIES[1], SERIES[2])
NAMES = ("bit i", "parity at i-1")


def maps(without: Attributed, with_: Attributed, trained_to: int) -> Figure:
    """Draw two maps of parity side by side: a column per output, a row per context token.

    Values are mean absolute attributions over prompts, as a share of their column: each answer's shares sum to 1, so
    that answers with small and large gradients can be compared. The sources of the right answer are outlined: bit i
    and the parity before it. Their mean shares, inside training and past it, are in the title. The dashed line is the
    longest trained length. A map describes and decides no question (probes/README.md, Battery). `without` and `with_`
    are `Attribution`s. Raises `ValueError` for other tasks, which have no such diagonals, and for different lengths.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    batches = [_batch_of(result) for result in (without, with_)]
    if tasks := [str(batch.format) for batch in batches if batch.format.task != "parity"]:
        raise ValueError(f"maps are of parity; got {', '.join(tasks)}")
    lengths = [batch.length for batch in batches]
    if lengths[0] != lengths[1]:
        raise ValueError(f"maps of one length stand side by side; got {lengths[0]}, {lengths[1]}")
    if not lengths[0]:
        raise ValueError("maps of empty prompts cannot be drawn")
    figure = Figure(figsize=(10.5, 8.2), layout="constrained", dpi=110)
    axes = figure.subplots(1, 2)
    # A square root, as a share that is spread over a hundred tokens would be white.
    scale = ScalarMappable(PowerNorm(0.5, 0, 1), "Blues")
    for axis, result in zip(axes, (without, with_), strict=True):
        sizes = np.abs(array_of(result.values)).mean(axis=0).T
        shares = sizes / np.where(sizes.sum(axis=0) > 0, sizes.sum(axis=0), 1.0)
        axis.imshow(shares, cmap=scale.cmap, norm=scale.norm, aspect="auto", interpolation="nearest")
        dest, texts = [int(p) for p in result.dest], []
        steps = [int(_batch_of(result).step[p]) for p in dest]
        for name, colour, outline in zip(NAMES, OUTLINES, ideal_cells(result.prompts, dest), strict=False):
            _outline(axis, outline.cells, colour)
            parts = [
                [float(shares[row, k]) for row, k in outline.cells if (steps[k] > trained_to) is past]
                for past in (False, True)
            ]
            texts.append(f"{name} {', past '.join(f'{np.mean(part):.2f}' for part in parts if part)}")
        _sides(axis, result, trained_to, steps)
        axis.set_title(
            f"{str(_batch_of(result).format).removeprefix('parity-')}\nmean share: {'; '.join(texts)}", fontsize=8
        )
    axes[0].set_ylabel("token of the context", fontsize=8)
    count, kind = len(array_of(without.values)), without.method
    bar = figure.colorbar(scale, ax=axes, fraction=0.025, pad=0.01, ticks=(0, 0.01, 0.05, 0.2, 0.5, 1))
    bar.set_label(f"share of the answer's {kind} (absolute, mean over {count} prompts)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    handles = [
        Line2D([], [], color=colour, linewidth=1.2, label=name) for colour, name in zip(OUTLINES, NAMES, strict=True)
    ]
    handles.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label=f"trained up to {trained_to} bits"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(f"Which tokens does each answer depend on? Parity of {lengths[0]} bits", fontsize=9)
    return figure


def _batch_of(result: Attributed) -> Batch:
    """Return the prompts of an attribution, which must be of a task."""
    if not isinstance(result.prompts, Batch):
        raise ValueError("maps are of a task's prompts; these have no format")
    return result.prompts


def _outline(axis: Axes, cells: tuple[tuple[int, int], ...], colour: str) -> None:
    """Mark the left and right ends of each cell; a frame would hide cells that are one line high."""
    rows, columns = (np.array(side) for side in zip(*cells, strict=True))
    for end in (-0.5, 0.5):
        axis.vlines(columns + end, rows - 0.8, rows + 0.8, color=colour, linewidth=1.2, label="_ideal")


def _sides(axis: Axes, result: Attributed, trained_to: int, steps: list[int]) -> None:
    """Label the sections of the context and their steps, and mark the longest trained length."""
    rows = positions(result.prompts, title="context token")
    past = [k for k, step in enumerate(steps) if step > trained_to]
    if past:
        axis.axvline(past[0] - 0.5, color="black", linestyle="--", linewidth=1)
    ticks = [k for k, step in enumerate(steps) if step % 10 == 0]
    axis.set_xticks(ticks, [str(steps[k]) for k in ticks], fontsize=8)
    marks = [
        (k, f"{name} {step}")
        for first, last, name in rows.sections
        for k, step in rows.ticks
        if first <= k < last and int(step) % 10 == 0
    ]
    axis.set_yticks([k for k, _ in marks], [text for _, text in marks], fontsize=8)
    for first, last, name in rows.sections:
        beyond = [k for k in range(first, last) if rows.steps[k] > trained_to]
        if beyond and name in ("input", "output"):
            axis.axhline(beyond[0] - 0.5, color="black", linestyle="--", linewidth=1)
        if first:
            axis.axhline(first - 0.5, color="#999999", linewidth=0.6)
    axis.set_xlabel("answer at step", fontsize=8)
