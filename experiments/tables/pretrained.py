"""Tables of fine-tuned pretrained models: exact match by format and length, and what their labels do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.drawing.zoo.frames import precisions
from experiments.support.reading import read_result
from experiments.tables.cells import interval, markdown
from experiments.tables.of_files import ADAPTED_VERDICT, FOLDER
from experiments.tables.zoo import spread
from interp.models.names import ZOO

LENGTHS = (10, 20, 25, 30, 40, 60, 80, 100)
# Fine-tuned models whose labels were judged: labels, seed and verdict. The shipped model has the recipe and the seed
# of the first in the table of accuracies, on another machine.
JUDGED = (
    ("aligned", "1, shipped", ADAPTED_VERDICT),
    *(
        (labels, seed, FOLDER / "recipes" / f"parity-{labels}-smollm2-135m-lora4-seed{seed}-verdict.json")
        for labels, seed in (("aligned", 2), ("aligned", 3), ("numeric", 1))
    ),
)
JUDGED_AT = 20
# Their evidence, by title.
ROUTES = {
    "two labels traded": "either side",
    "the labels before traded as well": "swap the input labels of the step and before",
    "all renamed": "rename labels",
    "V at the label, layers 15 to 19": "V at label, L15-L19",
    "K at the bit there": "K at bit, L15-L19",
    "stored results": "history in V at labels",
    "neighbours only": "effect of neighbours of a label that moves",
}


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
    head = ("format", "labels", "precision", "seeds", "learned", "prompts", *(f"n={n}" for n in LENGTHS))
    return markdown(head, cells) if cells else "not built yet\n"


def _cells(models: Any) -> tuple[str, ...]:
    learned = models.groupby("run")["learned"].first().astype(bool)
    shown = models[models["learned"].astype(bool)] if learned.any() else models
    values = [spread(shown[shown["length"] == n]["value"]) for n in LENGTHS]
    return (
        precisions(models),
        ", ".join(str(seed) for seed in sorted(models["seed"].unique())),
        f"{int(learned.sum())} of {len(learned)}",
        ", ".join(str(n) for n in sorted(shown["n"].unique())),
        *(value if learned.any() or not value else f"({value})" for value in values),
    )


def routes_table() -> str:
    """Return what trading labels and patching their routes does in fine-tuned models, from their `verdict.json`.

    Shares of the margin at 20 bits, with the verdict's simultaneous intervals, which follow from few prompts.
    """
    cells = []
    for labels, seed, path in JUDGED:
        data = read_result(path)
        by_name = {e["name"]: e["value"] for e in data["evidence"] if e["length"] == JUDGED_AT}
        values = [by_name.get(name) for name in ROUTES.values()]
        shares = [interval(v["value"], [v["low"], v["high"]]) if v else "" for v in values]
        (found,) = [at for at in data["by_length"] if at["length"] == JUDGED_AT]
        cells.append((labels, seed, *shares, found["roles"]["anchor"]["status"], data["verdict"]))
    return markdown(("labels", "seed", *ROUTES, "anchor", "verdict"), cells)
