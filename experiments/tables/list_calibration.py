"""Markdown tables of the verdicts on planted models of lists, from `results/calibration-lists.json`."""

from __future__ import annotations

from collections import Counter

from experiments.support.reading import LIST_CALIBRATION, read_calibration
from experiments.tables.cells import markdown
from experiments.tables.families import counts_table
from interp.models import read_json
from probes.binding.truths import wrong_statuses

OUTSIDERS = LIST_CALIBRATION.with_name("outsiders-lists.json")
OUTCOMES = ("right", "incomplete", "wrong")


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


def blind_lists() -> tuple[int, int]:
    """Return how many models an outsider built, and on how many of them a status was wrong, by the arms of the time."""
    models = read_json(OUTSIDERS)["models"]
    wrong = [case for case in models if wrong_statuses({"truth": case["truth"], **case["blind"]})]
    return len(models), len(wrong)


def list_outsiders_table() -> str:
    """Return the verdicts on models that an outsider built: by the arms of the time, and again by later ones."""
    data = read_json(OUTSIDERS)
    rows = []
    for case in data["models"]:
        truth = case["truth"]
        sinks = f"; sinks: {' and '.join(truth['sinks'])}" if truth["sinks"] else ""
        cells = []
        for found in (case["blind"], case["again"]):
            wrong = wrong_statuses({"truth": truth, **found})
            cells.append(f"**{found['label']}; wrong: {', '.join(wrong)}**" if wrong else found["label"])
        rows.append((case["finds"], (" + ".join(truth["addresses"]) or "none") + sinks, *cells))
    before, now = data["rules"]
    return markdown(("how it finds an item", "truth", f"blind, arms {before}", f"again, arms {now}"), rows)
