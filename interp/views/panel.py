"""Data of one heat map: values with two axes, checked, and pooled where they are too many to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.views.axes import Axis
from interp.views.colours import STOPS, Scale

if TYPE_CHECKING:
    from numpy import ndarray

# How many of the strongest cells are listed in words.
LISTED = 8


@dataclass(frozen=True, eq=False)
class Panel:
    """One heat map. `values [row column]`: numbers, or tensors of any kind; NaN is hatched as "not measured".

    `diverging`: blue above zero, red below, symmetric limits. `sequential`: from zero up, for masses and sizes.
    `limit` is the value of the strongest colour, by default the largest absolute value. `notes [row column]` are
    texts of the cells, such as a logit lens's top tokens; () for none. Raises `ValueError` for infinity, for negative
    values on a sequential scale and for a shape that does not match the axes.
    """

    name: str
    values: Any
    rows: Axis
    columns: Axis
    unit: str = ""
    scale: Scale = "diverging"
    limit: float | None = None
    notes: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        values, shape = array_of(self.values), (len(self.rows), len(self.columns))
        if values.shape != shape:
            raise ValueError(f"{self.name}: values must be [{shape[0]} {shape[1]}]; got {values.shape}")
        if np.isinf(values).any():
            raise ValueError(f"{self.name}: a heat map cannot show infinity")
        if self.scale not in STOPS:
            raise ValueError(f"unknown scale {self.scale!r}; scales are {', '.join(STOPS)}")
        if self.scale == "sequential" and (values < 0).any():
            raise ValueError(f"{self.name}: a sequential scale starts at zero; some values are negative")
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise ValueError(f"{self.name}: the limit must be positive; got {self.limit}")
        notes = tuple(tuple(map(str, row)) for row in self.notes)
        if notes and (len(notes), *{len(row) for row in notes}) != shape:
            raise ValueError(f"{self.name}: notes must be [{shape[0]} {shape[1]}]")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "notes", notes)

    @property
    def top(self) -> float:
        """The value of the strongest colour."""
        if self.limit is not None:
            return float(self.limit)
        sizes = np.abs(self.values[~np.isnan(self.values)])
        return float(sizes.max(initial=0.0)) or 1.0

    @property
    def strongest(self) -> list[tuple[int, int]]:
        """The cells with the largest absolute values, without zeros."""
        sizes = np.nan_to_num(np.abs(self.values)).ravel()
        order = np.argsort(-sizes, kind="stable")[:LISTED]
        return [divmod(int(k), len(self.columns)) for k in order if sizes[k] > 0]


@dataclass(frozen=True)
class Outline:
    """Cells with a line around them: (row, column) pairs."""

    name: str
    cells: tuple[tuple[int, int], ...]


def pooled(panel: Panel, high: int, wide: int) -> tuple[Panel, str]:
    """Return the panel with blocks of `high` rows and `wide` columns as cells, and a note ("" if nothing changes).

    A cell has the value with the largest absolute value in its block, so that a single strong cell stays visible.
    """
    if high == wide == 1:
        return panel, ""
    rows, columns = panel.rows.pooled(high), panel.columns.pooled(wide)
    blocks = np.full((len(rows) * high, len(columns) * wide), np.nan)
    blocks[: panel.values.shape[0], : panel.values.shape[1]] = panel.values
    blocks = blocks.reshape(len(rows), high, len(columns), wide).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(len(rows), len(columns), high * wide)
    peak = np.where(np.isnan(blocks), -1, np.abs(blocks)).argmax(axis=2)
    values = np.take_along_axis(blocks, peak[..., None], axis=2)[..., 0]
    note = f"Pooled: each cell has the largest absolute value of {high} x {wide} (rows x columns), with its sign."
    return replace(panel, values=values, rows=rows, columns=columns, notes=()), note


def number(value: float, scale: Scale = "diverging") -> str:
    """Return three digits, with a sign on a diverging scale."""
    if math.isnan(value):
        return "not measured"
    return f"{value:+.3g}" if scale == "diverging" and value else f"{value:.3g}"


def cell_text(panel: Panel, phrase: str, row: int, column: int) -> str:
    """Return one cell in words, such as "layer 1, output 3: +0.5"."""
    where = phrase.replace("{row}", panel.rows.text(row)).replace("{column}", panel.columns.text(column))
    note = f" ({panel.notes[row][column]})" if panel.notes else ""
    return f"{where}: {number(float(panel.values[row, column]), panel.scale)}{note}"


def array_of(values: Any) -> ndarray:
    """Return a float64 array of numbers: nested lists, numpy arrays, tensors of any device and dtype.

    Raises `ValueError` for anything else.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"values must be numbers in an array; got {type(values).__name__}") from error
