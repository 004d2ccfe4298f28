"""Rows of a report's tables: verdicts, accuracies, evidence and arms."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.support.evidence_text import MODES
from probes.arms.naming import arm_title, arms_named
from probes.arms.registry import ARMS
from probes.views.accuracy import final_of

ROLES = {
    "anchor": "which label it is tells the model where to read",
    "placeholder": "its position stores a result that later tokens read",
    "sink": "it takes attention and carries nothing",
}


def verdict_row(name: str, data: dict) -> list[str]:
    """Return a run's row in a table of verdicts: label, then each role."""
    cells = []
    for role in ROLES:
        entry = data["roles"][role]
        cells.append(entry["status"] + (f" {interval(entry['rho'], entry['ci'])}" if entry["rho"] is not None else ""))
    return [f"`{name}`", f"**{data['verdict']}**", *cells]


def accuracy_rows(name: str, data: dict, lengths: Sequence[int]) -> list[list[str]]:
    """Return step accuracy, exact match and the last answer's accuracy at the given lengths.

    `data` is an evaluation.json; its format says what the last answer is.
    """
    rows, final = [], final_of(data["format"].partition("-")[0])
    for mode in dict.fromkeys(r["mode"] for r in data["accuracy"]):
        for metric, title in (("step", "step accuracy"), ("exact", "exact match"), ("final", final)):
            values = {r["length"]: r["value"] for r in data["accuracy"] if (r["mode"], r["metric"]) == (mode, metric)}
            numbers = (f"{values[n]:.3f}" if n in values else "" for n in lengths)
            rows.append([f"`{name}`", MODES.get(mode, mode), title, *numbers])
    return rows


def evidence_rows(data: dict) -> list[list[str]]:
    """Return one row per arm: intervention, value, matched control and sample size."""
    return [
        [
            size_of(e["length"]),
            arm_title(e["arm"]),
            e["name"],
            e["quantity"],
            estimate(e["value"]),
            estimate(e["control"]),
            str(e["n"]),
        ]
        for e in data["evidence"]
    ]


def faithfulness_rows(data: dict) -> list[list[str]]:
    """Return a circuit's faithfulness and accuracy at each length."""
    return [
        [n, interval(w["values"], [w["low"], w["high"]]), f"{w['accuracy']:.3f}", f"{w['accuracy_full']:.3f}"]
        for n, w in data["lengths"].items()
    ]


def arms_of(lines: Sequence[str]) -> list[list[str]]:
    """Return the arms that lines of text name, each with what it does."""
    return [[title, text] for title, text in arms_named(" ".join(lines)).items()]


def arms_in(data: dict) -> list[list[str]]:
    """Return the arms of a verdict's evidence, each with what it does."""
    found = {row["arm"] for row in data["evidence"]}
    return [[arm.title, arm.meaning] for code, arm in ARMS.items() if code in found]


def interval(value: float, bounds: Sequence[float | None]) -> str:
    """Return a value with its bounds; None is unbounded."""
    low, high = ("unbounded" if b is None else f"{b:z.3f}" for b in bounds)
    return f"{value:z.3f} [{low}, {high}]"


def estimate(row: dict | None) -> str:
    """Return an estimate with its interval; "" for None."""
    return "" if row is None else interval(row["value"], [row["low"], row["high"]])


def size_of(length: int | Sequence[int]) -> str:
    """Return a length as text; of two operands "10 + 10"."""
    return str(length) if isinstance(length, int) else " + ".join(map(str, length))
