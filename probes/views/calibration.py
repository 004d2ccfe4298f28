"""Figures of the calibration: verdicts on planted mechanisms, and the roles of other models beside planted ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from interp.views.colours import SERIES
from interp.views.figures import as_view
from probes.views.rho import ROLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interp.views.view import View

# Verdicts in the order of columns. Any other verdict stands between these two groups.
LABELS = ("anchor", "placeholder", "sink", "unused", "mixed(anchor, placeholder)")
NO_LABELS = ("undecided", "unresolved", "not-applicable")
# Marks a mechanism that no threshold was tuned on.
HELD_OUT = "†"


def draw_confusion(
    confusion: Mapping[str, Mapping[str, int]], never_tuned: Collection[str], expected: Mapping[str, str]
) -> Figure:
    """Draw the verdicts on planted mechanisms: one row per mechanism, one column per verdict, counts of variants.

    The expected verdict of each mechanism is outlined; a count outside is a mistake or a refusal to decide. Colour is
    the share of the row. Mechanisms in `never_tuned` are marked with a dagger. Rows keep the given order. Raises
    `ValueError` for a mechanism without an expected verdict, a name in `never_tuned` without a row, and counts that are
    not integers from 0.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    _check_confusion(confusion, never_tuned, expected)
    labels = [label for name in confusion for label in (expected[name], *confusion[name])]
    others = tuple(dict.fromkeys(label for label in labels if label not in LABELS + NO_LABELS))
    columns = LABELS + others + NO_LABELS
    counts = [[confusion[name].get(label, 0) for label in columns] for name in confusion]
    shares = [[count / (sum(row) or 1) for count in row] for row in counts]

    size = (3.6 + 0.62 * len(columns), 2.1 + 0.3 * len(confusion))
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for i, (name, row) in enumerate(zip(confusion, counts, strict=True)):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.7 else "black"
            # Zeros are faint, so that the counts stand out.
            axis.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour, alpha=1 if count else 0.35)
        corner = (columns.index(expected[name]) - 0.5, i - 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=SERIES[1], linewidth=2, clip_on=False))
    names = [f"{name} {HELD_OUT}" if name in never_tuned else name for name in confusion]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xticks(range(len(columns)), columns, fontsize=8, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_xlabel("verdict (outlined: expected)", fontsize=8)
    axis.set_ylabel("planted mechanism", fontsize=8)
    if never_tuned:
        axis.set_title(f"{HELD_OUT} never used to tune a threshold", fontsize=8, loc="left")
    figure.colorbar(image, ax=axis, fraction=0.03, pad=0.02).set_label("share of the variants", fontsize=8)
    figure.suptitle("Which verdict does each planted mechanism get?", fontsize=10)
    return figure


def draw_roles(
    roles: Mapping[str, Mapping[str, tuple[float, float, float]]],
    planted: Mapping[str, Sequence[float]] | None,
    margin: float = 0.10,
) -> Figure:
    """Draw the three roles of each model: one panel per role, one row per model, `(value, low, high)` in rho.

    `planted` has the values of planted models by role, drawn behind each interval as faint ticks. The dashed line is
    the margin. A role that a model lacks is labelled "not measured". Models keep the given order, the first on top.
    Raises `ValueError` for an unknown role and for a value outside its interval.
    """
    from matplotlib.figure import Figure

    _check_roles(roles, planted or {})
    figure = Figure(figsize=(10, 1.5 + 0.32 * len(roles)), layout="constrained", dpi=110)
    axes = figure.subplots(1, len(ROLES), sharex=True, sharey=True)
    for axis, role, colour in zip(axes, ROLES, SERIES, strict=False):
        ticks = list((planted or {}).get(role, ()))
        for row, values in enumerate(roles.values()):
            if role not in values:
                axis.text(
                    0.5,
                    row,
                    "not measured",
                    transform=axis.get_yaxis_transform(),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="#555555",
                )
                continue
            if ticks:
                axis.vlines(ticks, row - 0.35, row + 0.35, color="#555555", alpha=0.25, linewidth=0.8, zorder=1)
            value, low, high = values[role]
            axis.plot([low, high], [row, row], "-", color=colour, linewidth=2, zorder=3)
            axis.plot([value], [row], "o", color=colour, markersize=5, zorder=4)
        axis.axvline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
        axis.axvline(margin, color="black", linestyle="--", linewidth=1, label=f"margin {margin:.2f}", zorder=2)
        axis.set_title(role, fontsize=9)
        axis.set_xlabel("share of the margin (rho)", fontsize=8)
    axes[0].set_yticks(range(len(roles)), list(roles), fontsize=8)
    axes[0].set_ylim(len(roles) - 0.5, -0.5)
    # Above the panels, where it hides no model.
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", fontsize=7)
    return figure


def confusion(
    counts: Mapping[str, Mapping[str, int]], never_tuned: Collection[str], expected: Mapping[str, str]
) -> View:
    """Return `draw_confusion` as a view, with its numbers."""
    figure = draw_confusion(counts, never_tuned, expected)
    right, of = (
        sum(counts[name].get(expected[name], 0) for name in counts),
        sum(sum(r.values()) for r in counts.values()),
    )
    title = "Verdicts on planted mechanisms"
    alt = f"{title}: {right} of {of} variants have the expected verdict."
    rows = [(name, expected[name], label, n) for name, row in counts.items() for label, n in row.items()]
    return as_view(figure, title, alt, ("planted mechanism", "expected", "verdict", "variants"), rows)


def roles(
    values: Mapping[str, Mapping[str, tuple[float, float, float]]],
    planted: Mapping[str, Sequence[float]] | None = None,
    margin: float = 0.10,
) -> View:
    """Return `draw_roles` as a view, with its numbers."""
    title = "The roles of labels by model"
    rows = [(name, role, *(f"{x:.3f}" for x in found)) for name, row in values.items() for role, found in row.items()]
    alt = f"{title}: rho of {', '.join(ROLES)} with intervals, for {', '.join(values)}."
    return as_view(draw_roles(values, planted, margin), title, alt, ("model", "role", "rho", "low", "high"), rows)


def _check_confusion(
    confusion: Mapping[str, Mapping[str, int]], never_tuned: Collection[str], expected: Mapping[str, str]
) -> None:
    if not confusion:
        raise ValueError("no planted mechanisms to show")
    without = [name for name in confusion if name not in expected]
    if without:
        raise ValueError(f"no expected verdict for: {', '.join(without)}")
    unknown = sorted(set(never_tuned) - set(confusion))
    if unknown:
        raise ValueError(f"never_tuned names mechanisms without a row: {', '.join(unknown)}")
    for name, row in confusion.items():
        wrong = [f"{label} = {count}" for label, count in row.items() if count != int(count) or count < 0]
        if wrong:
            raise ValueError(f"counts must be integers from 0; {name} has {', '.join(wrong)}")


def _check_roles(
    roles: Mapping[str, Mapping[str, tuple[float, float, float]]], planted: Mapping[str, Sequence[float]]
) -> None:
    if not roles:
        raise ValueError("no models to show")
    unknown = sorted({role for values in (planted, *roles.values()) for role in values} - set(ROLES))
    if unknown:
        raise ValueError(f"a role is one of {', '.join(ROLES)}; got {', '.join(unknown)}")
    for name, values in roles.items():
        for role, (value, low, high) in values.items():
            if not -math.inf < low <= value <= high < math.inf:
                raise ValueError(f"{role} of {name}: {value} does not lie in a finite interval [{low}, {high}]")
    for role, ticks in planted.items():
        if not all(map(math.isfinite, ticks)):
            raise ValueError(f"planted values of {role} are not all finite")
