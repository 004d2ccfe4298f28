"""Check that a result file beside a run is of these weights, and with which options it was made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.commands.circuit import CircuitCommand
from experiments.commands.evaluate import EvaluateCommand
from experiments.reporting.schema import ROLES, SCHEMAS, mismatch
from experiments.support.finished import LARGEST, one_length, why_other_rules, why_other_run, why_other_weights
from experiments.support.provenance import warn_versions
from experiments.support.reading import UNREAD, dtype_of
from experiments.support.results import device_and_dtype, usual_folder
from experiments.support.verdict_defaults import PROMPTS, default_lengths, fits, usual_prompts
from interp.models import read_json
from interp.models.names import SHIPPED
from interp.support.printable import visible
from interp.tasks.limits import shown
from probes.limits import FEWEST_PROMPTS

if TYPE_CHECKING:
    from interp.models import Run

# Options that do not change a result.
HARMLESS = ("name", "names", "runs", "out", "json", "format", "memory", "fresh", "evidence")
# Options of verdict and evaluation that change how much is measured; the file itself holds them.
SIZES = ("lengths", "prompts", "offset-lengths")
# Precisions in which weights differ from those that were saved in float32.
HALF = ("bfloat16", "float16")
# Largest relative difference of a number that is measured again on another machine.
CLOSE = 2e-3


def stored_result(run: Run, verb: str, name: str, seed: int) -> tuple[dict | None, str, str]:
    """Return a stored result, its place and how its size is unusual; or None, "" and why an existing file was not used.

    Searches the run's own folder, then its folder of results. Lengths and prompts other than the default ones are
    accepted only in the run's own folder, so that what ships with weights is shown.
    """
    why = ""
    for folder in (Path(run.source), usual_folder(run)):
        path = folder / name
        if not path.exists():
            continue
        where = f"experiments/runs/{run.name}/{name}" if folder.parent == SHIPPED else f"{folder.name}/{name}"
        try:
            data = read_json(path, LARGEST)
            reason = why_not(run, verb, data, seed)
            size = "" if reason else unusual_size(run, verb, data)
        except ValueError:  # not JSON, or numbers that cannot be measured again
            reason, size = UNREAD, ""
        if size and folder != Path(run.source):
            reason = f"it has {size}"
        if not reason:
            warn_versions(where, data["provenance"])
            return data, where, f"{where} has {size}. `--fresh` measures with the usual numbers." if size else ""
        why = f"{where} was not used: {visible(reason)}."  # names in a file may have line breaks and control codes
    return None, "", why


def why_not(run: Run, verb: str, data: dict, seed: int) -> str:
    """Return why a result cannot replace a new one with the default options, or with other sizes; "" if it can."""
    if reason := why_other_run(run, data, seed):
        return reason
    if changed := _changed(verb, data):
        return f"it was made with {changed}"
    here = device_and_dtype(run)["dtype"]
    if (dtype := dtype_of(data)) not in (None, here):
        return f"it was made with dtype {dtype[:80]}, not {here}"
    if verb == "verdict" and (reason := why_other_rules(data)):
        return reason
    if wrong := mismatch(data, SCHEMAS[verb]) or _inside(run, verb, data):
        return f"{UNREAD}: {wrong}"
    if verb == "verdict" and data["models"] != [run.name]:
        return "it is of several models together"
    reason = ""
    if "weights" in data:
        reason = why_other_weights(run, data["weights"])
    elif not _same_when_repeated(run, verb, data):
        reason = "a number in it differs when it is measured again: the weights have changed since"
    if reason and run.placement[1] is not None and here in HALF:  # --dtype; a file of old versions names no dtype
        return f"it is of other weights, or of these before they were cast to {here}"
    return reason


def _inside(run: Run, verb: str, data: dict) -> str:
    """Return an inconsistency in a result that matches its schema; "" if row is none."""
    match verb:
        case "verdict":
            if data["prompts"] < FEWEST_PROMPTS:
                return f"it has {data['prompts']} prompts, fewer than {FEWEST_PROMPTS}"
            lengths = [at["length"] for at in data["by_length"]]
            if not lengths or not all(fits(run, one_length(n)) for n in lengths):
                return f"its lengths are {shown(lengths)}"
            sides = [at["roles"] for at in (data, *data["by_length"])]
            if unknown := {name for roles in sides for name in roles} - set(ROLES):
                return f"it has an unknown role, {shown(min(unknown))}"
            cells = [role for roles in sides for role in roles.values()]
            cells += [role["margins"] for role in cells if "margins" in role]
            if any(cell["ci"] is not None and len(cell["ci"]) != 2 for cell in cells):
                return "an interval does not have two bounds"
            if any(one_length(e["length"]) not in map(one_length, lengths) for e in data["evidence"]):
                return "it has evidence of other lengths"
        case "evaluate":
            if data["prompts"] < 2:
                return f"it has {data['prompts']} prompts, fewer than 2"
            lengths = [row["length"] for row in data["accuracy"]]
            if not lengths or not all(fits(run, one_length(n)) for n in lengths):
                return f"its lengths are {shown(lengths)}"
            if not any(row["metric"] == "step" for row in data["accuracy"]):
                return "it has no step accuracy"
        case _:
            from interp.circuits import circuit_from_json

            n = data["options"]["length"]
            if not data["lengths"] or not set(data["lengths"]) <= {str(m) for m in (n, n * 3 // 2, n * 2)}:
                return f"its lengths are {shown([*data['lengths']])}"
            heads = {f"L{layer}H{head}" for layer, head in circuit_from_json(data["circuit"]).heads()}
            if unknown := set(data["heads"]) - heads:
                return f"its circuit has no head {shown(min(unknown))}"
            for line in data["curves"].values():
                if len({len(line[name]) for name in ("sizes", "values", "low", "high")}) > 1:
                    return "a curve has different numbers of values and sizes"
    return ""


def unusual_size(run: Run, verb: str, data: dict) -> str:
    """Return how prompts and lengths of a result differ from the default ones: "24 prompts, not 128"; "" for neither.

    An evaluation may lack some of the default lengths. Options of circuits are compared by `why_not`.
    """
    if verb == "circuit":
        return ""
    usual = EvaluateCommand(())
    prompts = {PROMPTS, usual_prompts([run])} if verb == "verdict" else {usual.prompts}
    rows = data["by_length"] if verb == "verdict" else data["accuracy"]
    lengths = list(dict.fromkeys(one_length(row["length"]) for row in rows))
    default = default_lengths(run) if verb == "verdict" else usual.lengths_of(run)
    texts = []
    if data["prompts"] not in prompts:
        texts.append(f"{data['prompts']} prompts, not {min(prompts)}")
    if lengths != [*default] if verb == "verdict" else not set(lengths) <= set(default):
        texts.append(f"lengths {_listed(lengths)}, not {_listed(default)}")
    return "; ".join(texts)


def _listed(lengths: Sequence[int]) -> str:
    return " ".join(map(str, lengths[:20]))


def _changed(verb: str, data: dict) -> str:
    """Return the options that differ from the defaults, other than sizes, by the stored options or by the command."""
    if verb == "circuit" and isinstance(data.get("options"), dict):
        usual = {k: v for k, v in asdict(CircuitCommand(data["run"])).items() if k not in (*HARMLESS, "seed")}
        stored = {k: tuple(v) if isinstance(v, list) else v for k, v in data["options"].items()}
        return ", ".join(f"--{k} {stored[k]}" for k, v in usual.items() if k in stored and stored[k] != v)
    arguments = str(data["provenance"].get("command")).split()
    if arguments[1:2] == ["sweep"]:  # a sweep's options select models; each is evaluated with the defaults
        return ""
    placed = () if dtype_of(data) is None else ("device", "dtype")  # compared, or shown as its origin
    harmless = (*HARMLESS, *(() if verb == "circuit" else SIZES), *placed, "seed", "workers")
    return ", ".join(w for w in arguments if w.startswith("--") and w.removeprefix("--").split("=")[0] not in harmless)


def _same_when_repeated(run: Run, verb: str, data: dict) -> bool:
    """Return whether one number of a result is the same when measured again; for results without a weights digest."""
    match verb:
        case "verdict":
            return _verdict_again(run, data)
        case "evaluate":
            row = max((r for r in data["accuracy"] if r["metric"] == "step"), key=lambda r: r["length"])
            batch = run.sample(data["prompts"], row["length"], seed=1000 * data["seed"] + row["length"])
            return _same_accuracy(run, batch, row)
        case _:
            from experiments.circuit_search import at_length
            from interp.circuits import circuit_from_json

            n, worth = next(iter(data["lengths"].items()))
            options = CircuitCommand(run.name, prompts=data["options"]["prompts"], seed=data["seed"]).search_options()
            length = (int(n), int(n)) if run.format.task == "addition" else int(n)
            again = at_length(run, circuit_from_json(data["circuit"]), options, length)
            return _close(again["margin_full"], worth["margin_full"]) and _close(again["values"], worth["values"])


def _verdict_again(run: Run, data: dict) -> bool:
    """Measure the first arm of a verdict again, or its competence if it has no arms."""
    from probes import battery, verdict
    from probes.arms.registry import keys_of
    from probes.evidence import find_rows, parse_key

    first = data["by_length"][0]
    length: Any = tuple(first["length"]) if isinstance(first["length"], list) else first["length"]
    at = [e for e in data["evidence"] if e["length"] == first["length"]]
    arms = (at[0]["arm"],) if at else ("M1",)
    again = verdict([battery(run, (length,), data["seed"], data["prompts"], False, arms)]).to_json()
    if at:
        now = find_rows(again["evidence"], parse_key(at[0]["arm"], at[0]["name"], keys_of()))
        return bool(now) and _close(now[0]["value"]["value"], at[0]["value"]["value"])
    pairs = zip(first["accuracy"], again["by_length"][0]["accuracy"], strict=True)
    return all(_close(a["value"], b["value"]) for a, b in pairs)


def _same_accuracy(run: Run, batch, row: dict) -> bool:  # type: ignore[no-untyped-def]
    from probes.competence import accuracies

    rows = accuracies(run.raw, batch, row["mode"])
    return any(r.metric == row["metric"] and _close(r.estimate.value, row["value"]) for r in rows)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)
