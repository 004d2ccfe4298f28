"""The three tables of the root README: results, reasons to trust them, supported models."""

from __future__ import annotations

import json
from typing import Any

from experiments.gathering import TABLE, read_verdicts
from experiments.support.reading import read_calibration, read_rows
from experiments.tables.benchmarks import BENCHMARK
from experiments.tables.cells import markdown
from experiments.tables.trust import FAULTS, RESULTS, counts_of
from interp.models.names import ZOO
from interp.tasks import parse_format

SUPPORT = RESULTS / "support.json"
# Formats of parity in the table.
FORMATS = ("aligned", "gap4", "numeric", "cyclic", "constant", "nonaligned", "scratchpad")
LENGTHS = (20, 40, 60)


def headline_table() -> str:
    """Return exact match by length and the verdict per format of parity, ALiBi models, labels given."""
    import pandas as pd

    from experiments.tables.zoo import judged_text, spread

    frame: Any = pd.read_parquet(ZOO / TABLE)
    verdicts = read_verdicts(ZOO)
    rows = []
    for name in FORMATS:
        mine = frame[(frame["task"] == "parity") & (frame["format"] == name) & (frame["family"] == "alibi")]
        mine = mine[mine["posed"] == f"parity-{name}"]
        learned = mine.groupby("run")["learned"].first().astype(bool)
        exact = mine[mine["learned"] & (mine["mode"] == "forced") & (mine["metric"] == "exact")]
        cells = [spread(exact[exact["length"] == n]["value"]) for n in LENGTHS]
        entry = verdicts.get(f"parity-{name}-alibi")
        label = judged_text(entry) if entry else "no labels"
        rows.append(
            (
                name,
                parse_format(f"parity-{name}").title,
                f"{int(learned.sum())} of {len(learned)}",
                *cells,
                label or "no labels",
            )
        )
    head = (
        "format",
        "before each bit",
        "learned",
        *(f"exact match, {n} bits" for n in LENGTHS),
        "verdict on the labels",
    )
    return markdown(head, rows)


def trust_table() -> str:
    """Return three measured numbers: exactness of patching, error rate of the verdict, survived faults."""
    rows = read_rows(BENCHMARK).values()
    worst = max(x for row in rows for x in row["difference"].values())
    rate = read_calibration()["rates"]["wrong confident label"]
    faults = [n for by_fault in counts_of(FAULTS, "faults").values() for n in by_fault.values() if n]
    survived, injected = (sum(n[key] for n in faults) for key in ("survived", "injected"))
    cells = [
        ("patching equals one forward pass per patch on the raw model", f"largest relative difference {worst:.0e}"),
        ("wrong confident verdicts on planted models of 18 known mechanisms", f"{rate['hits']} of {rate['n']}"),
        ("killed, interrupted or full-disk commands that resume to the same result", f"{survived} of {injected}"),
    ]
    return markdown(("claim", "measured"), cells)


def support_text() -> str:
    """Return the model types that patching is exact on, from `results/support.json`."""
    if not SUPPORT.is_file():
        return "not measured yet\n"
    rows = json.loads(SUPPORT.read_text(encoding="utf-8"))["rows"]
    exact = [row["type"] for row in rows if row["patching"] == "exact"]
    generic = [row["type"] for row in rows if row["patching"] == "generic"]
    text = f"{len(exact)} types with every site: {', '.join(exact)}.\n"
    if generic:
        text += f"\n{len(generic)} types with the residual stream only: {', '.join(generic)}.\n"
    return text
