"""Tables of fine-tuned pretrained models: exact match by format and length, and what their labels do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from experiments.drawing.zoo.frames import precisions
from experiments.support.reading import read_result
from experiments.tables.cells import interval, markdown
from experiments.tables.of_files import ADAPTED_PAST, ADAPTED_VERDICT, FOLDER, SECOND_VERDICT
from experiments.tables.zoo import spread
from interp.models.names import ZOO

LENGTHS = (10, 20, 25, 30, 40, 60, 80, 100)
DIGITS = (5, 8, 10, 12, 14, 20)


class Judged(NamedTuple):
    """A fine-tuned model whose labels were judged, with the bits of its prompts and its verdict's file."""

    labels: str
    seed: str
    bits: int
    path: Path
    model: str = "smollm2-135m"


def _judged(labels: str, seed: int, bits: int = 20) -> Judged:
    ending = "" if bits == 20 else f"-{bits}"
    name = f"parity-{labels}-smollm2-135m-lora4-seed{seed}-verdict{ending}.json"
    return Judged(labels, str(seed), bits, FOLDER / "recipes" / name)


# The shipped model has the recipe and the seed of the first in the table of accuracies, on another machine.
JUDGED = (
    Judged("aligned", "1, shipped", 20, ADAPTED_VERDICT),
    Judged("aligned", "1, shipped", 40, ADAPTED_PAST),
    _judged("aligned", 2),
    _judged("aligned", 3),
    _judged("numeric", 1),
    _judged("nonaligned", 2),
    _judged("constant", 2),
    _judged("cyclic", 2),
    _judged("hints", 1),
    Judged("aligned", "1", 20, SECOND_VERDICT, "gemma3-270m"),
)
# The layers of each model in which labels and bits are patched, about the middle.
MIDDLE = {"smollm2-135m": "L15-L19", "gemma3-270m": "L9-L11"}
# Their evidence, by title; {} stands for the layers.
ROUTES = {
    "two labels traded": "either side",
    "the labels before traded as well": "swap the input labels of the step and before",
    "all renamed": "rename labels",
    "V at the label": "V at label, {}",
    "K at the bit": "K at bit, {}",
    "stored results": "history in V at labels",
    "neighbours only": "effect of neighbours of a label that moves",
}


def pretrained_table(zoo: Path = ZOO) -> str:
    """Return exact match of the models fine-tuned on parity, one row per format, trained lengths and mode.

    The mode is who writes the labels. Accuracy is the median [minimum, maximum] over the seeds that learned, and in
    round brackets over all seeds where none did; empty where it was not measured, and followed by the number of seeds
    where not all were.
    """
    from experiments.grid import GAPS, HINTS, PAPERS_SHORTEST, PARITY

    return _table(zoo, (*PARITY, *GAPS, HINTS), "bits", LENGTHS, (1, PAPERS_SHORTEST))


def pretrained_addition_table(zoo: Path = ZOO) -> str:
    """Return exact match of the models fine-tuned on addition, by digits of both operands, as `pretrained_table`."""
    from experiments.grid import ADDITION

    return _table(zoo, ADDITION, "digits", DIGITS, (1,))


def _table(zoo: Path, formats: Sequence[str], unit: str, lengths: Sequence[int], shortest: Sequence[int]) -> str:
    """Return the rows of each model and some formats, those trained from each of the shortest lengths after others."""
    import pandas as pd

    from experiments.drawing.zoo import family_of
    from experiments.gathering import TABLE
    from experiments.grid import PRETRAINED, SECOND_PRETRAINED, SECOND_SOURCE, SOURCE

    frame: Any = pd.read_parquet(zoo / TABLE)
    own = frame["posed"] == frame["task"] + "-" + frame["format"]
    rows = frame[own & (frame["metric"] == "exact")]
    cells = []
    kinds = ((SOURCE, PRETRAINED), (SECOND_SOURCE, SECOND_PRETRAINED))
    for (source, kind), first, name, mode in product(kinds, shortest, formats, ("forced", "written")):
        of_family = rows[rows["family"] == family_of(kind) + (f"+from{first}" if first > 1 else "")]
        models = of_family[(of_family["posed"] == name) & (of_family["mode"] == mode)]
        if len(models):
            trained = f"{first} to {models['trained_to'].iloc[0]}"
            cells.append((source, name.partition("-")[2], trained, mode, *_cells(models, lengths)))
    head = ("model", "format", f"trained on {unit}", "labels", "precision", "seeds", "learned", "steps", "prompts")
    return markdown((*head, *(f"n={n}" for n in lengths)), cells) if cells else "not built yet\n"


def _cells(models: Any, lengths: Sequence[int]) -> tuple[str, ...]:
    learned = models.groupby("run")["learned"].first().astype(bool)
    shown = models[models["learned"].astype(bool)] if learned.any() else models
    of = shown["run"].nunique()
    values = [spread(shown[shown["length"] == n]["value"], of) for n in lengths]
    return (
        precisions(models),
        ", ".join(str(seed) for seed in sorted(models["seed"].unique())),
        f"{int(learned.sum())} of {len(learned)}",
        " to ".join(str(n) for n in sorted({models["steps"].min(), models["steps"].max()})),
        ", ".join(str(n) for n in sorted(shown["n"].unique())),
        *(value if learned.any() or not value else f"({value})" for value in values),
    )


def routes_table() -> str:
    """Return what trading labels and patching their routes does in fine-tuned models, from their `verdict.json`.

    Shares of the margin, each with its own 95 % interval (statuses use wider ones, which hold jointly); empty where a
    format does not have that intervention.
    """
    cells = []
    for labels, seed, bits, path, model in JUDGED:
        data = read_result(path)
        by_name = {e["name"]: e["value"] for e in data["evidence"] if e["length"] == bits}
        values = [by_name.get(name.format(MIDDLE[model])) for name in ROUTES.values()]
        shares = [interval(v["value"], [v["low"], v["high"]]) if v else "" for v in values]
        (found,) = [at for at in data["by_length"] if at["length"] == bits]
        statuses = [found["roles"][role]["status"] for role in ("anchor", "placeholder")]
        cells.append((model, labels, seed, bits, data["prompts"], *shares, *statuses, data["verdict"]))
    return markdown(("model", "labels", "seed", "bits", "prompts", *ROUTES, "anchor", "placeholder", "verdict"), cells)
