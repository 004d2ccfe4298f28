"""Which tables stand in which file, and where?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from experiments.tables.benchmarks import (
    drift_summary,
    drift_table,
    edges_table,
    memory_table,
    scaling_table,
    speed_summary,
    speed_table,
)
from experiments.tables.runs import accuracy_table, calibration_table, circuit_table, verdict_table
from experiments.tables.trust import faults_table, inputs_table
from experiments.tables.zoo import addition_table, confirmatory_table, zoo_table

TABLES: dict[str, Callable[[], str]] = {
    "verdict": verdict_table,
    "calibration": calibration_table,
    "circuit": circuit_table,
    "accuracy": accuracy_table,
    "speed-summary": speed_summary,
    "scaling": scaling_table,
    "drift-summary": drift_summary,
    "memory": memory_table,
    "faults": faults_table,
    "inputs": inputs_table,
}
BENCHMARK_TABLES: dict[str, Callable[[], str]] = {"speed": speed_table, "edges": edges_table, "drift": drift_table}
FIGURE_TABLES: dict[str, Callable[[], str]] = {"zoo": zoo_table, "confirmatory": confirmatory_table}
RECIPE_TABLES: dict[str, Callable[[], str]] = {"addition": addition_table}
ROOT = Path(__file__).parent.parent.parent
# Files with tables, and which they have.
PLACES = {
    ROOT / "README.md": TABLES,
    ROOT / "experiments" / "benchmarks" / "README.md": BENCHMARK_TABLES,
    ROOT / "experiments" / "RECIPES.md": RECIPE_TABLES,
    ROOT / "figures" / "README.md": FIGURE_TABLES,
}


def with_tables(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """A README's text with the tables in their places."""
    for name, make in tables.items():
        begin, end = f"<!-- {name} table: python -m experiments.tables -->\n", f"<!-- end of {name} table -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"the README has no place for the {name} table, between {begin.strip()} and {end}")
        text = before + begin + make() + end + after
    return text
