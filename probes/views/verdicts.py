"""What do the labels do, and what did planted models of known mechanism give on the same measure?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.drawing.accuracy import COLOURS
from interp.views.figures import as_view
from probes.views.calibration import ROLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interp.views.view import View

WHERE = {True: "planted,\nrole present", False: "planted,\nrole absent"}
LOW, HIGH = -0.15, 1.25  # rho outside is drawn at the edge, as a triangle


def verdict(found: Any, calibration: Mapping | None = None, title: str = "") -> View:
    """The roles of the labels, with intervals, beside planted models in which the role is present and absent.

    `found` is a `Verdict`, or what its `to_json` gives; `calibration` is the content of `calibration.json`. Raises
    `ValueError` for data without roles.

    >>> view = verdict(found, json.loads(Path("experiments/results/calibration.json").read_text()))
    """
    data = found if isinstance(found, Mapping) else found.to_json()
    _check(data)
    who = data.get("run") or ", ".join(data.get("models", ()))
    title = title or f"{who}: {data['verdict']}".removeprefix(": ")
    said = [f"{role} {_words(row)}" for role, row in data["roles"].items()]
    alt = f"Verdict {title}. {'; '.join(said)}."
    planted = planted_values(calibration)
    if planted:
        counts = [f"{role}: {len(p[True])} with it, {len(p[False])} without" for role, p in planted.items()]
        alt += f" Behind: rho of planted models, {'; '.join(counts)}."
    rows = [
        (name, role, found["status"], *_cells(found))
        for name, roles in _groups(data).items()
        for role, found in roles.items()
    ]
    columns = ("at", "role", "status", "rho", "95 % interval", "matched control")
    return as_view(draw_verdict(data, calibration, title), title, alt, columns, rows)


def planted_values(calibration: Mapping | None) -> dict[str, dict[bool, list[float]]]:
    """rho of the planted models of a calibration, by role and by whether the role was planted; {} for None."""
    if calibration is None:
        return {}
    found: dict[str, dict[bool, list[float]]] = {role: {True: [], False: []} for role in ROLES}
    for case in calibration["judged"]:
        for role in ROLES:
            rho = case["roles"][role]["rho"]
            if rho is not None:
                found[role][bool(case["truth"]["roles"][role])].append(float(rho))
    return found


def draw_verdict(data: Mapping, calibration: Mapping | None = None, title: str = "") -> Figure:
    """One panel a role. Above: the estimate at each length with its interval (95 %) and its matched control; below:
    rho of every planted model, where the role is present and where it is not, with their median. Dashed: the margin
    within which a role counts as absent.
    """
    import numpy as np
    from matplotlib.figure import Figure

    _check(data)
    groups, planted = _groups(data), planted_values(calibration)
    margin = data.get("margins", {}).get("rho", 0.10)
    names = list(groups) + ([WHERE[True], WHERE[False]] if planted else [])
    figure = Figure(figsize=(10.5, 1.75 + 0.55 * len(names)), layout="constrained", dpi=110)
    axes = figure.subplots(1, len(ROLES), sharex=True, sharey=True)
    for axis, role, colour in zip(axes, ROLES, COLOURS, strict=False):
        axis.axvspan(-margin, margin, color="#888888", alpha=0.15, linewidth=0)
        for edge in (-margin, margin):
            axis.axvline(edge, color="black", linestyle="--", linewidth=0.8)
        axis.axvline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
        for row, roles in enumerate(groups.values()):
            _finding(axis, row, roles.get(role), colour)
        for k, present in enumerate((True, False) if planted else ()):
            values, row = planted[role][present], len(groups) + k
            # Spread across the row by number, not at random: the same picture for the same numbers.
            shift = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.6
            axis.plot(
                np.clip(values, LOW, HIGH),
                row + shift,
                "o",
                color=colour if present else "#555555",
                markersize=2.5,
                alpha=0.4,
                markeredgewidth=0,
                fillstyle="full",
            )
            if values:
                middle = float(np.median(values))
                axis.plot([middle, middle], [row - 0.4, row + 0.4], color="black", linewidth=1.6)
            axis.text(HIGH, row + 0.46, f"n = {len(values)}", ha="right", va="bottom", fontsize=7, color="#444444")
        if planted:
            axis.axhline(len(groups) - 0.5, color="#BBBBBB", linewidth=0.8)
        axis.set_title(role, fontsize=10)
        axis.set_xlabel("rho: share of the margin moved", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].set(ylim=(len(names) - 0.5, -0.6), xlim=(LOW - 0.02, HIGH + 0.02))
    figure.legend(handles=_keys(margin, bool(planted)), loc="outside lower center", ncols=5, fontsize=7)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _finding(axis, row: int, found: Mapping | None, colour: str) -> None:  # type: ignore[no-untyped-def]
    """An estimate with its interval and control, and its status above it."""
    if not found or found.get("rho") is None:
        words = "not measured" if not found else f"{found['status']}: not measured"
        axis.text(0.55, row, words, ha="center", va="center", fontsize=7, color="#444444")
        return
    rho, (low, high), control = found["rho"], found["ci"], found.get("control")
    low, high = (x if x is not None and math.isfinite(x) else edge for x, edge in ((low, LOW), (high, HIGH)))
    axis.plot([max(low, LOW), min(high, HIGH)], [row, row], "-", color=colour, linewidth=2.5, solid_capstyle="butt")
    marker = "o" if LOW <= rho <= HIGH else ("<" if rho < LOW else ">")
    axis.plot([min(max(rho, LOW), HIGH)], [row], marker, color=colour, markersize=6)
    if control and control.get("value") is not None:
        value = min(max(control["value"], LOW), HIGH)
        ends = [min(max(x if x is not None else value, LOW), HIGH) for x in (control["low"], control["high"])]
        axis.plot(ends, [row + 0.28] * 2, "-", color="#333333", linewidth=1)
        axis.plot([value], [row + 0.28], "s", color="#333333", markersize=3.5, fillstyle="none")
    axis.text(
        HIGH, row - 0.14, f"{found['status']}  {rho:.2f} [{low:.2f}, {high:.2f}]", ha="right", va="bottom", fontsize=7.5
    )


def _keys(margin: float, planted: bool) -> list:
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], color=COLOURS[0], marker="o", linewidth=2.5, label="estimate, 95 % interval"),
        Line2D(
            [], [], color="#333333", marker="s", markersize=3.5, fillstyle="none", linewidth=1, label="matched control"
        ),
        Line2D([], [], color="black", linestyle="--", linewidth=0.8, label=f"margin ±{margin:.2f}"),
    ]
    if planted:
        keys += [
            Line2D([], [], color="#555555", marker="o", markersize=3, linewidth=0, label="one planted model"),
            Line2D(
                [], [], color="black", marker="|", markersize=9, markeredgewidth=1.6, linewidth=0, label="their median"
            ),
        ]
    return keys


def _groups(data: Mapping) -> dict[str, Mapping]:
    """Findings by length; those over all lengths first, where there are several."""
    each = {f"length {_length(found['length'])}": found["roles"] for found in data.get("by_length", ())}
    return {"all lengths": data["roles"], **each} if len(each) != 1 else each


def _length(length: Any) -> str:
    return " + ".join(map(str, length)) if isinstance(length, Sequence) else str(length)


def _cells(found: Mapping) -> tuple[str, str, str]:
    if found.get("rho") is None:
        return "not measured", "", ""
    low, high = found["ci"]
    control = found.get("control")
    return (
        f"{found['rho']:.3f}",
        f"{_digits(low)} to {_digits(high)}",
        "" if not control else f"{_digits(control['value'])} ({_digits(control['low'])} to {_digits(control['high'])})",
    )


def _digits(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.3f}"


def _words(found: Mapping) -> str:
    rho, interval, _ = _cells(found)
    return f"{found['status']}" + (f", rho {rho} ({interval})" if interval else f", {rho}")


def _check(data: Mapping) -> None:
    if "roles" not in data or "verdict" not in data:
        raise ValueError("a verdict has `verdict` and `roles`, as its to_json gives them")
    for name, roles in _groups(data).items():
        if unknown := sorted(set(roles) - set(ROLES)):
            raise ValueError(f"a role is one of {', '.join(ROLES)}; {name} has {', '.join(unknown)}")
