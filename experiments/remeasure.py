"""Measure some arms of stored batteries again, where an arm has changed and the weights are still there.

    python -m experiments.remeasure presence RUN [RUN ...]

The other evidence stays as it is: an arm draws its prompts by its own seeds, so it gives the same numbers alone.
`battery.json` of each run keeps the record of the whole battery, and names the arms that were measured later, with
their own record. `mnemoscope sweep` gathers the results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from experiments import load
from experiments.support.console import say, warn
from experiments.support.provenance import provenance_record
from experiments.support.reading import read_result
from experiments.support.results import device_and_dtype, weights_of
from interp.models.names import source_of
from interp.models.run import Run
from interp.support.writing import write_whole
from probes.arms.registry import ARMS, keys_of
from probes.batteries import Battery, inputs_of
from probes.serialization import battery_from_json, battery_to_json

FILE = "battery.json"


def remeasured(run: Run, stored: Battery, codes: Collection[str]) -> Battery:
    """Return a stored battery of a run with the evidence of some arms measured again, at the lengths that have any."""
    keys = set(keys_of({code: ARMS[code] for code in codes}))
    measures = dict.fromkeys(ARMS[code].measure for code in codes)
    measured = []
    for at in stored.measured:
        if at.evidence:
            inputs = inputs_of(run, at.length, stored.seed, stored.prompts, {})
            found = [e for measure in measures for e in measure(inputs)]
            old = [k for k, e in enumerate(at.evidence) if e.key in keys]
            start = min(old, default=len(at.evidence))
            rest = [e for e in at.evidence[start:] if e.key not in keys]
            at = replace(at, evidence=(*at.evidence[:start], *found, *rest))
        measured.append(at)
    return replace(stored, measured=tuple(measured))


def update_battery(name: str, codes: Collection[str]) -> Path:
    """Measure arms of one run's battery again and write it; return its file.

    Raises `ValueError` where the run has no battery, or the battery is of other weights.
    """
    path = Path(source_of(name)) / FILE
    if not path.is_file():
        raise ValueError(f"{name} has no {FILE}; mnemoscope sweep --stages battery measures one")
    data, run = read_result(path), load(name, None, None, "cpu")
    if data["weights"] != weights_of(run):
        raise ValueError(f"{path} is of other weights than {name} has now; measure the whole battery again")
    data["battery"] = battery_to_json(remeasured(run, battery_from_json(data["battery"]), codes))
    command = f"python -m experiments.remeasure {','.join(codes)} {name}"
    made = provenance_record(**device_and_dtype(run)) | {"command": command}
    data["measured_later"] = data.get("measured_later", {}) | dict.fromkeys(codes, made)
    write_whole(path, json.dumps(data) + "\n")
    return path


def main(arguments: list[str]) -> int:
    """Measure the arms of the first argument, separated by commas, in each run again; return 2 for bad input."""
    codes, *names = arguments or [""]
    wanted = codes.split(",")
    if not names or (unknown := sorted(set(wanted) - set(ARMS))):
        say("python -m experiments.remeasure ARM[,ARM] RUN [RUN ...]")
        warn(f"unknown arms {', '.join(unknown)}; arms are {', '.join(ARMS)}" if names else "name at least one run")
        return 2
    try:
        for name in names:
            say(update_battery(name, wanted))
    except ValueError as error:
        warn(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
