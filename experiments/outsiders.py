"""Add a round of outsiders' models to `results/outsiders.json`: their builders' written truths beside the verdicts.

    python -m experiments.outsiders 3 truths.json verdicts/ [--again]

`truths.json` maps the name of each model to what its builder wrote down before any verdict: "architecture", "right"
(the labels that are right, "unresolved" where none is), and "roles", true, false, or null for a matter of definition.
`verdicts/NAME/verdict.json` is what `mnemoscope verdict` wrote. Models that have none were not judged, and are named.
`--again`: the rules of these verdicts were changed after the round was known, so they are listed apart.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from experiments.support.console import say, warn
from experiments.support.reading import read_result
from experiments.tables.outsiders import OUTSIDERS, read_outsiders
from interp.models import read_json
from interp.support.writing import write_whole
from probes.findings import ROLES

AGAIN = "--again"


def judged_models(number: int, truths: Path, verdicts: Path, blind: bool = True) -> tuple[list[dict], list[str]]:
    """Return the rows of a round's judged models, and the names of those without a verdict.

    `blind` says whether the rules of the verdict are from before the round. Raises `ValueError` for a truth that lacks
    an entry or a role.
    """
    rows, missing = [], []
    for name, truth in read_json(truths).items():
        if set(truth) != {"architecture", "right", "roles"} or set(truth["roles"]) != set(ROLES):
            raise ValueError(f"{truths}: {name} needs architecture, right, and roles with {', '.join(ROLES)}")
        path = verdicts / name / "verdict.json"
        if not path.is_file():
            missing.append(name)
            continue
        found = read_result(path)
        statuses = {role: at["status"] for role, at in found["roles"].items()}
        rows.append(
            {
                "round": number,
                "family": name.replace("_", " "),
                "architecture": truth["architecture"],
                "blind": blind,
                "right": truth["right"],
                "roles": truth["roles"],
                "label": found["verdict"],
                "statuses": statuses,
                "reasons": {role: at["reason"] for role, at in found["roles"].items()},
                "margins": found["margins"]["version"],
                "commit": found["provenance"]["commit"],
            }
        )
    return rows, missing


def main(arguments: list[str]) -> int:
    """Replace the rows of a round, blind or judged again; return 0, or 2 for other arguments."""
    again = arguments[3:] == [AGAIN]
    if not arguments or len(arguments) != 3 + again or not arguments[0].isdigit():
        warn(f"python -m experiments.outsiders ROUND TRUTHS.json FOLDER [{AGAIN}]")
        return 2
    number = int(arguments[0])
    rows, missing = judged_models(number, Path(arguments[1]), Path(arguments[2]), blind=not again)
    kept = [row for row in read_outsiders() if (row["round"], row["blind"]) != (number, not again)]
    models = sorted([*kept, *rows], key=lambda row: (not row["blind"], row["round"]))
    write_whole(OUTSIDERS, json.dumps({"schema": 1, "models": models}, indent=1) + "\n")
    say(f"round {number}: {len(rows)} models judged; without a verdict: {', '.join(missing) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
