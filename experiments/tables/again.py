"""Markdown table of single models of the zoo that were judged again, from `zoo/<run>/verdict.json`.

The battery of a run is from its sweep. Arms that came later need the weights, which most runs do not keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.gathering import read_verdicts
from experiments.support.reading import read_result
from experiments.tables.cells import interval, markdown
from interp.models.names import ZOO

HEAD = ("model", "battery of the sweep", "all arms", "anchor", "placeholder", "sink, answers", "sink, margins")


def again_table(zoo: Path = ZOO) -> str:
    """Return the verdict before and after, and each role's status, effect, control; "not built yet" without a file."""
    before = {run: label for entry in read_verdicts(zoo).values() for run, label in entry["alone"].items()}
    rows = []
    for path in sorted(zoo.glob("*/verdict.json")):
        result = read_result(path)
        roles = result["roles"]
        on_margins = roles["sink"].get("margins")
        cells = [_cell(roles[name], roles[name]["rho"]) for name in ("anchor", "placeholder", "sink")]
        cells.append(_cell(on_margins, on_margins["share"]) if on_margins else "")
        name = path.parent.name
        rows.append((name, before.get(name, ""), f"**{result['verdict']}**", *cells))
    return markdown(HEAD, rows) if rows else "not built yet\n"


def _cell(finding: Mapping[str, Any], value: float | None) -> str:
    control = finding["control"]
    beside = f", control {control['value']:.2f}" if control else ""
    return f"{finding['status']} {interval(value, finding['ci'])}".strip() + beside
