"""The table of fine-tuned pretrained models: exact match by format and length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.tables.cells import markdown
from experiments.tables.zoo import spread
from interp.models.names import ZOO

LENGTHS = (10, 20, 25, 30, 40, 60, 80, 100)


def pretrained_table(zoo: Path = ZOO) -> str:
    """Return exact match of the fine-tuned models, one row per format and mode: who writes the labels.

    Accuracy is the median [minimum, maximum] over the seeds that learned, and in round brackets over all seeds where
    none did; empty where it was not measured.
    """
    import pandas as pd

    from experiments.drawing.zoo import family_of
    from experiments.gathering import TABLE
    from experiments.grid import PARITY, PRETRAINED

    frame: Any = pd.read_parquet(zoo / TABLE)
    own = frame["posed"] == frame["task"] + "-" + frame["format"]
    rows = frame[own & (frame["family"] == family_of(PRETRAINED)) & (frame["metric"] == "exact")]
    cells = []
    for name in PARITY:
        for mode in ("forced", "written"):
            models = rows[(rows["task"] + "-" + rows["format"] == name) & (rows["mode"] == mode)]
            if len(models):
                cells.append((name.removeprefix("parity-"), mode, *_cells(models)))
    head = ("format", "labels", "seeds", "learned", "prompts", *(f"n={n}" for n in LENGTHS))
    return markdown(head, cells) if cells else "not built yet\n"


def _cells(models: Any) -> tuple[str, ...]:
    learned = models.groupby("run")["learned"].first().astype(bool)
    shown = models[models["learned"].astype(bool)] if learned.any() else models
    values = [spread(shown[shown["length"] == n]["value"]) for n in LENGTHS]
    return (
        ", ".join(str(seed) for seed in sorted(models["seed"].unique())),
        f"{int(learned.sum())} of {len(learned)}",
        ", ".join(str(n) for n in sorted(shown["n"].unique())),
        *(value if learned.any() or not value else f"({value})" for value in values),
    )
