"""The README's table of shipped runs, made from their result files: `python -m experiments.tables`."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.names import SHIPPED, shipped_runs

BEGIN, END = "<!-- accuracy table: python -m experiments.tables -->\n", "<!-- end of accuracy table -->"
LENGTHS = (10, 20, 30, 40, 60)
METRICS = {"step": "step accuracy", "exact": "exact match", "final": "final bit"}


def accuracy_table() -> str:
    """The three metrics of each shipped run by length and mode, as Markdown, from its `evaluation.json`."""
    lines = ["| run | labels | metric | " + " | ".join(f"n={n}" for n in LENGTHS) + " |"]
    lines.append("|---|---|---|" + "---|" * len(LENGTHS))
    for name in shipped_runs():
        path = SHIPPED / name / "evaluation.json"
        rows = json.loads(path.read_text(encoding="utf-8"))["accuracy"]
        values = {(r["mode"], r["metric"], r["length"]): r["value"] for r in rows}
        for mode in dict.fromkeys(r["mode"] for r in rows):
            for metric, words in METRICS.items():
                cells = " | ".join(f"{values[mode, metric, n]:.3f}" for n in LENGTHS)
                lines.append(f"| {name} | {mode} | {words} | {cells} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """A README's text with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"the README has no place for the table, between {BEGIN.strip()} and {END}")
    return before + BEGIN + accuracy_table() + END + after


if __name__ == "__main__":
    readme = Path(__file__).parent.parent / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
