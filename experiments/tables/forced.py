"""Markdown table of the verdict on trained models whose mechanism weights force, from `results/forced.json`."""

from __future__ import annotations

from experiments.forced.judging import read_forced
from experiments.tables.cells import markdown
from experiments.tables.outsiders import outcome_of

SIGNS = {True: "yes", False: "no", None: "open"}


def forced_table() -> str:
    """Return a row per model: the truth, the accuracy, the statuses, the verdict and how it compares."""
    cells = []
    for row in read_forced().values():
        truth = ", ".join(f"{role} {SIGNS[value]}" for role, value in row["roles"].items())
        outcome = outcome_of(row)
        cells.append(
            (
                row["case"],
                row["seed"],
                truth,
                f"{row['accuracy']['forced step']:.3f}",
                ", ".join(row["statuses"].values()),
                row["label"],
                f"**{outcome}**" if outcome.startswith("wrong") else outcome,
            )
        )
    head = ("forced", "seed or run", "truth", "step accuracy", "anchor, placeholder, sink", "verdict", "outcome")
    return markdown(head, cells)
