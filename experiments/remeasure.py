"""Measure some arms of stored batteries again, where an arm has changed and the weights are still there.

    python -m experiments.remeasure presence,identity parity-aligned-alibi-seed3

A run's battery.json holds what `mnemoscope sweep --stages battery` measured. The file is replaced in place, even where
it is a committed one of experiments/zoo; `--out DIR` writes DIR/<run>/battery.json instead. New evidence of the arms
replaces the old at the same place in the list, and other evidence does not change: an arm draws its prompts by its own
seeds, so it gives the same numbers alone. Arms that are measured together (M1, M2 and M3) are replaced together.
"measured_later" in the file names the arms, with their own record. `mnemoscope sweep` gathers the results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import load
from experiments.support.console import one_line, say, silence_libraries, warn
from experiments.support.provenance import provenance_record, reporting_versions
from experiments.support.reading import read_result
from experiments.support.results import check_files, device_and_dtype, weights_of, writable_folder
from interp.models.names import source_of
from interp.models.run import Run
from interp.support.exactness import Inexact
from interp.support.writing import write_whole
from probes.arms.registry import ARMS, keys_of
from probes.batteries import Battery, Measured, battery
from probes.evidence import Evidence
from probes.serialization import battery_from_json, battery_to_json

FILE = "battery.json"


def remeasured(run: Run, stored: Battery, codes: Collection[str]) -> Battery:
    """Return a stored battery of a run with some arms measured again, at the lengths that have evidence.

    At each of them the evidence is that of a fresh battery with the same arms. Raises `ValueError` where no length has
    evidence, where a length is refused now, and for an arm that can be measured at none of the lengths.
    """
    lengths: list[Any] = [at.length for at in stored.measured if at.evidence]
    if not lengths:
        raise ValueError(f"the battery of {stored.name} has no evidence, so no arm can be measured again")
    arms = measured_with(codes)
    fresh = battery(run, lengths, stored.seed, stored.prompts, forced=True, arms=arms, competence=None)
    by_length = {at.length: at for at in fresh.measured}
    for at in fresh.measured:
        if at.refusal is not None:
            raise ValueError(f"length {at.length} of {stored.name} is refused now: {at.refusal}")
    for code in codes:
        reasons = [_why_skipped(at, code) for at in fresh.measured]
        if all(reasons):
            raise ValueError(f"{code} cannot be measured on {stored.name}: {reasons[0]}")
    measured = (_renewed(at, by_length[at.length], arms) if at.evidence else at for at in stored.measured)
    return replace(stored, measured=tuple(measured))


def measured_with(codes: Collection[str]) -> tuple[str, ...]:
    """Return the codes of all arms that are measured together with some arms, in the order of the registry."""
    measures = {ARMS[code].measure for code in codes}
    return tuple(code for code, arm in ARMS.items() if arm.measure in measures)


def with_new_evidence(evidence: Sequence[Evidence], new: Sequence[Evidence], code: str) -> tuple[Evidence, ...]:
    """Return the evidence of one length with that of an arm, and of the arms that are measured with it, replaced.

    Old evidence is found by its arm and its name before the layer or head is filled in. The new evidence stands where
    the first piece of the old stood, and at the end where there was none.
    """
    families = set(keys_of({code: ARMS[code] for code in measured_with([code])}))

    def is_own(piece: Evidence) -> bool:
        return replace(piece.key, place=None) in families

    start = next((k for k, piece in enumerate(evidence) if is_own(piece)), len(evidence))
    after = [piece for piece in evidence[start:] if not is_own(piece)]
    return (*evidence[:start], *(piece for piece in new if is_own(piece)), *after)


def _renewed(stored: Measured, fresh: Measured, codes: Collection[str]) -> Measured:
    """Return what was stored at a length, with the arms `codes` as a fresh battery measured them."""
    evidence = stored.evidence
    for code in codes:
        evidence = with_new_evidence(evidence, fresh.evidence, code)
    left_out = stored.left_out | fresh.left_out
    kept = {code: why for code, why in left_out.items() if code in fresh.left_out or code not in codes}
    return replace(stored, evidence=evidence, left_out=kept)


def _why_skipped(at: Measured, code: str) -> str | None:
    """Return why a fresh battery did not measure an arm at a length; None where it did."""
    return at.left_out.get(code) or (at.no_address if ARMS[code].needs_address else None)


def update_battery(name: str, codes: Collection[str], out: Path | None = None) -> str:
    """Measure arms of one run's battery again and write it; return a line that names the file.

    `out`: folder that gets <run>/battery.json; None replaces the run's own file. Raises the errors of `stored_at`,
    `ValueError` where the battery is of other weights, and as `remeasured`.
    """
    path = stored_at(name, out)
    folder = path.parent
    data, run = read_result(path), load(name, None, None, "cpu")
    if data.get("weights") != weights_of(run):
        raise ValueError(f"{path} is of other weights than {name} has now; measure the whole battery again")
    stored = battery_from_json(data.get("battery") or {})
    target = path if out is None else writable_folder(out / _name_of(folder)) / FILE
    check_files([target])
    data["battery"] = battery_to_json(remeasured(run, stored, codes))
    command = f"python -m experiments.remeasure {','.join(codes)} {Path(name).name}"
    made = provenance_record(**device_and_dtype(run)) | {"command": command}
    data["measured_later"] = data.get("measured_later", {}) | dict.fromkeys(measured_with(codes), made)
    what = "replaced" if target.exists() else "written"
    write_whole(target, json.dumps(data) + "\n")
    lengths = ", ".join(str(at.length) for at in stored.measured if at.evidence)
    return f"{target}: {what}, with {', '.join(measured_with(codes))} measured again at lengths {lengths}"


def stored_at(name: str, out: Path | None) -> Path:
    """Return the file of a run's battery.

    Raises `ValueError` for an unknown run, one without a battery, and where the result cannot be written, and `OSError`
    where the disk is full.
    """
    folder = Path(source_of(name))
    if not folder.is_dir():
        raise ValueError(f"unknown run {name!r}; give a name of the zoo or a folder with {FILE}")
    if not (folder / FILE).is_file():
        raise ValueError(f"{name} has no {FILE}; mnemoscope sweep measures one, of the runs of its grid")
    writable_folder(folder if out is None else out)
    return folder / FILE


def _name_of(folder: Path) -> str:
    return folder.resolve().name


def _check_names(runs: Sequence[str]) -> None:
    """Raise `ValueError` where two runs would be written to the same folder of `--out`."""
    names = Counter(_name_of(Path(source_of(run))) for run in runs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"two runs have the name {twice[0]}, and --out has one folder per name; name one of them")


def _codes(text: str) -> tuple[str, ...]:
    """Return the codes of arms that a text lists, separated by commas."""
    codes = tuple(dict.fromkeys(text.split(",")))
    if "" in codes:
        raise argparse.ArgumentTypeError(f"an arm is missing beside a comma; arms are {', '.join(ARMS)}")
    if unknown := [code for code in codes if code not in ARMS]:
        raise argparse.ArgumentTypeError(f"unknown arms {', '.join(unknown)}; arms are {', '.join(ARMS)}")
    return codes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.remeasure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("codes", metavar="ARM[,ARM]", type=_codes, help=f"codes of arms: {', '.join(ARMS)}")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="name or folder of a run with weights and battery.json")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for <run>/battery.json; default: in place")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure arms in each run again; return 2 for bad input, in one line.

    Files are checked before anything is measured. Runs before one that cannot be measured are written.
    """
    chosen = _parser().parse_intermixed_args(arguments)
    silence_libraries()
    try:
        if chosen.out is not None:
            _check_names(chosen.runs)
        for name in chosen.runs:
            stored_at(name, chosen.out)
        with reporting_versions():
            for name in chosen.runs:
                say(update_battery(name, chosen.codes, chosen.out))
    except (OSError, ValueError, Inexact) as error:
        warn(one_line(error))
        return 2
    except KeyboardInterrupt:
        warn("interrupted; runs that were reported are written, and the same command measures all runs again")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
