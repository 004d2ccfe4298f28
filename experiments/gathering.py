"""What do all runs of a zoo say together? One tidy table, and one verdict a configuration, over its seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.provenance import provenance_record, say_versions
from experiments.reading import read_result
from experiments.results import as_parquet
from experiments.training.recipe import Recipe
from interp.models import read_json
from interp.models.folder import read_record
from interp.views.zoo import COLUMNS
from interp.writing import write_together
from probes.decision import verdict
from probes.evidence import Interval
from probes.findings import MARGINS
from probes.keeping import battery_from_json

if TYPE_CHECKING:
    import pandas as pd

TABLE, VERDICTS, VERSION = "results.parquet", "verdicts.json", 1
NOWHERE = float("nan")


def gather(folder: Path) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Reads every run in a folder and writes results.parquet and verdicts.json there, whole or not at all.

    The table has a row for each run, posed format, length, mode and metric: accuracies ("step", "exact", "final",
    "free step"; mode "forced" or "written"), the share of steps that read a bit at an offset ("offset +1", "offset
    none"), and the roles of one model ("rho anchor" and so on, with 95 % intervals over its prompts). `learned` says
    whether the run is competent at its longest trained length; runs that are not are in the table too. Verdicts are
    over the seeds that learned, by `<task>-<format>-<family>`. Raises `ValueError` for a damaged file.
    """
    import pandas as pd

    rows: list[tuple] = []
    batteries: dict[str, dict[str, Any]] = {}
    for run in sorted(p.parent for p in folder.glob("*/run.json")):
        record = read_record(run)
        assert record is not None
        say_versions(f"{run.name}/run.json", record.get("provenance"))
        about = _about(run.name, record)
        rows += [(*about.values(), *row) for row in _rows(run, record["format"])]
        kind = f"{about['task']}-{about['format']}-{about['family']}"
        entry = batteries.setdefault(kind, {"models": [], "learned": 0, "of": 0, "batteries": []})
        entry["of"] += 1
        entry["learned"] += about["learned"]
        if about["learned"] and (found := _result(run / "battery.json")):
            entry["models"].append(run.name)
            entry["batteries"].append(battery_from_json(found["battery"]))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    verdicts = {kind: _judged(entry) for kind, entry in sorted(batteries.items())}
    text = {"version": VERSION, "provenance": provenance_record(), "verdicts": verdicts}
    write_together([(folder / TABLE, as_parquet(table, index=False)), (folder / VERDICTS, json.dumps(text) + "\n")])
    return table, verdicts


def read_verdicts(folder: Path) -> dict[str, dict]:
    """What `gather` judged, by configuration; nothing where it has not. Raises `ValueError` for another file."""
    path = folder / VERDICTS
    if not path.exists():
        return {}
    data = read_json(path)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"{path} is not what `mnemoscope sweep` of version {VERSION} writes; run it again")
    say_versions(f"{folder.name}/{path.name}", data.get("provenance"))
    return data["verdicts"]


def _judged(entry: dict[str, Any]) -> dict:
    """The verdict over the seeds that learned; without one, why there is none."""
    several, why = entry.pop("batteries"), None
    if not entry["learned"]:
        why = "not applicable: no seed learned the task"
    elif not several:
        why = "not measured yet"
    elif not any(m.evidence or m.refusal is None for b in several for m in b.measured):
        why = f"not applicable: {several[0].measured[0].refusal}"
    return {**entry, "verdict": None if why else verdict(several).to_json(), "why": why}


def _about(name: str, record: dict) -> dict[str, Any]:
    try:
        task, _, fmt = record["format"].partition("-")
        recipe, outcome = Recipe.from_json(record["recipe"]), record["outcome"]
        learned = bool(outcome["competent"])
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{name}/run.json is not what `mnemoscope train` writes: {error!r}") from error
    family = recipe.model.kind.replace("-", "_")  # a hub's names have what parts of a run's name stand apart by
    return {
        "run": name, "task": task, "format": fmt, "family": family, "seed": recipe.seed,
        "rehearsal": recipe.rehearsal, "trained_to": recipe.longest, "learned": learned,
    }  # fmt: skip


def _rows(run: Path, own: str) -> Iterator[tuple]:
    """What comes after `learned`: posed, length, mode, metric, value, low, high, chance, n."""
    if found := _result(run / "evaluation.json"):
        for row in found["accuracy"]:
            yield own, row["length"], row["mode"], row["metric"], *_bounds(row), row["chance"], row["n"]
        for row in found["offsets"]:
            offset = "none" if row["offset"] is None else f"{row['offset']:+d}"
            share = (row["share"], NOWHERE, NOWHERE)
            yield own, row["length"], "", f"offset {offset}", *share, NOWHERE, found["offset_prompts"]
    if found := _result(run / "transfer.json"):
        for row in found["accuracy"]:
            yield row["posed"], row["length"], row["mode"], row["metric"], *_bounds(row), row["chance"], row["n"]
    if found := _result(run / "battery.json"):
        for at in verdict(battery_from_json(found["battery"])).lengths:
            for role, what in at.roles.items():
                if isinstance(what.rho, Interval):
                    rho = (what.rho.value, what.rho.low, what.rho.high)
                    yield own, at.length, "", f"rho {role}", *rho, MARGINS.rho, found["battery"]["prompts"]


def _bounds(row: dict) -> tuple[float, float, float]:
    return row["value"], row["low"], row["high"]


def _result(path: Path) -> dict | None:
    """A result beside a run; None where it has not been made yet."""
    return read_result(path) if path.exists() else None
