"""What are the labels of each format to the models that learned it, over seeds and beside planted models?"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo.frames import FAMILIES, FORMATS, shown_kind
from interp.support.sizes import split_kind
from interp.tasks import parse_format
from interp.views.colours import MARKERS, SERIES
from probes.views.rho import ROLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOW, HIGH = -0.15, 1.25  # rho outside is drawn at the edge, as a triangle
# What rho is a share of (science 2.2).
MOVED = {
    "anchor": "share of the margin moved",
    "placeholder": "share of the margin moved",
    "sink": "share of accuracy above chance lost",
}
PLANTED = {True: "planted, role present", False: "planted, role absent"}
# Beside a verdict whose intervals are over prompts.
ONE_MODEL = ", 1 judged"
# Columns of the table that are taken.
TAKEN = ("run", "task", "format", "posed", "metric", "value")
KEYS = ("models", "learned", "of", "alone", "verdict")


def roles_by_format(
    verdicts: Mapping[str, Mapping[str, Any]],
    planted: Mapping[str, Mapping[bool, Sequence[float]]],
    frame: Any = None,
) -> Figure:
    """rho of anchor, placeholder and sink with its interval over seeds, a row a "<task>-<format>-<family>".

    On top, for comparison, a tick for each planted model that has the role and for each that has not: `planted` is
    what `verdicts.planted_values` makes of a calibration, {} for none. Where there is no verdict or no rho, the row
    says why. With `frame`, the table of all runs, an open circle below the interval is one of its models, mean over
    lengths. Each verdict is a `Verdict` as JSON, or None, with `models`, how many of them `learned`, and `of` how
    many; `alone`, what each model is judged alone, is counted beside the name. Raises `ValueError` for no verdicts,
    for entries that lack any of these and for a table that lacks columns.
    """
    from matplotlib.figure import Figure

    _check(verdicts)
    if lacks := [c for c in TAKEN if frame is not None and c not in frame.columns]:
        raise ValueError(f"roles by format: the table lacks {', '.join(lacks)}")
    names = sorted(verdicts, key=_place)
    first = len(PLANTED) if planted else 0
    high = 1.2 + 0.44 * (len(names) + first * 0.7)
    figure = Figure(figsize=(10.5, high), layout="constrained", dpi=110)
    axes = figure.subplots(1, len(ROLES), sharex=True, sharey=True)
    margins = {v["margins"]["rho"] for e in verdicts.values() if (v := e["verdict"]) and "margins" in v} or {0.10}
    for axis, role, colour, marker in zip(axes, ROLES, SERIES, MARKERS, strict=False):
        for margin in margins:
            axis.axvspan(-margin, margin, color="#888888", alpha=0.15, linewidth=0)
        axis.axvline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
        for row, present in enumerate(PLANTED if planted else ()):
            values = [min(max(v, LOW), HIGH) for v in planted[role][present]]
            axis.vlines(values, row - 0.05, row + 0.38, color="#333333", alpha=0.3, linewidth=0.9)
            axis.text(HIGH, row - 0.42, f"n = {len(values)}", ha="right", va="top", fontsize=6.5, color="#444444")
        for row, name in enumerate(names, start=first):
            _cell(axis, row, name, verdicts[name], role, colour, marker)
            if frame is not None:
                one = _each(frame, verdicts[name]["models"], role)
                axis.plot(
                    one,
                    [row + 0.34] * len(one),
                    "o",
                    color=colour,
                    markersize=3.2,
                    fillstyle="none",
                    markeredgewidth=0.7,
                    label="_each",
                )
        if first:
            axis.axhline(first - 0.5, color="#999999", linewidth=0.8)
        axis.set_title(role, fontsize=10)
        axis.set_xlabel(f"rho: {MOVED[role]}", fontsize=8)
        axis.tick_params(labelsize=8)
    words = [*PLANTED.values()] if planted else []
    words += [_named(name, verdicts[name]) for name in names]
    axes[0].set_yticks(range(len(words)), words, fontsize=8)
    axes[0].set(ylim=(len(words) - 0.5, -0.5), xlim=(LOW - 0.02, HIGH + 0.02))
    shown = " or ".join(f"{m:.2f}" for m in sorted(margins))
    over = "over trained models" + " (over prompts where 1 was judged)" * any(map(_over_prompts, verdicts.values()))
    figure.suptitle(
        f"What the labels are: 95 % intervals {over}; grey: within ±{shown}, as if absent"
        + "; open circles: each model" * (frame is not None),
        fontsize=9,
    )
    return figure


def _each(frame: Any, models: Sequence[str], role: str) -> list[float]:
    """rho of each model on its own format, the mean over lengths, at the edge where it lies outside."""
    own = frame["posed"] == frame["task"] + "-" + frame["format"]
    kept = frame[own & (frame["metric"] == f"rho {role}") & frame["run"].isin(list(models))]
    return kept.groupby("run")["value"].mean().dropna().clip(LOW, HIGH).tolist()


def why_not(name: str, entry: Mapping[str, Any]) -> str:
    """Why a configuration has no verdict, in words.

    >>> why_not("parity-scratchpad-alibi", {"learned": 3, "of": 3})
    'not applicable: it has no labels'
    """
    if not parse_format(name.rsplit("-", 1)[0]).labels:
        return "not applicable: it has no labels"
    if not entry["learned"]:
        return f"not applicable: none of {entry['of']} learned"
    return f"not judged ({entry['learned']} of {entry['of']} learned)"


def _cell(axis: Axes, row: int, name: str, entry: Mapping[str, Any], role: str, colour: str, marker: str) -> None:
    if entry["verdict"] is None:
        _say(axis, row, why_not(name, entry))
        return
    found = entry["verdict"]["roles"][role]
    if found["rho"] is None:
        _say(axis, row, f"{found['status'].lower()}: {found['reason']}")
        return
    # An interval without an end is null there, and reaches the edge here.
    low, high = (
        x if x is not None and math.isfinite(x) else edge for x, edge in zip(found["ci"], (LOW, HIGH), strict=True)
    )
    rho = found["rho"]
    axis.plot(
        [max(low, LOW), min(high, HIGH)], [row + 0.15] * 2, "-", color=colour, linewidth=2.4, solid_capstyle="butt"
    )
    shape = marker if LOW <= rho <= HIGH else ("<" if rho < LOW else ">")
    axis.plot([min(max(rho, LOW), HIGH)], [row + 0.15], shape, color=colour, markersize=5.5)
    axis.text(
        HIGH,
        row - 0.05,
        f"{found['status']}  {rho:z.2f} [{low:z.2f}, {high:z.2f}]",
        ha="right",
        va="bottom",
        fontsize=6.5,
    )


def _say(axis: Axes, row: int, words: str) -> None:
    """Words in place of a value: whole, and small where they are many."""
    size = 7 if len(words) <= 60 else 6
    lines = "\n".join(textwrap.wrap(words, 52))
    axis.text((LOW + HIGH) / 2, row, lines, ha="center", va="center", fontsize=size, color="#444444")


def _named(name: str, entry: Mapping[str, Any]) -> str:
    task, fmt, family = _parts(name)
    kind = fmt if task == "parity" else f"{task} {fmt}"
    learned = f"{entry['learned']} of {entry['of']} learned" + ONE_MODEL * _over_prompts(entry)
    if entry["verdict"] and len(entry["alone"]) > 1:
        learned += f"; {judged_alone(entry['alone'])}"
    return f"{kind}, {shown_kind(family)}\n{learned}"


def judged_alone(alone: Mapping[str, str]) -> str:
    """What each of several models is judged alone, counted.

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


def _place(name: str) -> tuple:
    """Parity first, then by family and format; other sizes than the usual last, by their layers."""
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
