"""Shares of own label, order, position and remainder, by kind of label: lists and recall, one row per verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.support.list_results import position_arm
from interp.tasks.lists import LISTS
from interp.views.colours import MARKERS, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Panels, and the arms of each: the first is drawn filled, further ones open. For the position it is `position_arm`.
PANELS: Mapping[str, tuple[str, ...]] = {
    "own label": ("label at list", "label at query"),
    "order": ("order",),
    "position": ("position",),
    "remainder": (),
}
TASKS = ("recall", *LISTS)
LIMITS = (-0.25, 1.25)


def list_shares(verdicts: Sequence[Mapping[str, Any]], title: str | None = None, narrow: bool = False) -> Figure:
    """Draw the shares of verdicts on lists and recall (`BindingVerdict` as JSON, with "run"): one row per verdict.

    The panels stand beside each other or, for a phone (`narrow`), two by two.

    A cross is the matched control of the first arm; "not applicable" stands where the model cannot do the task, with
    its accuracy, and "no such address" where the template lacks it. Raises `ValueError` for no verdicts.
    """
    from matplotlib.figure import Figure

    if not verdicts:
        raise ValueError("there are no verdicts on lists to draw")
    rows = sorted(verdicts, key=order_of)
    down = 2 if narrow else 1
    size = (3.9, 1.6 + down * (0.5 + 0.4 * len(rows))) if narrow else (9, 1.4 + 0.36 * len(rows))
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(down, len(PANELS) // down, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, (panel, arms), colour, marker in zip(axes, PANELS.items(), SERIES, MARKERS, strict=False):
        for margin in sorted({found["margin"] for found in rows}):
            axis.axvspan(-margin, margin, color="#888888", alpha=0.15, linewidth=0)
        axis.axvline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
        for row, found in enumerate(rows):
            drawn = (position_arm(found["shares"]),) if panel == "position" else arms
            _cell(axis, row, found, panel, drawn, (colour, marker))
        axis.set_title(panel, fontsize=10)
        axis.tick_params(labelsize=8)
    for row in range(1, len(rows)):
        if rows[row]["run"] != rows[row - 1]["run"]:
            for axis in axes:
                axis.axhline(row - 0.5, color="#999999", linewidth=0.8)
    axes[0].set_yticks(range(len(rows)), [row_name(found) for found in rows], fontsize=7.5)
    axes[0].set(ylim=(len(rows) - 0.5, -0.5), xlim=LIMITS)
    figure.supxlabel("share of the effect of trading the two values", fontsize=8)
    figure.suptitle(title or _title(rows), fontsize=9, wrap=narrow)
    return figure


def row_name(found: Mapping[str, Any]) -> str:
    """Return the name of a row: the model, the kind of label and the number of items."""
    return f"{found['run']}\n{found['task'].removeprefix('list-')}, {found['items']} items"


def _title(rows: Sequence[Mapping[str, Any]]) -> str:
    margins = " or ".join(f"{m:.2f}" for m in sorted({found["margin"] for found in rows}))
    return (
        f"By what does a model find an item of a list?\nintervals over prompts, jointly 95 %; grey: within ±{margins}; "
        "cross: matched control; open: the label is traded in the query, not in the list"
    )


def order_of(found: Mapping[str, Any]) -> tuple:
    """Return the key that sorts verdicts: lists before recall, then by model, kind of label and items."""
    task = found["task"]
    return task == "recall", found["run"], TASKS.index(task) if task in TASKS else len(TASKS), found["items"]


def _cell(
    axis: Axes, row: int, found: Mapping[str, Any], panel: str, arms: tuple[str, ...], look: tuple[str, str]
) -> None:
    colour, marker = look
    if found["refusal"] is not None:
        words = f"not applicable: accuracy {found['accuracy']['value']:.2f}" if panel == "own label" else ""
        _note(axis, row, words)
        return
    if panel == "remainder":
        intervals = [] if found["remainder"] is None else [found["remainder"]]
    else:
        intervals = [found["shares"][arm]["value"] for arm in arms if arm in found["shares"]]
    if not intervals:
        _note(axis, row, "not measured" if panel == "remainder" else "no such address")
        return
    for k, interval in enumerate(intervals):
        y = row + (0.16 if k else -0.1 * (len(intervals) > 1))
        low, high = (min(max(interval[end], LIMITS[0]), LIMITS[1]) for end in ("low", "high"))
        axis.plot([low, high], [y, y], "-", color=colour, linewidth=1.6, zorder=3)
        fill = "none" if k else "full"
        value = min(max(interval["value"], LIMITS[0]), LIMITS[1])
        axis.plot([value], [y], marker, color=colour, markersize=5, fillstyle=fill, zorder=4)
    if arms and arms[0] in found["shares"]:
        control = found["shares"][arms[0]]["control"]["value"]
        axis.plot([min(max(control, LIMITS[0]), LIMITS[1])], [row + 0.05], "x", color="#555555", markersize=4, zorder=2)


def _note(axis: Axes, row: int, words: str) -> None:
    axis.text(0.5, row, words, transform=axis.get_yaxis_transform(), ha="center", va="center", fontsize=6.5,
              color="#555555")  # fmt: skip
