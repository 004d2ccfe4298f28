"""Add a round of outsiders' models to a results file: their builders' written truths beside the verdicts.

    python -m experiments.outsiders 8 truths.json verdicts/

The rows of the round in experiments/results/outsiders.json, a committed file, are replaced in place; `--out FILE`
changes another file instead. truths.json holds what the builder of each model wrote down before any verdict:

    {"two_readers": {"architecture": "GPT-2", "right": ["anchor"],
                     "roles": {"anchor": true, "placeholder": false, "sink": null}}}

"right" lists the labels that are right, ["unresolved"] where none is. A role is true, false, or null for a matter of
definition. verdicts/two_readers/verdict.json is what `mnemoscope verdict` wrote. Models that have none were not judged,
and are named. `--again`: the rules of these verdicts were changed after the round was known, so its rows are listed
apart, and the blind ones stay. Verdicts on models that truths.json lacks are named, and not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeGuard

from experiments.support.console import one_line, say, warn
from experiments.support.provenance import reporting_versions
from experiments.support.reading import read_result
from experiments.tables.outsiders import OUTSIDERS, read_outsiders
from interp.models import read_json
from interp.support.writing import write_whole
from interp.tasks.limits import is_whole, shown
from probes.error_rates import OPEN
from probes.findings import ROLES, SCHEMA
from probes.statuses import Status

# Every label that a verdict may have.
MIXED = tuple(f"mixed({', '.join(some)})" for count in (2, 3) for some in combinations(ROLES, count))
LABELS = (*ROLES, *MIXED, "unused", *OPEN)
ENTRY = ("architecture", "right", "roles")


def read_truths(path: Path) -> dict[str, dict]:
    """Return what the builders of a round's models wrote down, by the model's name.

    Raises `ValueError`, in one line that says what would be right, for a file that cannot be read, a name that is no
    folder's, and an entry that lacks a key or has a value that the table cannot count.
    """
    truths = read_json(path)
    if not isinstance(truths, dict) or not truths:
        raise ValueError(f"{path} is {shown(truths)}; write an object with one entry per model")
    for name, truth in truths.items():
        if not name.isprintable() or Path(name).name != name or name in ("", ".."):
            raise ValueError(f"{path}: {shown(name)} is not the name of a folder of verdicts")
        if why := _why_wrong(truth):
            raise ValueError(f"{path}: {name} {why}")
    return truths


def _why_wrong(truth: object) -> str:
    """Return what is wrong with the truth about one model, and what would be right; "" for a good one."""
    if not _has_keys(truth, ENTRY) or not _has_keys(truth["roles"], ROLES):
        return f"needs {', '.join(ENTRY[:-1])}, and roles with {', '.join(ROLES)}, and nothing else"
    architecture, right, roles = (truth[key] for key in ENTRY)
    if not isinstance(architecture, str) or not architecture.strip():
        return f'has "architecture": {_json(architecture)}; write a text, such as "GPT-2"'
    if not isinstance(right, list) or not right or not all(isinstance(label, str) for label in right):
        return f'has "right": {_json(right)}; write a list of labels, such as ["anchor"]'
    if unknown := [label for label in right if label not in LABELS]:
        return f'has the unknown label {_json(unknown[0])} in "right"; labels are {"; ".join(LABELS)}'
    for role, value in roles.items():
        if value is not None and not isinstance(value, bool):
            return f'has "{role}": {_json(value)}; write true, false, or null for a matter of definition'
    return ""


def _has_keys(value: object, keys: Sequence[str]) -> TypeGuard[dict]:
    return isinstance(value, dict) and set(value) == set(keys)


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def judged_models(number: int, truths: Path, verdicts: Path, blind: bool = True) -> tuple[list[dict], list[str]]:
    """Return the rows of a round's judged models, in the order of the truths, and the names of those without a verdict.

    `blind` says whether the rules of the verdict are from before the round. Raises `ValueError` as `read_truths`, for a
    file that is no verdict of this version, and where no model has a verdict.
    """
    known = read_truths(truths)
    if not verdicts.is_dir():
        raise ValueError(f"{verdicts} is not a folder; it should hold NAME/verdict.json of each model of {truths}")
    paths = {name: verdicts / name / "verdict.json" for name in known}
    judged = {name: path for name, path in paths.items() if path.is_file()}
    if not judged:
        example = next(iter(paths.values()))
        raise ValueError(f"{verdicts} has no verdict on a model of {truths}: there is no {example}, for one")
    rows = [_row(number, name, known[name], blind, _verdict(path)) for name, path in judged.items()]
    return rows, [name for name in known if name not in judged]


def without_truth(truths: Path, verdicts: Path) -> list[str]:
    """Return the names of the models that have a verdict and no entry in the truths. Raises as `read_truths`."""
    known = read_truths(truths)
    return sorted(path.parent.name for path in verdicts.glob("*/verdict.json") if path.parent.name not in known)


def _verdict(path: Path) -> dict:
    """Return the entries of a row that a verdict gives. Raises `ValueError` for a file that is no verdict."""
    found = read_result(path)
    if not is_whole(found.get("schema")) or found["schema"] != SCHEMA:
        raise ValueError(f"{path} is no verdict of schema {SCHEMA}; judge the model again with mnemoscope verdict")
    try:
        verdict = {
            "label": found["verdict"],
            "statuses": {role: str(Status(found["roles"][role]["status"])) for role in ROLES},
            "reasons": {role: str(found["roles"][role]["reason"]) for role in ROLES},
            "margins": str(found["margins"]["version"]),
            "commit": found["provenance"]["commit"],
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is a damaged verdict: {error!r}") from error
    if verdict["label"] not in LABELS:
        raise ValueError(f"{path} is a damaged verdict: its label is {shown(verdict['label'])}")
    return verdict


def _row(number: int, name: str, truth: dict, blind: bool, verdict: dict) -> dict:
    return {
        "round": number,
        "family": name.replace("_", " "),
        "architecture": truth["architecture"],
        "blind": blind,
        "right": truth["right"],
        "roles": truth["roles"],
        **verdict,
    }


def replace_round(file: Path, number: int, rows: Sequence[dict], blind: bool) -> int:
    """Write the rows of a round, blind or judged again, in place of those that the file had; return how many it had.

    A file that does not exist starts empty. Raises `ValueError` for a file of another schema.
    """
    old = read_outsiders(file) if file.exists() else []
    kept = [row for row in old if (row["round"], row["blind"]) != (number, blind)]
    models = sorted([*kept, *rows], key=lambda row: (not row["blind"], row["round"]))
    write_whole(file, json.dumps({"schema": 1, "models": models}, indent=1) + "\n")
    return len(old) - len(kept)


def _round(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not the number of a round, such as 8")
    return int(text)


def round_parser(module: str, description: str | None, verdicts: str, usual: Path) -> argparse.ArgumentParser:
    """Return the parser of a round: its number, truths and verdicts, whether judged again, and the file to change."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("round", metavar="ROUND", type=_round, help="number of the round, from 1")
    parser.add_argument("truths", metavar="TRUTHS", type=Path, help="JSON file with one entry per model")
    parser.add_argument("verdicts", metavar="FOLDER", type=Path, help=f"folder with NAME/{verdicts} of each model")
    parser.add_argument("--again", action="store_true", help="the rules were changed after the round was known")
    parser.add_argument("--out", metavar="FILE", type=Path, help=f"file to change; default: results/{usual.name}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace the rows of a round, blind or judged again; return 2 for bad input, with nothing written."""
    chosen = round_parser("outsiders", __doc__, "verdict.json", OUTSIDERS).parse_args(arguments)
    file, blind = chosen.out or OUTSIDERS, not chosen.again
    try:
        with reporting_versions():
            rows, missing = judged_models(chosen.round, chosen.truths, chosen.verdicts, blind)
        unknown, done = without_truth(chosen.truths, chosen.verdicts), "replaced" if file.exists() else "written"
        before = replace_round(file, chosen.round, rows, blind)
    except (OSError, ValueError) as error:
        warn(one_line(error))
        return 2
    what = f"round {chosen.round}{'' if blind else ', judged again'}"
    lacking = f"without a verdict: {', '.join(missing) or 'none'}; without a truth: {', '.join(unknown) or 'none'}"
    say(f"{file}: {done}; {what} has {len(rows)} models in place of {before}; {lacking}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
