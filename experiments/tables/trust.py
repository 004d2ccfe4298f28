"""Markdown tables of injected faults and fuzzed inputs, from the counts of `tests/faults` and `tests/fuzz`."""

from __future__ import annotations

from pathlib import Path

from experiments.support.provenance import warn_versions
from experiments.tables.cells import markdown
from interp.models import read_json

RESULTS = Path(__file__).parent.parent / "results"
FAULTS, INPUTS = RESULTS / "faults.json", RESULTS / "inputs.json"
TITLES = {"kill": "`kill -9`", "interrupt": "Ctrl-C", "full": "a full disk", "lost": "a lost worker"}


def faults_table() -> str:
    """Return the injected and survived faults by command, from `results/faults.json`."""
    table = counts_of(FAULTS, "faults")
    verbs = [verb for verb, row in table.items() if row]
    rows = []
    for fault, title in TITLES.items():
        cells = [f"{n['survived']} of {n['injected']}" if (n := table[verb].get(fault)) else "" for verb in verbs]
        counts = [n for row in table.values() if (n := row.get(fault))]
        total = f"{sum(n['survived'] for n in counts)} of {sum(n['injected'] for n in counts)}"
        rows.append((title, *cells, total))
    return markdown(("fault", *verbs, "survived"), rows)


def inputs_table() -> str:
    """Return the number of fuzzed inputs by kind, from `results/inputs.json`, which exists only if none failed."""
    counts = counts_of(INPUTS, "inputs")
    return markdown((*counts, "total"), [(*(f"{n:,}" for n in counts.values()), f"{sum(counts.values()):,}")])


def counts_of(path: Path, what: str) -> dict:
    """Return the counts in a result file; warn if other library versions made it."""
    data = read_json(path)
    warn_versions(path.name, data.get("provenance"))
    return data[what]
