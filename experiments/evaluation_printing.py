"""The tables that `mnemoscope evaluate` prints: accuracy by length, and offsets of the bits that decide steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.support.console import print_table
from experiments.support.evidence_text import WRITER

if TYPE_CHECKING:
    from interp.models import Run
    from probes.evidence import Accuracy

METRICS = ("step", "exact", "final")


def print_accuracies(run: Run, rows: Sequence[Accuracy], lengths: Sequence[int], prompts: int) -> None:
    """Print one table of accuracies per mode, with one row per length."""
    for mode in dict.fromkeys(row.mode for row in rows):
        labels = f", labels {WRITER[mode]}" if run.format.labels else ""
        title = f"{run.name}{labels}: value [95 % interval], {prompts} prompts per length"
        table = []
        for n in lengths:
            by_metric = {r.metric: r for r in rows if r.length == n and r.mode == mode}
            chance = " ".join(f"{by_metric[m].chance:.2g}" for m in METRICS)
            table.append([str(n), *(str(by_metric[m].estimate) for m in METRICS), chance])
        print_table(title, ["length", "step accuracy", "exact match", "final", "chance"], table)


def print_offsets(offsets: Sequence[dict], prompts: int) -> None:
    """Print a table of the bits that decide steps; nothing where none were measured. `prompts`: at most, per length."""
    histograms: dict[int, dict[int | None, float]] = {}
    for row in offsets:
        histograms.setdefault(row["length"], {})[row["offset"]] = row["share"]
    table = []
    for n, shares in histograms.items():
        named = [("none" if k is None else f"{k:+d}", share) for k, share in shares.items()]
        top = ", ".join(f"{k}: {share:.3f}" for k, share in named[:4])
        table.append([str(n), f"{shares.get(0, 0.0):.3f}", top])
    if table:
        title = f"offset of the bit whose edit flips a step's answer (0 is right), at most {prompts} prompts"
        print_table(title, ["length", "at 0", "most frequent"], table)
