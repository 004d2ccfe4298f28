"""The picture of a verdict: roles with intervals and controls, above rho of planted models of known mechanism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interp.views.colours import SERIES
from interp.views.figures import as_view
from probes.views.rho import ROLES, draw_estimate, rho_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from interp.views.view import View

# What rho is, by role (probes/README.md, Decision).
RHO = dict.fromkeys(("anchor", "placeholder"), "rho: share of the logit margin moved") | {
    "sink": "rho: share of accuracy above chance lost\n(diamond: of margin)"
}
# Of what an effect in the table is the share.
UNITS = dict.fromkeys(RHO, "the effect of editing the bit (rho)") | {"sink": "the accuracy above chance"}
# Colour of the sink's effect on margins.
ON_MARGINS = "#7a3b69"
# Texts stand on the ground's colour, above lines and the grey margin and below estimates.
TEXT: dict[str, Any] = {
    "fontsize": 8,
    "zorder": 1.5,
    "bbox": {"facecolor": "white", "edgecolor": "none", "boxstyle": "square,pad=0.05"},
}
PLANTED = {True: "planted,\nrole present", False: "planted,\nrole absent"}


def verdict(result: Any, calibration: Mapping | None = None, title: str = "") -> View:
    """Return a verdict as a view, with its numbers: each role's estimate, interval and control, beside planted models.

    `result` is a `Verdict`, or its `to_json()`; `calibration` is the content of `calibration.json`. Raises
    `ValueError` for data without roles.

    >>> view = verdict(result, json.loads(Path("experiments/results/calibration.json").read_text()))
    """
    data = result if isinstance(result, Mapping) else result.to_json()
    _check(data)
    models = data.get("run") or ", ".join(data.get("models", ()))
    title = title or f"What do the labels do in {models or 'the model'}? Verdict: {data['verdict']}"
    texts = [f"{role} {_summary(finding)}" for role, finding in data["roles"].items()]
    alt = f"{title}. {'; '.join(texts)}."
    planted = planted_values(calibration)
    if planted:
        counts = [f"{role}: {len(p[True])} with it, {len(p[False])} without" for role, p in planted.items()]
        alt += f" Behind: rho of planted models, {'; '.join(counts)}."
    rows = [
        (name, *cells)
        for name, roles in _groups(data).items()
        for role, finding in roles.items()
        for cells in _rows(role, finding)
    ]
    columns = ("at", "role", "status", "effect", "95 % interval", "matched control", "share of")
    narrow = draw_verdict(data, calibration, title, narrow=True)
    return as_view(draw_verdict(data, calibration, title), title, alt, columns, rows, narrow)


def planted_values(calibration: Mapping | None) -> dict[str, dict[bool, list[float]]]:
    """Return rho of a calibration's planted models, by role and by whether the role is planted; {} for None."""
    if calibration is None:
        return {}
    values: dict[str, dict[bool, list[float]]] = {role: {True: [], False: []} for role in ROLES}
    for case in calibration["judged"]:
        for role in ROLES:
            rho = case["roles"][role]["rho"]
            if rho is not None:
                values[role][bool(case["truth"]["roles"][role])].append(float(rho))
    return values


def draw_verdict(data: Mapping, calibration: Mapping | None = None, title: str = "", narrow: bool = False) -> Figure:
    """Draw one panel per role, beside each other or, for a phone (`narrow`), below each other.

    Above: the estimate at each length with its 95 % interval and its matched control. Below: rho of every planted
    model, where the role is present and where it is absent, with the median. Dashed: the margin within which a role
    counts as absent. An interval that goes on beyond the axis ends in an arrow.
    """
    from matplotlib.figure import Figure

    _check(data)
    groups, planted = _groups(data), planted_values(calibration)
    margin = data.get("margins", {}).get("rho", 0.10)
    limits = rho_limits([*_numbers(groups), *(v for p in planted.values() for values in p.values() for v in values)])
    names = [_brief(name) for name in groups] + ([PLANTED[True], PLANTED[False]] if planted else [])
    size = (3.9, 1.9 + len(ROLES) * (0.7 + 0.6 * len(names))) if narrow else (9, 1.9 + 0.66 * len(names))
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(len(ROLES) if narrow else 1, 1 if narrow else len(ROLES), sharex=True, sharey=True)
    for axis, role, colour in zip(axes, ROLES, SERIES, strict=False):
        axis.axvspan(-margin, margin, color="#888888", alpha=0.15, linewidth=0)
        for edge in (-margin, margin):
            axis.axvline(edge, color="black", linestyle="--", linewidth=0.8, zorder=0)
        axis.axvline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
        for row, roles in enumerate(groups.values()):
            _finding(axis, row, roles.get(role), colour, limits)
        for k, present in enumerate((True, False) if planted else ()):
            _planted(axis, len(groups) + k, planted[role][present], colour if present else "#555555", limits)
        if planted:
            axis.axhline(len(groups) - 0.5, color="#BBBBBB", linewidth=0.8)
        axis.set_title(role, fontsize=10)
        axis.set_xlabel(RHO[role], fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].set(ylim=(len(names) - 0.5, -0.6), xlim=(limits[0] - 0.02, limits[1] + 0.02))
    keys, columns = _keys(margin, bool(planted)), 1 if narrow else 5
    figure.legend(handles=keys, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    if title:
        figure.suptitle(_brief(title, 160), fontsize=11, wrap=narrow)
    return figure


def _brief(text: str, most: int = 40) -> str:
    """Return a text with its end cut off beyond so many characters: a damaged file can hold any."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _numbers(groups: Mapping[str, Mapping]) -> list[float | None]:
    """Return every number that is drawn of the findings."""
    numbers: list[float | None] = []
    for roles in groups.values():
        for finding in roles.values():
            if finding and finding.get("rho") is not None:
                control = finding.get("control") or {}
                numbers += [finding["rho"], *finding["ci"], *(control.get(k) for k in ("value", "low", "high"))]
    return numbers


def _finding(axis: Axes, row: int, finding: Mapping | None, colour: str, limits: tuple[float, float]) -> None:
    """Draw an estimate with its interval and control, and its status above it."""
    if not finding or finding.get("rho") is None:
        text = "not measured" if not finding else f"{_brief(finding['status'])}: not measured"
        axis.text(sum(limits) / 2, row, text, ha="center", va="center", color="#444444", **TEXT)
        return
    low, high = finding["ci"]
    draw_estimate(axis, row, finding["rho"], (low, high), limits, colour)
    control, margins = finding.get("control"), finding.get("margins") or {}
    has_margins = margins.get("share") is not None
    below = 0.14 if has_margins else 0.28
    if control and control.get("value") is not None:
        inside = [min(max(control["value"] if x is None else x, limits[0]), limits[1]) for x in _three(control)]
        axis.plot(inside[1:], [row + below] * 2, "-", color="#333333", linewidth=1)
        axis.plot(inside[:1], [row + below], "s", color="#333333", markersize=3.5, fillstyle="none")
    text = f"{_brief(finding['status'])}  {_short(finding['rho'], low, high)}"
    if has_margins:
        draw_estimate(axis, row + 0.26, margins["share"], tuple(margins["ci"]), limits, ON_MARGINS, "D")
        more = f"on margins {_brief(margins['status'])}  {_short(margins['share'], *margins['ci'])}"
        axis.text(limits[1], row + 0.33, more, ha="right", va="top", **TEXT)
        text = f"on answers {text}"
    axis.text(limits[1], row - 0.14, text, ha="right", va="bottom", **TEXT)


def _short(value: float, low: float | None, high: float | None) -> str:
    """Return a value with its interval to two decimals."""
    interval = ", ".join("unbounded" if x is None else f"{x:.2f}" for x in (low, high))
    return f"{value:.2f} [{interval}]"


def _three(control: Mapping) -> tuple[float | None, float | None, float | None]:
    return control["value"], control["low"], control["high"]


def _planted(axis: Axes, row: int, values: Sequence[float], colour: str, limits: tuple[float, float]) -> None:
    """Draw rho of planted models, spread across the row by their number, with the median."""
    import numpy as np

    # Not at random: the same numbers give the same picture.
    shift = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.6
    look: dict[str, Any] = {"color": colour, "markersize": 2.5, "alpha": 0.4, "markeredgewidth": 0}
    axis.plot(np.clip(values, *limits), row + shift, "o", **look)
    if len(values):
        middle = float(np.median(values))
        axis.plot([middle, middle], [row - 0.4, row + 0.4], color="black", linewidth=1.6)
    axis.text(limits[1], row + 0.46, f"n = {len(values)}", ha="right", va="bottom", fontsize=8, color="#444444")


def _keys(margin: float, planted: bool) -> list:
    """Return the legend's entries."""
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], color=SERIES[0], marker="o", linewidth=2.5, label="estimate, 95 % interval"),
        Line2D(
            [], [], color="#333333", marker="s", markersize=3.5, fillstyle="none", linewidth=1, label="matched control"
        ),
        Line2D([], [], color="black", linestyle="--", linewidth=0.8, label=f"limit ±{margin:.2f} (equivalence)"),
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
    """Return findings by length; with several lengths, those over all lengths first."""
    each = {f"length {_length(entry['length'])}": entry["roles"] for entry in data.get("by_length", ())}
    return {"all lengths": data["roles"], **each} if len(each) != 1 else each


def _length(length: Any) -> str:
    return " + ".join(map(str, length)) if isinstance(length, Sequence) else str(length)


def _rows(role: str, finding: Mapping) -> list[tuple[str, ...]]:
    """Return the rows of a role in the table; the sink has one more where its effect on margins was measured."""
    rows = [(role, finding["status"], *_cells(finding), "" if finding.get("rho") is None else UNITS[role])]
    if (margins := finding.get("margins") or {}).get("share") is not None:
        cells = _cells({"rho": margins["share"], "ci": margins["ci"]})
        rows.append((f"{role}, on margins", margins["status"], *cells, "the mean size of margins"))
    return rows


def _cells(finding: Mapping) -> tuple[str, str, str]:
    """Return rho, interval and control as texts of the table."""
    if finding.get("rho") is None:
        return "not measured", "", ""
    low, high = finding["ci"]
    control = finding.get("control")
    return (
        _digits(finding["rho"]),
        f"{_digits(low)} to {_digits(high)}",
        "" if not control else f"{_digits(control['value'])} ({_digits(control['low'])} to {_digits(control['high'])})",
    )


def _digits(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:z.3f}"


def _summary(finding: Mapping) -> str:
    rho, interval, _ = _cells(finding)
    return f"{finding['status']}" + (f", rho {rho} ({interval})" if interval else f", {rho}")


def _check(data: Mapping) -> None:
    if "roles" not in data or "verdict" not in data:
        raise ValueError("a verdict has `verdict` and `roles`, as its to_json() returns them")
    for name, roles in _groups(data).items():
        if unknown := sorted(set(roles) - set(ROLES)):
            raise ValueError(f"a role is one of {', '.join(ROLES)}; {name} has {', '.join(unknown)}")
