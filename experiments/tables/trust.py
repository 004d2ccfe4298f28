"""Markdown tables of injected faults, damaged work and fuzzed inputs, counted by `tests/faults` and `tests/fuzz`."""

from __future__ import annotations

from pathlib import Path

from experiments.support.provenance import warn_versions
from experiments.tables.cells import markdown
from interp.models import read_json

RESULTS = Path(__file__).parent.parent / "results"
FAULTS, INPUTS = RESULTS / "faults.json", RESULTS / "inputs.json"
DAMAGES, GUIDED = RESULTS / "damages.json", RESULTS / "guided.json"
TITLES = {"kill": "`kill -9`", "interrupt": "Ctrl-C", "full": "a full disk", "lost": "a lost worker"}
DAMAGED = {"truncated": "a truncated file", "flipped": "a flipped bit", "together": "two processes at once"}


def faults_table() -> str:
    """Return the injected and survived faults by command, from `results/faults.json`."""
    return _survived("fault", counts_of(FAULTS, "faults"), TITLES)


def damages_table() -> str:
    """Return how many commands ended right on damaged work, and beside another, from `results/damages.json`."""
    return _survived("damage", counts_of(DAMAGES, "damages"), DAMAGED)


def _survived(what: str, table: dict, titles: dict[str, str]) -> str:
    verbs = [verb for verb, row in table.items() if row]
    rows = []
    for fault, title in titles.items():
        cells = [f"{n['survived']} of {n['injected']}" if (n := table[verb].get(fault)) else "" for verb in verbs]
        counts = [n for row in table.values() if (n := row.get(fault))]
        total = f"{sum(n['survived'] for n in counts)} of {sum(n['injected'] for n in counts)}"
        rows.append((title, *cells, total))
    return markdown((what, *verbs, "survived"), rows)


def inputs_table() -> str:
    """Return the number of fuzzed inputs by kind, from `results/inputs.json`, which exists only if none failed."""
    counts = counts_of(INPUTS, "inputs")
    return markdown((*counts, "total"), [(*(f"{n:,}" for n in counts.values()), f"{sum(counts.values()):,}")])


def guided_table() -> str:
    """Return the inputs of the coverage-guided fuzzer, and the failures that it found, from `results/guided.json`."""
    counts = counts_of(GUIDED, "guided")
    rows = [(kind, f"{row['inputs']:,}", f"{row['seconds']}", str(row["failures"])) for kind, row in counts.items()]
    return markdown(("kind", "inputs", "seconds", "failures, mended since"), rows)


def counts_of(path: Path, what: str) -> dict:
    """Return the counts in a result file; warn if other library versions made it."""
    data = read_json(path)
    warn_versions(path.name, data.get("provenance"))
    return data[what]
