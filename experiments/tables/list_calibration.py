"""Markdown tables of the verdicts on planted models of lists, from `results/calibration-lists.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from experiments.support.reading import LIST_CALIBRATION, read_calibration
from experiments.tables.cells import markdown
from experiments.tables.families import counts_table
from interp.models import read_json
from probes.binding.truths import wrong_statuses

OUTSIDERS = LIST_CALIBRATION.with_name("outsiders-lists.json")
OUTCOMES = ("right", "incomplete", "wrong")
# Verdicts by the arms of the time, and by later ones.
WHEN = ("blind", "again")


def list_calibration_table() -> str:
    """Return the outcomes by mechanism, with the labels that were given and what was wrong, and the counts."""
    data = read_calibration(LIST_CALIBRATION)
    by_name: dict[str, list[dict]] = {}
    for case in data["cases"]:
        by_name.setdefault(case["mechanism"], []).append(case)
    rows = []
    for name, cases in by_name.items():
        outcomes, labels = Counter(case["outcome"] for case in cases), Counter(case["label"] for case in cases)
        wrong = Counter(text for case in cases for text in case["wrong"])
        given = ", ".join(f"{label} ({n})" for label, n in labels.most_common())
        rows.append((name, cases[0]["expected"], given, *(outcomes[o] for o in OUTCOMES), ", ".join(wrong)))
    table = markdown(("mechanism", "right verdict", "verdicts", *OUTCOMES, "what was wrong"), rows)
    sinks = data["rates"]["sinks found"]
    found = f"\nOf {sinks['n']} planted sinks {sinks['hits']} were PRESENT.\n"
    return table + "\n" + counts_table(data["counts"], OUTCOMES) + found


def blind_lists() -> list[tuple[int, int]]:
    """Return of each round how many models were built, and on how many a status was wrong by the arms of the time."""
    rounds = read_json(OUTSIDERS)["rounds"]
    return [(len(one["models"]), _n_wrong(one["models"], "blind")) for one in rounds]


def blind_statuses() -> Counter[str]:
    """Return how many of the wrong statuses, blind and over all rounds, are PRESENT and how many ABSENT."""
    cases = [case for one in read_json(OUTSIDERS)["rounds"] for case in one["models"]]
    return Counter(text.rsplit(" ", 1)[1] for case in cases for text in _wrong(case, "blind"))


def list_outsiders_table() -> str:
    """Return the verdicts on models that outsiders built: by the arms of the time, and again by later ones."""
    data = read_json(OUTSIDERS)
    rows = []
    for number, one in enumerate(data["rounds"], 1):
        for case in one["models"]:
            truth = case["truth"]
            sinks = f"; sinks: {' and '.join(truth['sinks'])}" if truth["sinks"] else ""
            cells = []
            for when in WHEN:
                if when not in case:
                    cells.append("")
                    continue
                wrong, label = _wrong(case, when), case[when]["label"]
                cells.append(f"**{label}; wrong: {', '.join(wrong)}**" if wrong else label)
            rows.append((number, case["finds"], (" + ".join(truth["addresses"]) or "none") + sinks, *cells))
    head = ("round", "how it finds an item", "truth", "blind, by the arms of its time", "again, by later arms")
    return markdown(head, rows)


def list_rounds_table() -> str:
    """Return one row per round of models that outsiders built: how many were wrong then, and by later arms."""
    data = read_json(OUTSIDERS)
    rows = [
        (
            number,
            one["about"],
            one["rules"],
            _of_round(one["models"], "blind"),
            one.get("again", ""),
            _of_round(one["models"], "again") if "again" in one else "",
        )
        for number, one in enumerate(data["rounds"], 1)
    ]
    head = ("round", "models", "arms", "a status wrong, blind", "later arms", "wrong again")
    return markdown(head, rows)


def _of_round(models: Sequence[Mapping], when: str) -> str:
    """Return on how many of a round's models a status is wrong, as text."""
    return f"{_n_wrong(models, when)} of {len(models)}"


def _n_wrong(models: Sequence[Mapping], when: str) -> int:
    return sum(bool(_wrong(case, when)) for case in models)


def _wrong(case: Mapping, when: str) -> list[str]:
    return wrong_statuses({"truth": case["truth"], **case[when]})
