"""Is a result file that lies beside a run of this run, of these weights, and made with the default options?"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.circuit import Circuit
from experiments.names import OUT, SHIPPED
from experiments.results import weights_of

if TYPE_CHECKING:
    from interp.models import Run

# What says where a result goes or how it is printed, and not what is in it.
HARMLESS = ("name", "names", "runs", "out", "json", "format")
# Numbers are found again to this on another machine.
CLOSE = 2e-3


def found_beside(run: Run, verb: str, name: str, seed: int) -> tuple[dict | None, str, str]:
    """A result of a run, where it lies, and for one that lies there but is not used, why not.

    Looked for in the run's own folder, then in its folder of results.
    """
    why = ""
    for folder in (Path(run.source), OUT / run.name):
        path = folder / name
        if not path.is_file():
            continue
        where = f"experiments/runs/{run.name}/{name}" if folder.parent == SHIPPED else f"{folder.name}/{name}"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            reason = why_not(run, verb, data, seed)
        except (KeyError, TypeError, AttributeError, ValueError, StopIteration):
            reason = "it is no result file that this version reads"
        if not reason:
            return data, where, ""
        why = f"{where} was not used: {reason}."
    return None, "", why


def why_not(run: Run, verb: str, data: dict, seed: int) -> str:
    """Why a result cannot stand for one made now with the default options; "" where it can."""
    if data["run"] != run.name or data["format"] != str(run.format):
        return f"it is of {data['run']}, posed {data['format']}"
    if data["seed"] != seed:
        return f"its seed is {data['seed']}, not {seed}"
    if changed := _changed(verb, data):
        return f"it was made with {changed}"
    if verb == "verdict":
        from probes.findings import MARGINS

        if data["margins"]["version"] != MARGINS.version:
            return f"its margins are those of {data['margins']['version']}, not of {MARGINS.version}"
        if data["models"] != [run.name]:
            return "it is of several models together"
    if "weights" in data:
        return "" if data["weights"] == weights_of(run) else "the weights have changed since"
    if not _found_again(run, verb, data):
        return "a number of it, measured again, is another: the weights have changed since"
    return ""


def _changed(verb: str, data: dict) -> str:
    """Options that are not the defaults: from the options kept with the result, or from its command."""
    if "options" in data:
        usual = {k: v for k, v in asdict(Circuit(data["run"])).items() if k not in (*HARMLESS, "seed")}
        there = {k: tuple(v) if isinstance(v, list) else v for k, v in data["options"].items()}
        return ", ".join(f"--{k} {there[k]}" for k, v in usual.items() if k in there and there[k] != v)
    words = data["provenance"]["command"].split()
    harmless = (*HARMLESS, "seed", "workers")
    return ", ".join(w for w in words if w.startswith("--") and w.removeprefix("--").split("=")[0] not in harmless)


def _found_again(run: Run, verb: str, data: dict) -> bool:
    """For results that do not name their weights: whether one number of them is the same when it is measured again."""
    match verb:
        case "verdict":
            return _verdict_again(run, data)
        case "evaluate":
            there = max((r for r in data["accuracy"] if r["metric"] == "step"), key=lambda r: r["length"])
            batch = run.sample(data["prompts"], there["length"], seed=1000 * data["seed"] + there["length"])
            return _same_accuracy(run, batch, there)
        case _:
            from experiments.circuit_search import at_length
            from interp.circuits import circuit_from_json

            n, worth = next(iter(data["lengths"].items()))
            options = Circuit(run.name, prompts=data["options"]["prompts"], seed=data["seed"])
            length = (int(n), int(n)) if run.format.task == "addition" else int(n)
            again = at_length(run, circuit_from_json(data["circuit"]), options, length)
            return _close(again["margin_full"], worth["margin_full"]) and _close(again["values"], worth["values"])


def _verdict_again(run: Run, data: dict) -> bool:
    """The first arm of the verdict, or its competence where there are no arms."""
    from probes import battery, verdict

    first = data["by_length"][0]
    length: Any = tuple(first["length"]) if isinstance(first["length"], list) else first["length"]
    at = [e for e in data["evidence"] if e["length"] == first["length"]]
    arms = (at[0]["arm"],) if at else ("M1",)
    again = verdict([battery(run, (length,), data["seed"], data["prompts"], False, arms)]).to_json()
    if at:
        now = next((e for e in again["evidence"] if (e["arm"], e["name"]) == (at[0]["arm"], at[0]["name"])), None)
        return now is not None and _close(now["value"]["value"], at[0]["value"]["value"])
    pairs = zip(first["accuracy"], again["by_length"][0]["accuracy"], strict=True)
    return all(_close(a["value"], b["value"]) for a, b in pairs)


def _same_accuracy(run: Run, batch, there: dict) -> bool:  # type: ignore[no-untyped-def]
    from probes.competence import accuracies

    rows = accuracies(run.raw, batch, there["mode"])
    return any(r.metric == there["metric"] and _close(r.estimate.value, there["value"]) for r in rows)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)
