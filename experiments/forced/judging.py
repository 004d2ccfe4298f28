"""Judge the forced models by the battery and the verdict, and keep what they say beside the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence

from experiments.forced.checks import measure_truth
from experiments.forced.models import CASES, FOLDER, LENGTH, SEEDS, load_forced
from experiments.forced.tied import TIED, tie_labels
from experiments.support.console import say
from experiments.support.provenance import provenance_record
from interp import load
from interp.models import Run, read_json
from interp.support.writing import write_whole
from probes import battery, verdict
from probes.findings import MARGINS

FILE = FOLDER / "forced.json"
PROMPTS, SEED, SCHEMA = 128, 1, 1
# Evidence that is kept beside the statuses: the same quantities for all models.
KEPT = (
    ("identity", "largest effect"),
    ("content", "largest effect"),
    ("presence", "largest effect"),
    ("presence", "largest effect on margins"),
    ("M5", "history in V at labels"),
    ("M5", "the step's own bit in V at labels"),
    ("M6", "sink"),
    ("M6", "remove labels, all heads: renormalise"),
    ("M6", "remove labels, all heads: null"),
)
TIED_CASE = "tied"
# What one embedding for all labels forces, and the labels that agree with it.
TIED_ROLES = {"anchor": False, "placeholder": None, "sink": None}
TIED_RIGHT = ("placeholder", "sink", "mixed(placeholder, sink)", "unused")


def models() -> dict[str, tuple[str, str | int]]:
    """Return case and seed, or case and shipped run, of every model by its name in the file."""
    found: dict[str, tuple[str, str | int]] = {f"{TIED_CASE}, {name}": (TIED_CASE, name) for name in TIED}
    found.update({f"{name}, seed {seed}": (name, seed) for name in CASES for seed in SEEDS})
    return found


def judge_model(name: str, prompts: int = PROMPTS) -> dict:
    """Return the truth, the checks of it, and the verdict of one model, as a plain dictionary.

    Raises `ValueError` for an unknown name and for weights that are not there.
    """
    if name not in models():
        raise ValueError(f"unknown model {name!r}; models are {'; '.join(models())}")
    case, seed = models()[name]
    if case == TIED_CASE:
        run, roles, right = tie_labels(load(str(seed))), TIED_ROLES, TIED_RIGHT
        why, checked = "labels have one embedding", {}
    else:
        run, chosen = load_forced(case, int(seed)), CASES[case]
        roles, right, why, checked = chosen.roles, chosen.right, chosen.why, measure_truth(run)
    return {
        "case": case,
        "seed": seed,
        "forced": why,
        "roles": roles,
        "right": list(right),
        "checked": checked,
        **_verdict(run, prompts),
        "margins": MARGINS.version,
        "provenance": provenance_record(command=f"python -m experiments.forced judge '{name}'"),
    }


def _verdict(run: Run, prompts: int) -> dict:
    found = verdict(battery(run, (LENGTH,), SEED, prompts, forced=True))
    (at,) = found.lengths
    kept = {
        f"{e.arm}: {e.name}": {"value": e.value.to_json(), "control": e.control and e.control.to_json()}
        for e in at.evidence
        if (e.arm, e.name) in KEPT
    }
    return {
        "length": LENGTH,
        "prompts": prompts,
        "accuracy": {f"{a.mode} {a.metric}": a.estimate.value for a in at.accuracy},
        "label": found.label,
        "statuses": {role: finding.status.value for role, finding in found.roles.items()},
        "findings": {role: finding.to_json() for role, finding in at.roles.items()},
        "unexplained": dict(at.unexplained),
        "evidence": kept,
    }


def read_forced() -> dict[str, dict]:
    """Return the judged models by name. Raises `ValueError` for another schema."""
    data = read_json(FILE)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{FILE} is not of schema {SCHEMA}")
    return data["models"]


def judge_all(names: Sequence[str] = ()) -> None:
    """Judge models, by default all, and write each into `FILE` when it is done."""
    for name in names or models():
        row = judge_model(name)
        done = {**(read_forced() if FILE.is_file() else {}), name: row}
        data = {"schema": SCHEMA, "models": {n: done[n] for n in models() if n in done}}
        write_whole(FILE, json.dumps(data, indent=1) + "\n")
        say(f"{name}: {row['label']} ({', '.join(f'{r} {s}' for r, s in row['statuses'].items())})")
