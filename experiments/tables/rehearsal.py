"""The table of models that differ in what they rehearsed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.drawing.zoo.frames import precisions
from experiments.tables.cells import markdown
from experiments.tables.zoo import judged_text, spread
from interp.models.names import ZOO

FORMATS, LENGTHS, FAMILY = ("aligned", "scratchpad", "numeric", "cyclic"), (20, 30, 40, 60, 80, 100), "alibi"


def rehearsal_table(zoo: Path = ZOO) -> str:
    """Return exact match by what was rehearsed, labels given: one row per format and condition.

    Accuracy is the median [minimum, maximum] over the seeds that learned, as in the table of all configurations. The
    usual condition is in the table for comparison, with its own seeds and precision.
    """
    import pandas as pd

    from experiments.drawing.zoo.rehearsed import ORDER, by_condition
    from experiments.gathering import TABLE, read_verdicts

    frame: Any = pd.read_parquet(zoo / TABLE)
    rows = by_condition(frame[frame["posed"] == frame["task"] + "-" + frame["format"]], FAMILY)
    verdicts, cells = read_verdicts(zoo), []
    for name in FORMATS:
        for condition in ORDER:
            models = rows[(rows["format"] == name) & (rows["condition"] == condition)]
            if len(models):
                cells.append((name, condition, *_cells(models, verdicts)))
    head = ("format", "rehearsed", "precision", "seeds", "learned", *(f"n={n}" for n in LENGTHS), "verdict")
    return markdown(head, cells)


def _cells(models: Any, verdicts: Mapping[str, dict]) -> tuple[str, ...]:
    """Return the cells of one format and condition."""
    learned = models.groupby("run")["learned"].first().astype(bool)
    exact = models[models["learned"].astype(bool) & (models["metric"] == "exact") & (models["mode"] == "forced")]
    entry = verdicts.get(f"parity-{models['format'].iloc[0]}-{models['family'].iloc[0]}", {"verdict": None})
    return (
        precisions(models),
        ", ".join(str(seed) for seed in sorted(models["seed"].unique())),
        f"{int(learned.sum())} of {len(learned)}",
        *(spread(exact[exact["length"] == n]["value"], int(learned.sum())) for n in LENGTHS),
        judged_text(entry),
    )
