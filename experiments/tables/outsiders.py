"""Markdown table of the verdict on models that outsiders built by hand, from `results/outsiders.json`.

The models are not in the repository. The file keeps what their builders wrote down before any verdict, and what
`mnemoscope verdict FOLDER --format parity-aligned --forced --lengths 8 --prompts 64` said.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from experiments.support.reading import CALIBRATION
from experiments.tables.cells import markdown
from interp.models import read_json
from probes.error_rates import OPEN

OUTSIDERS = CALIBRATION.with_name("outsiders.json")
OUTCOMES = ("right", "wrong label", "wrong status", "none")


def outcome_of(row: dict) -> str:
    """Return how a verdict compares with the truth.

    A status counts as wrong where it is PRESENT or ABSENT and the truth is the other; a truth of None is a matter of
    definition. Where no label is right, the truth's label is "unresolved".
    """
    wrong = any(
        truth is not None and row["statuses"][role] == ("ABSENT" if truth else "PRESENT")
        for role, truth in row["roles"].items()
    )
    if row["label"] not in OPEN and row["label"] not in row["right"]:
        return "wrong label"
    if wrong:
        return "wrong status"
    return "right" if row["label"] in row["right"] else "none"


def read_outsiders(path: Path | None = None) -> list[dict]:
    """Return the judged models of a file; None: `results/outsiders.json`. Raises `ValueError` for another schema."""
    path = path or OUTSIDERS
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != 1:
        raise ValueError(f"{path} is not of schema 1")
    rows = data.get("models")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and {"round", "blind"} <= set(row) for row in rows):
        raise ValueError(f"{path} is damaged: it has no list of models, each with its round")
    return rows


def outsiders_table() -> str:
    """Return counts of outcomes by round, and a row per model that got no right label."""
    rounds: dict[str, list[dict]] = {}
    for row in read_outsiders():
        rounds.setdefault(f"{row['round']}{'' if row['blind'] else ', judged again'}", []).append(row)
    counts, missed = [], []
    for name, rows in rounds.items():
        found = Counter(outcome_of(row) for row in rows)
        margins = ", ".join(sorted({row["margins"] for row in rows}))
        counts.append((name, len(rows), margins, *(found.get(outcome, 0) for outcome in OUTCOMES)))
        for row in rows:
            if (outcome := outcome_of(row)) != "right" and row["blind"]:
                what = f"**{outcome}**" if outcome.startswith("wrong") else outcome
                missed.append((row["round"], row["family"], " or ".join(row["right"]), row["label"], what))
    head = ("round", "models", "rules", *OUTCOMES)
    return markdown(head, counts) + "\n" + markdown(("round", "model", "right", "verdict", "outcome"), missed)


def blind_rounds() -> list[tuple[int, int, int]]:
    """Return of each blind round: the models, those with a wrong label, and those with no label where one is right."""
    rounds: dict[int, list[str]] = {}
    for row in read_outsiders():
        if row["blind"]:
            rounds.setdefault(row["round"], []).append(outcome_of(row))
    return [(len(x), x.count("wrong label"), x.count("none")) for _, x in sorted(rounds.items())]
