"""Accuracy and roles by model size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.frames import NoRows, counted, rows_of, shown_kind, trained_alike
from experiments.drawing.zoo.layout import MODES
from interp.support.sizes import USUAL, split_kind
from interp.views.colours import MARKERS, SERIES
from probes.views.rho import ROLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

LENGTH_COLOURS, ROLE_COLOURS = SERIES[:3], SERIES[3:]
FAILED = "x"


def scale(frame: DataFrame, family: str = "alibi", fmt: str = "aligned") -> Figure:
    """Draw exact match inside and past the trained range and rho of each role, by size; one dot per model.

    Sizes are layers x width x heads, ordered by 12 x layers x width squared, the number of weights without embeddings
    (Kaplan et al. 2020, section 2.1). Lengths are one, two and three times the longest trained length. Crosses are
    models that did not learn. rho is taken at the longest length where it was measured. Raises `NoRows` for one size.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = rows_of(frame, "scale", formats=(fmt,))
    rows = rows[[split_kind(kind)[0] == family for kind in rows["family"]]]
    if rows["family"].nunique() < 2:
        raise NoRows(f"scale: the table has one size of family {family}, format {fmt}, or none")
    sizes = {kind: split_kind(kind)[1] or USUAL for kind in rows["family"].unique()}
    order = sorted(sizes, key=lambda kind: (sizes[kind].weights, kind))
    figure = Figure(figsize=(max(9.0, 2.4 + 1.6 * len(order)), 3.7), layout="constrained", dpi=110)
    *accuracy, roles = figure.subplots(1, 3)
    longest = int(rows["trained_to"].max())
    lengths = [n for n in (longest, 2 * longest, 3 * longest) if n in set(rows["length"])]
    for axis, (mode, text) in zip(accuracy, MODES.items(), strict=True):
        some = rows[(rows["metric"] == "exact") & (rows["mode"] == mode)]
        _dots(axis, {n: some[some["length"] == n] for n in lengths}, order, LENGTH_COLOURS)
        axis.set_title(f"exact match, {text}", fontsize=8.5)
        axis.set(ylim=(-0.04, 1.04))
    of_roles = {role: _at_the_longest(rows[rows["metric"] == f"rho {role}"]) for role in ROLES}
    _dots(roles, of_roles, order, ROLE_COLOURS)
    values = [value for part in of_roles.values() for value in part["value"]]
    roles.set(ylim=(min([-0.1, *values]) - 0.04, max([1.1, *values]) + 0.04))
    roles.axhline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
    roles.set_title("rho, at the longest length measured", fontsize=8.5)
    for axis in (*accuracy, roles):
        ticks = [
            f"{sizes[kind]}\n{_millions(sizes[kind].weights)} M\n"
            + counted(rows[rows["family"] == kind]).removesuffix(" learned")
            for kind in order
        ]
        axis.set_xticks(range(len(order)), ticks, fontsize=7)
        axis.set_xlim(-0.6, len(order) - 0.4)
        axis.tick_params(labelsize=7)
    keys: list[tuple[str, str, str]] = [*zip(LENGTH_COLOURS, MARKERS, [f"{n} bits" for n in lengths], strict=False)]
    keys += [*zip(ROLE_COLOURS, MARKERS, [f"rho {role}" for role in ROLES], strict=False)]
    keys.append(("black", FAILED, "did not learn"))
    handles = [Line2D([], [], color=colour, marker=marker, linewidth=0, label=text) for colour, marker, text in keys]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7, frameon=False)
    figure.suptitle(
        f"What grows with the model's size? Parity, {fmt}, {shown_kind(family)}\n"
        f"{trained_alike(rows)}\nbelow: layers x width x heads, weights, how many learned",
        fontsize=9,
    )
    return figure


def _millions(weights: int) -> str:
    """Return a number of weights in millions, with two digits or whole.

    >>> _millions(301_989_888), _millions(589_824)
    ('302', '0.59')
    """
    return f"{weights / 1e6:.2g}" if weights < 1e8 else f"{weights / 1e6:.0f}"


def _at_the_longest(rows: Any) -> Any:
    return rows[rows["length"] == rows.groupby("run")["length"].transform("max")]


def _dots(axis: Axes, parts: dict[Any, Any], order: list[str], colours: Sequence[str]) -> None:
    """Draw one dot per model and one colour per part; parts are beside each other."""
    for k, (name, rows) in enumerate(parts.items()):
        for learned, marker in ((True, MARKERS[k]), (False, FAILED)):
            some = rows[rows["learned"].astype(bool) == learned]
            at = [order.index(kind) + 0.18 * (k - 1) for kind in some["family"]]
            if at:
                axis.plot(
                    at, some["value"].to_numpy(), marker, color=colours[k], markersize=4.2, alpha=0.8, label=f"_{name}"
                )
