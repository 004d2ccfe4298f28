"""Gather the results of all runs of a zoo: one tidy table, and one verdict per configuration over its seeds."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.drawing.zoo import COLUMNS, family_of
from experiments.support.provenance import provenance_record, warn_versions
from experiments.support.reading import read_result
from experiments.support.results import as_parquet
from experiments.training.recipe import Recipe
from interp.models import read_json
from interp.models.record import read_record
from interp.support.writing import write_together
from probes.decision import verdict
from probes.evidence import Interval
from probes.serialization import battery_from_json

if TYPE_CHECKING:
    import pandas as pd

    from probes.batteries import Battery
    from probes.findings import Verdict

TABLE, VERDICTS, VERSION = "results.parquet", "verdicts.json", 2
# Numbers of runs that were trained outside the sweep: they have no folder, weights or verdict over seeds.
ELSEWHERE = "elsewhere.json"
# A bound or chance level that a row does not have.
NOT_GIVEN = float("nan")


# A run of a folder, its record, and its first columns in the table.
Found = tuple[Path, dict, dict[str, Any]]


def gather(folder: Path, runs: Sequence[Found] | None = None) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Read every run in a folder, and write results.parquet and verdicts.json there, atomically; return both.

    The table has one row per run, format of the prompts, length, mode and metric: accuracies ("step", "exact", "final",
    "free step"; mode "forced" or "written"), the share of steps that read a bit at an offset ("offset +1", "offset
    none"), and the roles of one model ("rho anchor" and so on, with 95 % intervals over its prompts). `learned` is
    whether the run is competent at its longest trained length; other runs are in the table too. Verdicts are over the
    seeds that learned, by `<task>-<format>-<family>`, with the verdict on each seed alone. Runs of `elsewhere.json` are
    in the table and in no verdict. `runs`: those of `runs_alike`, where they have been read. Raises `ValueError` for a
    damaged file, for results of one run with different weights, and for runs of one configuration that were trained
    differently.
    """
    import pandas as pd

    rows: list[tuple] = []
    batteries: dict[str, dict[str, Any]] = {}
    for run, record, about in runs_alike(folder) if runs is None else runs:
        warn_versions(f"{run.name}/run.json", record.get("provenance"))
        battery, alone, own_rows = _read_run(run, record["format"])
        rows += [(*about.values(), *row) for row in own_rows]
        kind = _configuration(about)
        entry = batteries.setdefault(kind, {"models": [], "learned": 0, "of": 0, "alone": {}, "batteries": []})
        entry["of"] += 1
        entry["learned"] += about["learned"]
        if about["learned"] and battery and alone:
            entry["models"].append(run.name)
            entry["alone"][run.name] = alone.label
            entry["batteries"].append(battery)
    rows += rows_elsewhere(folder, {row[0] for row in rows})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    verdicts = {kind: _judged(entry) for kind, entry in sorted(batteries.items())}
    text = {"version": VERSION, "provenance": provenance_record(), "verdicts": verdicts}
    write_together([(folder / TABLE, as_parquet(table, index=False)), (folder / VERDICTS, json.dumps(text) + "\n")])
    return table, verdicts


def read_verdicts(folder: Path) -> dict[str, dict]:
    """Return the verdicts that `gather` wrote, by configuration; {} without a file. Raises `ValueError` for others."""
    path = folder / VERDICTS
    if not path.exists():
        return {}
    data = read_json(path)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"{path} is not what `mnemoscope sweep` of version {VERSION} writes; run it again")
    warn_versions(f"{folder.name}/{path.name}", data.get("provenance"))
    return data["verdicts"]


def rows_elsewhere(folder: Path, names: Collection[str] = ()) -> list[tuple]:
    """Return the rows of the table for the runs in `elsewhere.json`; none without the file.

    Accuracies have no interval and no chance there. Raises `ValueError` for a file of another version, for one that
    lacks entries, and for a run that is in `names` too.
    """
    path = folder / ELSEWHERE
    if not path.exists():
        return []
    data, rows = read_json(path), []
    if not isinstance(data, dict) or data.get("version") != 1:
        raise ValueError(f"{path} is not a list of runs of version 1")
    try:
        for run in data["runs"]:
            if run["run"] in names:
                raise ValueError(f"{run['run']} is in {path} and in a folder of its own; remove one of them")
            about = [run[column] for column in COLUMNS[: COLUMNS.index("posed")]]
            own, none = f"{run['task']}-{run['format']}", (NOT_GIVEN, NOT_GIVEN, NOT_GIVEN)
            for row in run["accuracy"]:
                rows.append(
                    (*about, own, row["length"], row["mode"], row["metric"], row["value"], *none, run["prompts"])
                )
            for at in run["roles"]:
                rho = (at["value"], at["low"], at["high"], NOT_GIVEN)
                rows.append((*about, own, at["length"], "", f"rho {at['role']}", *rho, run["battery_prompts"]))
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path} lacks entries of a run: {error!r}") from error
    return rows


def runs_alike(folder: Path) -> list[Found]:
    """Return every run of a folder with its record and its first columns in the table.

    Raises `ValueError` where runs of one configuration differ in more than their seed and the precision of training.
    Precision depends on the machine; the table has a column of it.
    """
    first: dict[str, tuple[str, dict]] = {}
    runs = []
    for run in sorted(p.parent for p in folder.glob("*/run.json")):
        record = read_record(run)
        assert record is not None
        name, about = run.name, _about(run.name, record)
        other, theirs = first.setdefault(_configuration(about), (name, record))
        if text := recipe_differences(theirs, record):
            raise ValueError(
                f"{other} and {name} were trained differently ({text}); keep one of them in another folder"
            )
        runs.append((run, record, about))
    return runs


def differences(one: dict, other: dict) -> str:
    """Return the entries in which two recipes differ; "" for none.

    >>> differences({"steps": 50, "lr": 0.1}, {"steps": 3000, "lr": 0.1})
    'steps 50 and 3000'
    """
    return "; ".join(f"{k} {one.get(k)} and {other.get(k)}" for k in {**one, **other} if one.get(k) != other.get(k))


def recipe_differences(one: dict, other: dict) -> str:
    """Return the entries, apart from the seed, in which the recipes of two records differ; "" where one has none."""
    recipes = [{**recipe, "seed": None} for record in (one, other) if (recipe := record.get("recipe"))]
    return differences(*recipes) if len(recipes) == 2 else ""


def _configuration(about: dict[str, Any]) -> str:
    return f"{about['task']}-{about['format']}-{about['family']}"


def _judged(entry: dict[str, Any]) -> dict:
    """Return an entry of verdicts.json: the verdict over the seeds that learned, or why there is none."""
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
        learned, steps = bool(outcome["competent"]), int(outcome["steps"])
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{name}/run.json is not what `mnemoscope train` writes: {error!r}") from error
    return {
        "run": name,
        "task": task,
        "format": fmt,
        "family": family_of(recipe.kind),
        "seed": recipe.seed,
        "rehearsal": recipe.rehearsal,
        "trained_to": recipe.longest,
        "steps": steps,
        "precision": record.get("precision") or "",
        "learned": learned,
    }


def _read_run(run: Path, own: str) -> tuple[Battery | None, Verdict | None, list[tuple]]:
    """Return a run's battery, the verdict on it alone, and the columns after `learned` in its rows."""
    files = ("evaluation.json", "longer.json", "transfer.json", "battery.json")
    evaluation, longer, transfer, measured = results = [_result(run / name) for name in files]
    weights = {data["weights"]: name for name, data in zip(files, results, strict=True) if data and "weights" in data}
    if len(weights) > 1:
        raise ValueError(f"{run.name}: {' and '.join(weights.values())} are of different weights; remove the older")
    battery = battery_from_json(measured["battery"]) if measured else None
    alone = verdict(battery) if battery else None
    return battery, alone, list(_rows(own, evaluation, longer, transfer, battery, alone))


def _rows(
    own: str,
    evaluation: dict | None,
    longer: dict | None,
    transfer: dict | None,
    battery: Battery | None,
    alone: Verdict | None,
) -> Iterator[tuple]:
    """Yield posed, length, mode, metric, value, low, high, chance and n of each row."""
    for result in filter(None, (evaluation, longer)):
        for row in result["accuracy"]:
            yield own, row["length"], row["mode"], row["metric"], *_bounds(row), row["chance"], row["n"]
    if evaluation:
        for row in evaluation["offsets"]:
            offset = "none" if row["offset"] is None else f"{row['offset']:+d}"
            share = (row["share"], NOT_GIVEN, NOT_GIVEN)
            yield own, row["length"], "", f"offset {offset}", *share, NOT_GIVEN, evaluation["offset_prompts"]
    if transfer:
        for row in transfer["accuracy"]:
            yield row["posed"], row["length"], row["mode"], row["metric"], *_bounds(row), row["chance"], row["n"]
    if battery and alone:
        for at in alone.lengths:
            for role, what in at.roles.items():
                if isinstance(what.rho, Interval):
                    rho = (what.rho.value, what.rho.low, what.rho.high)
                    yield own, at.length, "", f"rho {role}", *rho, NOT_GIVEN, battery.prompts


def _bounds(row: dict) -> tuple[float, float, float]:
    return row["value"], row["low"], row["high"]


def _result(path: Path) -> dict | None:
    """Return a result beside a run; None where there is none yet."""
    return read_result(path) if path.exists() else None
