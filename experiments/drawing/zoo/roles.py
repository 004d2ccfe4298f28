"""The roles of each configuration's labels, over trained models and beside planted models."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.frames import FAMILIES, FORMATS, shown_kind
from interp.support.sizes import split_kind
from interp.tasks import parse_format
from interp.views.colours import MARKERS, SERIES
from probes.views.rho import ROLES, draw_estimate, rho_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What rho is a share of (probes/README.md, Battery).
MOVED = {
    "anchor": "share of the margin moved",
    "placeholder": "share of the margin moved",
    "sink": "share lost of accuracy\nabove chance",
}
PLANTED = {True: "planted, role present", False: "planted, role absent"}
# Beside a verdict whose intervals are over prompts.
ONE_MODEL = ", 1 judged"
# Columns of the table that are needed.
COLUMNS = ("run", "task", "format", "posed", "metric", "value")
KEYS = ("models", "learned", "of", "alone", "verdict")
# The most letters in one line of a panel.
LETTERS = 33


def roles_by_format(
    verdicts: Mapping[str, Mapping[str, Any]],
    planted: Mapping[str, Mapping[bool, Sequence[float]]],
    frame: Any = None,
) -> Figure:
    """Draw rho of anchor, placeholder and sink with its interval over seeds, one row per "<task>-<format>-<family>".

    On top is one tick per planted model that has the role, and one per model that lacks it: `planted` is from
    `probes.views.verdicts.planted_values`, {} for none. A row without a verdict or rho states the reason. With `frame`,
    the table of all runs, an open circle below the interval is one of its models, mean over lengths. A verdict is a
    `Verdict` as JSON, or None, with `models`, how many `learned`, `of` how many, and `alone`, each model's own verdict,
    which is counted beside the name. An interval that goes on beyond the axis ends in an arrow. Raises `ValueError` for
    no verdicts, for entries that lack any of these and for a table that lacks columns.
    """
    from matplotlib.figure import Figure

    _check(verdicts)
    if lacks := [c for c in COLUMNS if frame is not None and c not in frame.columns]:
        raise ValueError(f"roles by format: the table lacks {', '.join(lacks)}")
    names = sorted(verdicts, key=_order)
    first = len(PLANTED) if planted else 0
    limits = rho_limits(_numbers(verdicts, planted))
    figure = Figure(figsize=(9, 1.3 + 0.5 * (len(names) + first * 0.7)), layout="constrained", dpi=110)
    axes = figure.subplots(1, len(ROLES), sharex=True, sharey=True)
    margins = {v["margins"]["rho"] for e in verdicts.values() if (v := e["verdict"]) and "margins" in v} or {0.10}
    for axis, role, colour, marker in zip(axes, ROLES, SERIES, MARKERS, strict=False):
        for margin in margins:
            axis.axvspan(-margin, margin, color="#888888", alpha=0.15, linewidth=0)
        axis.axvline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
        if first:
            _planted(axis, planted[role], limits)
        for row, name in enumerate(names, start=first):
            _cell(axis, row, name, verdicts[name], role, limits, (colour, marker))
            if frame is not None:
                one = _each(frame, verdicts[name]["models"], role, limits)
                look = {"color": colour, "markersize": 3.2, "markeredgewidth": 0.7, "label": "_each"}
                axis.plot(one, [row + 0.34] * len(one), "o", fillstyle="none", **look)
        axis.set_title(role, fontsize=10)
        axis.set_xlabel(f"rho: {MOVED[role]}", fontsize=8)
        axis.tick_params(labelsize=8)
    rows = [*PLANTED.values()] if planted else []
    rows += [_row_name(name, verdicts[name]) for name in names]
    axes[0].set_yticks(range(len(rows)), rows, fontsize=7.5)
    axes[0].set(ylim=(len(rows) - 0.5, -0.5), xlim=(limits[0] - 0.02, limits[1] + 0.02))
    figure.suptitle(_title(verdicts, margins, frame is not None), fontsize=9)
    return figure


def _title(verdicts: Mapping[str, Mapping[str, Any]], margins: set[float], each: bool) -> str:
    shown = " or ".join(f"{m:.2f}" for m in sorted(margins))
    over = "over trained models" + " (over prompts where 1 was judged)" * any(map(_over_prompts, verdicts.values()))
    return (
        f"What do the labels do?\n95 % intervals {over}; grey: within ±{shown}, as if absent"
        + "; open circles: each model" * each
    )


def _numbers(
    verdicts: Mapping[str, Mapping[str, Any]], planted: Mapping[str, Mapping[bool, Sequence[float]]]
) -> list[float | None]:
    """Return every rho and every end of an interval."""
    findings = [f for e in verdicts.values() if e["verdict"] for f in e["verdict"]["roles"].values()]
    numbers = [x for f in findings if f["rho"] is not None for x in (f["rho"], *f["ci"])]
    return numbers + [v for parts in planted.values() for values in parts.values() for v in values]


def _planted(axis: Axes, planted: Mapping[bool, Sequence[float]], limits: tuple[float, float]) -> None:
    """Draw one tick per planted model, with the role and without it."""
    for row, present in enumerate(PLANTED):
        values = [min(max(v, limits[0]), limits[1]) for v in planted[present]]
        axis.vlines(values, row - 0.05, row + 0.38, color="#333333", alpha=0.3, linewidth=0.9)
        axis.text(limits[1], row - 0.42, f"n = {len(values)}", ha="right", va="top", fontsize=7, color="#444444")
    axis.axhline(len(PLANTED) - 0.5, color="#999999", linewidth=0.8)


def _each(frame: Any, models: Sequence[str], role: str, limits: tuple[float, float]) -> list[float]:
    """Return rho of each model on its own format, the mean over lengths, clipped to the axis."""
    own = frame["posed"] == frame["task"] + "-" + frame["format"]
    kept = frame[own & (frame["metric"] == f"rho {role}") & frame["run"].isin(list(models))]
    return kept.groupby("run")["value"].mean().dropna().clip(*limits).tolist()


def why_not(name: str, entry: Mapping[str, Any]) -> str:
    """Return why a configuration has no verdict.

    >>> why_not("parity-scratchpad-alibi", {"learned": 3, "of": 3})
    'not applicable: it has no labels'
    """
    if not parse_format(name.rsplit("-", 1)[0]).labels:
        return "not applicable: it has no labels"
    if not entry["learned"]:
        return f"not applicable: none of {entry['of']} learned"
    return f"not judged ({entry['learned']} of {entry['of']} learned)"


def _cell(
    axis: Axes,
    row: int,
    name: str,
    entry: Mapping[str, Any],
    role: str,
    limits: tuple[float, float],
    look: tuple[str, str],
) -> None:
    """Draw one role of one configuration, or the reason why it is missing."""
    finding = entry["verdict"]["roles"][role] if entry["verdict"] else None
    if finding is None or finding["rho"] is None:
        text = why_not(name, entry) if finding is None else f"{finding['status'].lower()}: {finding['reason']}"
        lines = "\n".join(textwrap.wrap(text, LETTERS))
        axis.text(sum(limits) / 2, row, lines, ha="center", va="center", fontsize=7, color="#444444")
        return
    draw_estimate(axis, row + 0.15, finding["rho"], tuple(finding["ci"]), limits, *look)
    interval = ", ".join("unbounded" if x is None else f"{x:z.2f}" for x in finding["ci"])
    text = f"{finding['status']}  {finding['rho']:z.2f} [{interval}]"
    axis.text(limits[1], row - 0.05, text, ha="right", va="bottom", fontsize=7)


def _row_name(name: str, entry: Mapping[str, Any]) -> str:
    task, fmt, family = _parts(name)
    kind = fmt if task == "parity" else f"{task} {fmt}"
    learned = f"{entry['learned']} of {entry['of']} learned" + ONE_MODEL * _over_prompts(entry)
    if entry["verdict"] and len(entry["alone"]) > 1:
        learned += f"\n{judged_alone(entry['alone'])}"
    return f"{kind}, {shown_kind(family)}\n{learned}"


def judged_alone(alone: Mapping[str, str]) -> str:
    """Return the verdicts on single models, counted.

    >>> judged_alone({"a": "anchor", "b": "undecided", "c": "anchor"})
    'alone: 2 anchor, 1 undecided'
    """
    return f"alone: {', '.join(f'{n} {label}' for label, n in Counter(alone.values()).most_common())}"


def _over_prompts(entry: Mapping[str, Any]) -> bool:
    return (entry["verdict"] or {}).get("replication") == "prompts"


def _parts(name: str) -> tuple[str, str, str]:
    posed, _, family = name.rpartition("-")
    task, _, fmt = posed.partition("-")
    return task, fmt, family


def _order(name: str) -> tuple:
    """Return the sort key: parity first, then family and format; other sizes last, by layers."""
    task, fmt, kind = _parts(name)
    (family, size), families = split_kind(kind), tuple(FAMILIES)
    return (
        task != "parity",
        task,
        size is not None,
        families.index(family) if family in FAMILIES else len(families),
        family,
        FORMATS.index(fmt) if fmt in FORMATS else len(FORMATS),
        fmt,
        size or (),
    )


def _check(verdicts: Mapping[str, Mapping[str, Any]]) -> None:
    if not verdicts:
        raise ValueError("roles by format: there are no verdicts")
    for name, entry in verdicts.items():
        if lacks := [key for key in KEYS if key not in entry]:
            raise ValueError(f"roles by format: {name} lacks {', '.join(lacks)}")
        if not all(_parts(name)):
            raise ValueError(f"roles by format: a name is <task>-<format>-<family>; got {name}")
        parse_format(name.rsplit("-", 1)[0])
        if entry["verdict"] is None:
            continue
        if lacks := [role for role in ROLES if role not in entry["verdict"].get("roles", {})]:
            raise ValueError(f"roles by format: the verdict of {name} lacks {', '.join(lacks)}")
