"""The work folder of a training: which recipe, versions and threads it belongs to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.support.provenance import provenance_record, warn_versions
from experiments.training.recipe import Recipe
from interp.models import read_json
from interp.support.writing import write_whole


def what_differs(begun: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return the entries in which two recipes differ, as text.

    >>> what_differs({"steps": 1200, "seed": 0}, {"steps": 1300, "seed": 0})
    'steps 1200 there, 1300 now'
    """
    names = [name for name in {**begun, **ours} if begun.get(name) != ours.get(name)]
    return "; ".join(f"{name} {begun.get(name)} there, {ours.get(name)} now" for name in names)


def claim(
    work: Path, recipe: Recipe, precision: str, processes: int = 1, kernels: dict[str, Any] | None = None
) -> None:
    """Write the recipe into the work folder, or check that the one in it is the same. `kernels`: other than usual."""
    setup = {"threads": torch.get_num_threads(), "precision": precision}
    if processes > 1:  # each has its own data
        setup["processes"] = processes
    setup |= kernels or {}
    wanted = {**recipe.to_json(), **setup, "versions": provenance_record()["versions"]}
    path = work / "recipe.json"
    if not path.exists():
        write_whole(path, json.dumps(wanted, indent=1) + "\n")
        return
    begun, ours = read_json(path), json.loads(json.dumps(wanted))
    if not isinstance(begun, dict):
        raise ValueError(f"{path} is not a recipe; remove {work} or choose another --out")
    versions = {"versions": begun.pop("versions", None)}
    del ours["versions"]
    if begun != ours:
        differ = what_differs(begun, ours)
        raise ValueError(f"{work} is of another recipe ({differ}); remove it or choose another --out")
    warn_versions(f"{work.name}, resumed,", versions)
    for stale in work.glob(".step-*"):  # left by a process that was killed
        shutil.rmtree(stale)
