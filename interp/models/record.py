"""`run.json`, the record beside a run's weights: task, format, vocabulary, recipe, outcome and provenance."""

from __future__ import annotations

import json
from pathlib import Path

from interp.models.checking import one_line, read_json
from interp.tasks.limits import MOST_POSITIONS, shown

RECORD = "run.json"
RECORD_VERSION = 1
LARGEST_RECORD = 2**26
# Entries that a record must have, and those of its recipe that are read; others are kept.
NEEDED = ("format", "vocabulary")
TRAINING = {"longest": int, "rehearsal": (int, float), "rehearsal_longest": int}


def write_record(folder: Path, record: dict) -> None:
    """Write `run.json` into a folder."""
    text = json.dumps({"version": RECORD_VERSION, **record}, indent=1, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict | None:
    """Return the contents of `run.json`; None for a folder without one. Raises `ValueError` for a damaged one."""
    path = folder / RECORD
    if not path.exists() and not path.is_symlink():
        return None
    try:
        record = read_json(path, LARGEST_RECORD)
    except ValueError as error:
        raise ValueError(f"{path} is not a run record: {one_line(error)}") from error
    if not isinstance(record, dict) or "version" not in record:
        raise ValueError(f"{path} is not a run record: it has no version")
    version = record["version"]
    if version != RECORD_VERSION or type(version) is not int:
        raise ValueError(f"{path} has version {shown(version)}; this mnemoscope reads version {RECORD_VERSION}")
    if missing := [key for key in NEEDED if key not in record]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    if not isinstance(record["format"], str):
        raise ValueError(f"{path} is not a run record: the format is not a name")
    recipe = record.get("recipe", {})
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is not a run record: the recipe is {shown(recipe)}")
    for key, kind in TRAINING.items():
        if key in recipe and (not isinstance(recipe[key], kind) or not 0 <= recipe[key] <= MOST_POSITIONS):
            raise ValueError(f"{path} is not a run record: the recipe's {key} is {shown(recipe[key])}")
    if not isinstance(condition := recipe.get("condition", ""), str):
        raise ValueError(f"{path} is not a run record: the recipe's condition is {shown(condition)}")
    if recipe.get("rehearsal") and "rehearsal_longest" not in recipe:
        raise ValueError(f"{path} is not a run record: the recipe has rehearsal but no rehearsal_longest")
    return record
