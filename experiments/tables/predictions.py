"""The table of predictions that were committed before the models were looked at, with what was found since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from experiments.tables.cells import markdown
from interp.models import read_json
from interp.models.names import ZOO

PREDICTIONS, VERSION = ZOO / "predictions.json", 1
# On fine-tuned models of a second pretrained family.
SECOND = "predictions-gemma3.json"
# On index hints.
OF_HINTS = "predictions-hints.json"


def read_predictions(path: Path = PREDICTIONS) -> dict[str, Any]:
    """Return the predictions, their date and rule, and what had been seen. Raises `ValueError` for another version."""
    data = read_json(path)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"{path} is not a list of predictions of version {VERSION}")
    return data


def predictions_table(zoo: Path = ZOO, name: str = PREDICTIONS.name) -> str:
    """Return one row per prediction: what was predicted, how many of its models are trained, found, and the outcome.

    `name`: of the file of predictions.
    """
    import pandas as pd

    from experiments.gathering import TABLE

    frame: Any = pd.read_parquet(zoo / TABLE)
    frame = frame[frame["posed"] == frame["task"] + "-" + frame["format"]]
    head, rows = ("prediction", "measure", "trained", "found", "outcome"), []
    for one in read_predictions(zoo / name)["predictions"]:
        rows.append((one["says"], _measure(one), *outcome(one, frame)))
    return markdown(head, rows)


def outcome(one: Mapping[str, Any], frame: Any) -> tuple[str, str, str]:
    """Return how many of a prediction's models are trained, what was found, and whether the prediction holds.

    It is decided when every seed is trained and measured. Before, it is "open", and the outcome says where the
    models so far break the bound so that further ones cannot mend it.
    """
    kinds = one.get("configurations") or [one["configuration"]]
    models = frame[frame["run"].isin([f"{kind}-seed{seed}" for kind in kinds for seed in one["seeds"]])]
    trained, of = models["run"].nunique(), len(kinds) * len(one["seeds"])
    counted = f"{trained} of {of}"
    over = one.get("over", "")
    some = models if over.endswith("of all") else models[models["learned"].astype(bool)]
    is_rank = "rank_of" in one
    values = _ranks(one, some) if is_rank else sorted(_values(some, one).values())
    missing = 0 if is_rank else some["run"].nunique() - len(values)
    low, high = one.get("at_least", float("-inf")), one.get("at_most", float("inf"))
    broken = sum(not low <= value <= high for value in values)
    # A median is lost when more models break the bound than can still keep it.
    kept_at_most = len(values) - broken + missing + of - trained if over.startswith("median") else 0
    lost = not is_rank and broken > kept_at_most
    if over.startswith("median") and values:
        values = [median(values)]
    shown = ", ".join(f"{value:.3f}" for value in values)
    if missing:
        shown += f" ({missing} not measured)"
    if trained < of or missing:
        return counted, shown, "open, cannot hold any more" if lost else "open"
    if not values:
        return counted, "", "not applicable: no model learned its task, or none was judged"
    return counted, shown, "holds" if all(low <= value <= high for value in values) else "**fails**"


def _ranks(one: Mapping[str, Any], models: Any) -> list[float]:
    """Return Spearman's rank correlation over the models that have both values; nothing for fewer than three."""
    from scipy.stats import spearmanr

    a, b = (_values(models, one[key]) for key in ("rank_of", "against"))
    both = sorted(a.keys() & b.keys())
    if len(both) < 3:
        return []
    found: Any = spearmanr([a[run] for run in both], [b[run] for run in both])
    return [float(found.statistic)]


def _values(models: Any, one: Mapping[str, Any]) -> dict[str, float]:
    """Return the value of each model, by run."""
    some = models[
        (models["metric"] == one["metric"]) & (models["mode"] == one["mode"]) & (models["length"] == one["length"])
    ]
    return dict(zip(some["run"], some["value"].astype(float), strict=True))


def _measure(one: Mapping[str, Any]) -> str:
    """Return what is measured and the predicted bounds, such as "exact at 40, median at least 0.8"."""
    bounds = [
        f"{'at least' if key == 'at_least' else 'at most'} {one[key]:g}"
        for key in ("at_least", "at_most")
        if key in one
    ]
    written = ", labels written" if one.get("mode") == "written" else ""
    what = "rank correlation" if "rank_of" in one else f"{one['metric']} at {one['length']}{written}, {one['over']}"
    return f"{what} {' and '.join(bounds)}"
