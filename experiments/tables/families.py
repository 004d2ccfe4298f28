"""Markdown tables of the verdict on families outside of the calibration, from `results/families.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.support.reading import CALIBRATION
from experiments.tables.cells import markdown
from interp.models import read_json

FAMILIES = CALIBRATION.with_name("families.json")
OUTCOMES = ("right", "wrong label", "wrong status", "none")
NAMES = {"gpt2": "GPT-2", "gpt_neox": "GPT-NeoX", "llama": "Llama"}
WRONG = {"wrong label", "wrong status"}


def read_families() -> dict:
    """Return the counts of `mnemoscope calibrate --families`. Raises `ValueError` for another schema."""
    data = read_json(FAMILIES)
    if not isinstance(data, dict) or data.get("schema") != 1:
        raise ValueError(f"{FAMILIES} is not of schema 1")
    return data


def families_table() -> str:
    """Return the verdict on each family by architecture, clean and with dirt, and the counts of outcomes."""
    data = read_families()
    columns = [(architecture, dirty) for dirty in (False, True) for architecture in NAMES]
    rows: dict[str, dict[tuple[str, bool], str]] = {}
    expected = {}
    for case in data["cases"]:
        cell = "right" if case["outcome"] == "right" else case["label"]
        cell = f"**{case['outcome']}: {case['label']}**" if case["outcome"] in WRONG else cell
        rows.setdefault(case["family"], {})[case["architecture"], case["dirty"]] = cell
        expected[case["family"]] = case["expected"]
    cells = [(name, expected[name], *(row[column] for column in columns)) for name, row in rows.items()]
    titles = [f"{NAMES[a]}{', dirt' if dirty else ''}" for a, dirty in columns]
    table = markdown(("family", "right verdict", *titles), cells)
    return table + "\n" + counts_table(data["counts"], OUTCOMES)


def counts_table(counts: Mapping[str, Mapping[str, int]], outcomes: Sequence[str]) -> str:
    """Return the number of each outcome, one row per group of `counted_by_group`."""
    rows = []
    for group, found in counts.items():
        architecture, _, state = group.partition(", ")
        name = ", ".join(filter(None, (NAMES.get(architecture, architecture), state)))
        rows.append((name, *(found.get(outcome, 0) for outcome in outcomes), sum(found.values())))
    return markdown(("", *outcomes, "of"), rows)


def counted_families() -> list[float]:
    """Return the number of judged models, of families, of wrong labels, of wrong statuses, and of right ones."""
    data = read_families()
    found = data["counts"]["all"]
    families = len({case["family"] for case in data["cases"]})
    return [sum(found.values()), families, *(found.get(name, 0) for name in ("wrong label", "wrong status", "right"))]
