"""The tables of each README, between markers `<!-- NAME table: ... -->` and `<!-- end of NAME table -->`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from experiments.tables.again import again_table
from experiments.tables.benchmarks import (
    drift_summary,
    drift_table,
    edges_table,
    grids_table,
    integration_table,
    loops_table,
    memory_table,
    scaling_table,
    speed_summary,
    speed_table,
)
from experiments.tables.families import families_table
from experiments.tables.field import capabilities_table, migration_table
from experiments.tables.forced import forced_table
from experiments.tables.gpu import gpu_tables
from experiments.tables.headline import headline_table, support_table, support_text, trust_table
from experiments.tables.list_calibration import list_calibration_table, list_outsiders_table, list_rounds_table
from experiments.tables.lists import lists_table
from experiments.tables.outsiders import outsiders_table
from experiments.tables.predictions import OF_HINTS, SECOND, predictions_table
from experiments.tables.pretrained import pretrained_addition_table, pretrained_table, routes_table
from experiments.tables.rehearsal import rehearsal_table
from experiments.tables.runs import accuracy_table, calibration_table, circuit_table, verdict_table
from experiments.tables.trust import damages_table, faults_table, guided_table, inputs_table
from experiments.tables.zoo import addition_table, confirmatory_table, zoo_table

ROOT = Path(__file__).parent.parent.parent
# Tables by file.
PLACES: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {"headline": headline_table, "trust": trust_table, "support": support_text},
    ROOT / "interp" / "README.md": {
        "support": support_table,
        "speed-summary": speed_summary,
        "drift-summary": drift_summary,
        "memory": memory_table,
        "capabilities": capabilities_table,
        "migration": migration_table,
    },
    ROOT / "probes" / "README.md": {
        "verdict": verdict_table,
        "families": families_table,
        "forced": forced_table,
        "calibration": calibration_table,
        "list-calibration": list_calibration_table,
        "list-outsiders": list_outsiders_table,
        "list-rounds": list_rounds_table,
        "outsiders": outsiders_table,
    },
    ROOT / "experiments" / "README.md": {"accuracy": accuracy_table, "circuit": circuit_table},
    ROOT / "experiments" / "benchmarks" / "README.md": {
        "speed": speed_table,
        "edges": edges_table,
        "loops": loops_table,
        "grids": grids_table,
        "integration": integration_table,
        "drift": drift_table,
        "scaling": scaling_table,
        "gpu": gpu_tables,
    },
    ROOT / "experiments" / "RECIPES.md": {"addition": addition_table},
    ROOT / "figures" / "README.md": {
        "lists": lists_table,
        "pretrained": pretrained_table,
        "routes": routes_table,
        "pretrained-addition": pretrained_addition_table,
        "rehearsal": rehearsal_table,
        "zoo": zoo_table,
        "confirmatory": confirmatory_table,
        "again": again_table,
    },
    ROOT / "figures" / "PREDICTIONS.md": {
        "predictions": predictions_table,
        "predictions-gemma3": partial(predictions_table, name=SECOND),
        "predictions-hints": partial(predictions_table, name=OF_HINTS),
    },
    ROOT / "tests" / "README.md": {
        "faults": faults_table,
        "damages": damages_table,
        "inputs": inputs_table,
        "guided": guided_table,
    },
}


def with_tables(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """Return a README's text with new tables. Raises `ValueError` if the markers of one are missing.

    Text between markers is replaced.
    """
    for name, make in tables.items():
        begin, end = f"<!-- {name} table: python -m experiments.tables -->\n", f"<!-- end of {name} table -->"
        before, _, rest = text.partition(begin)
        _, marker, after = rest.partition(end)
        if not marker:
            raise ValueError(f"the README has no markers of the {name} table, {begin.strip()} and {end}")
        text = before + begin + make() + end + after
    return text
