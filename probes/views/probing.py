"""Probe accuracy by layer, beside a matched control: probes of equally hard functions that the task does not use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from interp.views.colours import MARKERS, SERIES
from interp.views.figures import as_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interp.views.view import View

# Required keys of a row. Optional ones are measure, control_low, control_high, chance and untrained.
NEEDED = ("name", "layer", "value", "low", "high", "control")


def probes(rows: Iterable[Any], title: str = "What can probes read from each layer?") -> View:
    """Return probe curves with their controls as a view, with its numbers.

    A row is a mapping with `name`, `layer`, `value`, `low`, `high` and `control` (None for none), and optionally
    `measure` ("accuracy"), `control_low`, `control_high`, `chance` and `untrained`; or a result of
    `probes.arms.m08_decoding.decode`. Raises `ValueError` for a row that lacks a key or whose value is outside its
    interval.

    >>> view = probes(decode(run.raw, run.sample(300, 20, seed=0), ["state"]))
    """
    flat = _checked(rows)
    names = dict.fromkeys(row["name"] for row in flat)
    ends = []
    for name in names:
        best = max((row for row in flat if row["name"] == name), key=lambda row: row["value"])
        control = "" if best["control"] is None else f", its control {best['control']:.2f}"
        ends.append(f"{name}: highest {best['value']:.2f} at layer {best['layer']}{control}")
    table = [
        (row["name"], row.get("measure", "accuracy"), row["layer"], *(_decimals(row.get(k)) for k in SHOWN))
        for row in flat
    ]
    alt = f"{title}: a curve over layers for each concept. {'; '.join(ends)}."
    figure, narrow = (draw_probes(flat, title, narrow) for narrow in (False, True))
    return as_view(figure, title, alt, ("concept", "measure", "layer", *SHOWN), table, narrow)


# Concepts of probes as titles, where the concept's own name is not plain.
TITLES = {"state": "parity so far", "bit": "next bit", "slot": "step number"}
SHOWN = ("value", "low", "high", "control", "chance", "untrained")


def draw_probes(rows: Iterable[Any], title: str = "", narrow: bool = False) -> Figure:
    """Draw one panel per concept, on one scale per measure. Layer 0 is the embedding.

    Solid with a band: the probe and its interval. Dashed: the matched control, with its band where given. Dotted:
    chance. Grey crosses: a model with random weights. `narrow`: for a phone.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    flat = _checked(rows)
    names = list(dict.fromkeys(row["name"] for row in flat))
    across = min(2 if narrow else 4, len(names))
    down = -(-len(names) // across)
    figure = Figure(
        figsize=(3.9 if narrow else max(4.2, 2.6 * across), (1.2 if narrow else 0.7) + 2.3 * down),
        layout="constrained",
        dpi=110,
    )
    axes = figure.subplots(down, across, squeeze=False).ravel()
    floors = {m: min(_lows(flat, m)) for m in {row.get("measure", "accuracy") for row in flat}}
    for axis, name in zip(axes, names, strict=False):
        mine = sorted((row for row in flat if row["name"] == name), key=lambda row: row["layer"])
        colour, layers = SERIES[0], [row["layer"] for row in mine]
        axis.plot(layers, [row["value"] for row in mine], color=colour, marker=MARKERS[0], markersize=4)
        axis.fill_between(layers, *([row[k] for row in mine] for k in ("low", "high")), color=colour, alpha=0.2, lw=0)
        held = [row for row in mine if row["control"] is not None]
        axis.plot(
            [r["layer"] for r in held], [r["control"] for r in held], "--", color="#333333", marker="s", markersize=3
        )
        banded = [row for row in held if row.get("control_low") is not None]
        ends = ([row[f"control_{end}"] for row in banded] for end in ("low", "high"))
        axis.fill_between([row["layer"] for row in banded], *ends, color="#333333", alpha=0.15, lw=0)
        for key, style in (("chance", {"linestyle": ":"}), ("untrained", {"linestyle": "", "marker": "x"})):
            present = [row for row in mine if row.get(key) is not None]
            axis.plot([row["layer"] for row in present], [row[key] for row in present], color="#777777", **style)
        measure = mine[0].get("measure", "accuracy")
        axis.set_title(name, fontsize=8 if narrow else 9)
        axis.set_ylabel(measure, fontsize=8)
        axis.set_xlabel("layer (0: embedding)", fontsize=8)
        axis.set_ylim(max(min(floors[measure], 0.45 if measure == "accuracy" else 0.0) - 0.05, -1.0), 1.05)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.tick_params(labelsize=8)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    _legend(figure, flat, narrow)
    if title:
        figure.suptitle(title, fontsize=9 if narrow else 10, wrap=narrow)
    return figure


def _legend(figure: Figure, rows: list[dict], narrow: bool) -> None:
    from matplotlib.lines import Line2D

    keys = [Line2D([], [], color=SERIES[0], marker=MARKERS[0], markersize=4, label="probe, 95 % interval")]
    more = {
        "control": Line2D([], [], ls="--", color="#333333", marker="s", markersize=3, label="matched control"),
        "chance": Line2D([], [], ls=":", color="#777777", label="chance"),
        "untrained": Line2D([], [], ls="", color="#777777", marker="x", label="random weights"),
    }
    keys += [key for name, key in more.items() if any(row.get(name) is not None for row in rows)]
    figure.legend(handles=keys, loc="outside lower center", ncols=2 if narrow else len(keys), fontsize=8)


def _checked(rows: Iterable[Any]) -> list[dict]:
    flat = [dict(row) if isinstance(row, Mapping) else _from_decoded(row) for row in rows]
    if not flat:
        raise ValueError("no probes to show")
    for row in flat:
        if missing := [key for key in NEEDED if key not in row]:
            raise ValueError(f"a row of a probe needs {', '.join(NEEDED)}; it lacks {', '.join(missing)}")
        if not row["low"] <= row["value"] <= row["high"]:
            raise ValueError(f"{row['name']}, layer {row['layer']}: {row['value']} is not in its interval")
    return flat


def _from_decoded(decoded: Any) -> dict:
    """Return the row of a `probes.arms.m08_decoding.Decoded`."""
    return {
        "name": f"{TITLES.get(decoded.concept, decoded.concept)} at {decoded.role.lower().replace('_', ' ')}s",
        "layer": decoded.layer,
        "measure": decoded.measure,
        "value": decoded.score.value,
        "low": decoded.score.low,
        "high": decoded.score.high,
        "control": decoded.control.value,
        "control_low": decoded.control.low,
        "control_high": decoded.control.high,
        "chance": decoded.chance,
        "untrained": decoded.untrained and decoded.untrained.value,
    }


def _lows(rows: list[dict], measure: str) -> list[float]:
    mine = [row for row in rows if row.get("measure", "accuracy") == measure]
    return [row[k] for row in mine for k in ("low", "control", "chance", "untrained") if row.get(k) is not None]


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
