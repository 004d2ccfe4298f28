"""Markdown of the matrix of capabilities, and of tasks of notebooks done here and in TransformerLens."""

from __future__ import annotations

from pathlib import Path

from experiments.tables.cells import markdown
from interp.models import read_json

RESULTS = Path(__file__).parent.parent / "results"
CAPABILITIES, MIGRATION = RESULTS / "capabilities.json", RESULTS / "migration.json"


def capabilities_table() -> str:
    """Return milliseconds by function and type, the most memory, and refusals, from `results/capabilities.json`."""
    functions = read_json(CAPABILITIES)
    rows, reasons = [], {}
    for name, by_type in functions.items():
        cells = ["no" if "refused" in cell else f"{cell['ms']:.3g}" for cell in by_type.values()]
        rows.append((name, *cells, f"{max(cell.get('mib', 0) for cell in by_type.values()):.2g}"))
        for kind, cell in by_type.items():
            if "refused" in cell:
                reasons.setdefault((kind, cell["refused"].partition(": ")[0]), []).append(name)
    table = markdown(("ms", *next(iter(functions.values())), "most MiB"), rows)
    lines = [f"- {kind}: {why} ({'; '.join(names)})." for (kind, why), names in reasons.items()]
    return f"{table}\n" + "\n".join(["Refused:", "", *lines]) + "\n"


def migration_table() -> str:
    """Return the seconds of each task here and in TransformerLens, from `results/migration.json`."""
    rows = [
        (
            name,
            *(f"{1000 * row[way]:.1f}" for way in ("here", "there")),
            f"{row['there'] / row['here']:.1f}",
            f"{row['difference']:.0e}",
        )
        for name, row in read_json(MIGRATION)["tasks"].items()
    ]
    return markdown(("task", "here, ms", "TransformerLens, ms", "x", "largest difference"), rows)
