"""Add a round of outsiders' models of lists to a results file: their builders' written truths beside the verdicts.

    python -m experiments.list_outsiders 5 truths.json verdicts/ --about "built after reading the README"

The models of the round in experiments/results/outsiders-lists.json, a committed file, are replaced in place; `--out
FILE` changes another file instead. truths.json holds what the builder of each model wrote down before any verdict:

    [{"model": "two back", "finds": "the value after the last two values",
      "truth": {"addresses": ["order"], "sinks": [], "unjudged": ["position"]}}]

"addresses" and "sinks" name what the model uses, "unjudged" what is a matter of definition. verdicts/two back/ has the
file that `mnemoscope verdict` wrote on one list. Models that have none were not judged, and are named. `--again`: these
arms were changed after the round was known, so what they say is kept beside the blind statuses, which stay.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.outsiders import round_parser
from experiments.support.console import one_line, say, warn
from experiments.support.provenance import reporting_versions
from experiments.support.reading import read_result
from experiments.tables.list_calibration import OUTSIDERS
from interp.models import read_json
from interp.support.writing import write_whole
from interp.tasks.limits import shown
from probes.binding.checking import ADDRESSES
from probes.binding.sinks import SINKS
from probes.statuses import Status

VERSION = 3
ENTRY = {"model", "finds", "truth"}
# What the lists of a truth may name.
NAMES: Mapping[str, tuple[str, ...]] = {
    "addresses": tuple(ADDRESSES),
    "sinks": SINKS,
    "unjudged": (*ADDRESSES, *SINKS),
}


def read_truths(path: Path) -> list[dict]:
    """Return what the builders of a round's models wrote down. Raises `ValueError`, which says what would be right."""
    truths = read_json(path)
    if not isinstance(truths, list) or not truths:
        raise ValueError(f"{path} is {shown(truths)}; write a list with one entry per model")
    for entry in truths:
        if not isinstance(entry, dict) or set(entry) != ENTRY or not isinstance(entry["truth"], dict):
            raise ValueError(f"{path}: an entry needs {', '.join(sorted(ENTRY))}, and nothing else; got {shown(entry)}")
        name, truth = entry["model"], entry["truth"]
        if not isinstance(name, str) or Path(name).name != name or not name.isprintable():
            raise ValueError(f"{path}: {shown(name)} is not the name of a folder of verdicts")
        if set(truth) != set(NAMES):
            raise ValueError(f"{path}: the truth on {name} needs {', '.join(NAMES)}, and nothing else")
        for key, possible in NAMES.items():
            if not isinstance(truth[key], list) or not set(truth[key]) <= set(possible):
                raise ValueError(f'{path}: {name} has "{key}": {shown(truth[key])}; it may list {", ".join(possible)}')
        if both := sorted({*truth["addresses"], *truth["sinks"]} & set(truth["unjudged"])):
            raise ValueError(f"{path}: {name} has {', '.join(both)} both as used and as unjudged; leave one out")
    names = [entry["model"] for entry in truths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} has {', '.join(twice)} twice; write one entry per model")
    return truths


def read_found(folder: Path) -> dict | None:
    """Return the rules and the statuses of the one verdict in a folder; None where there is none.

    Raises `ValueError` for several verdicts, and for one that is not of a list that the model can do.
    """
    paths = sorted(folder.glob("verdict*.json"))
    if len(paths) > 1:
        raise ValueError(f"{folder} has {len(paths)} verdicts; leave the one on the list that the model was built for")
    if not paths:
        return None
    found = read_result(paths[0])
    try:
        statuses: dict[str, Any] = {
            kind: {name: str(Status(found[kind][name]["status"])) for name in names}
            for kind, names in (("addresses", ADDRESSES), ("sinks", SINKS))
        }
        return {"rules": str(found["rules"]), "statuses": {"label": str(found["verdict"]), **statuses}}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{paths[0]} is no verdict on a list, or a damaged one: {error!r}") from error


def joined(truths: Path, verdicts: Path) -> tuple[str, list[dict], list[str]]:
    """Return the rules of the verdicts, the truths with them as "found", and the names of models without a verdict.

    Raises `ValueError` as `read_truths` and `read_found`, and where verdicts have different rules or there is none.
    """
    judged, missing, rules = [], [], set()
    for entry in read_truths(truths):
        if (found := read_found(verdicts / entry["model"])) is None:
            missing.append(entry["model"])
            continue
        rules.add(found["rules"])
        judged.append({**entry, "found": found["statuses"]})
    if not judged:
        example = verdicts / missing[0] / "verdict-list-letters-6.json"
        raise ValueError(f"{verdicts} has no verdict on a model of {truths}: there is no {example}, for one")
    if len(rules) > 1:
        raise ValueError(f"verdicts of one round have the same arms; {verdicts} has {', '.join(sorted(rules))}")
    return rules.pop(), judged, missing


def with_round(
    rounds: Sequence[dict], number: int, rules: str, judged: Sequence[dict], about: str | None
) -> list[dict]:
    """Return the rounds with round `number`, judged blind; what later arms said of the same model is kept.

    Raises `ValueError` for a number that does not follow, and for a new round without `about`.
    """
    if not 1 <= number <= len(rounds) + 1:
        raise ValueError(f"there are {len(rounds)} rounds; the next one is {len(rounds) + 1}, got {number}")
    if number > len(rounds) and not about:
        raise ValueError("a new round needs --about, such as 'built after reading the README'")
    old = rounds[number - 1] if number <= len(rounds) else {"models": []}
    again = {case["model"]: {"again": case["again"]} for case in old["models"] if "again" in case}
    models = [{**_truth(case), "blind": case["found"], **again.get(case["model"], {})} for case in judged]
    new = {**old, "rules": rules, "about": about or old["about"], "models": models}
    return [*rounds[: number - 1], new, *rounds[number:]]


def with_later(rounds: Sequence[dict], number: int, rules: str, judged: Sequence[dict]) -> list[dict]:
    """Return the rounds with what later arms say of round `number`.

    Raises `ValueError` where the round is not there, or a model of it is missing or has another truth.
    """
    if not 1 <= number <= len(rounds):
        raise ValueError(f"there is no round {number} to judge again; the file has {len(rounds)} rounds")
    old, found = rounds[number - 1], {case["model"]: case for case in judged}
    for case in old["models"]:
        if case["model"] not in found or _truth(found[case["model"]]) != _truth(case):
            raise ValueError(f"{case['model']} of round {number} needs a verdict and the truth of then")
    models = [{**case, "again": found[case["model"]]["found"]} for case in old["models"]]
    return [*rounds[: number - 1], {**old, "again": rules, "models": models}, *rounds[number:]]


def _truth(case: Mapping) -> dict:
    return {key: case[key] for key in ("model", "finds", "truth")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace a round, or what later arms say of it; return 2 for bad input, with nothing written."""
    parser = round_parser("list_outsiders", __doc__, "verdict-*.json", OUTSIDERS)
    parser.add_argument("--about", metavar="TEXT", help="what the builders had read; for a new round")
    chosen = parser.parse_args(arguments)
    file = chosen.out or OUTSIDERS
    try:
        data = read_json(file) if file.exists() else {"schema": VERSION, "rounds": []}
        if not isinstance(data, dict) or data.get("schema") != VERSION:
            raise ValueError(f"{file} is no file of rounds of schema {VERSION}, such as {OUTSIDERS.name}")
        with reporting_versions():
            rules, judged, missing = joined(chosen.truths, chosen.verdicts)
        rounds = (
            with_later(data["rounds"], chosen.round, rules, judged)
            if chosen.again
            else with_round(data["rounds"], chosen.round, rules, judged, chosen.about)
        )
        write_whole(file, json.dumps({**data, "rounds": rounds}, indent=1) + "\n")
    except (OSError, ValueError) as error:
        warn(one_line(error))
        return 2
    what = f"round {chosen.round}{', judged again' if chosen.again else ''}"
    say(f"{file}: {what} has {len(judged)} models by arms {rules}; without a verdict: {', '.join(missing) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
