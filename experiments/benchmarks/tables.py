"""Rows and columns of the scaling benchmark, for the terminal and for Markdown."""

from __future__ import annotations

Table = tuple[list[str], list[list[str]]]
STEP_COLUMNS = [
    "device",
    "layers x d",
    "precision",
    "runs at once",
    "ms per step",
    "tokens/s",
    "GFLOP/s",
    "gradients MB",
    "load before",
]


def step_table(rows: dict[str, dict]) -> Table:
    """Return columns and cells: optimiser steps as measured, one row per device, model size, precision and runs."""
    cells = [
        [
            row["device"],
            _shape(row),
            _precision(row),
            str(row["case"]["runs"]),
            number_text(row["ms_a_step"]),
            number_text(row["tokens_a_second"]),
            number_text(row["flops_a_second"] / 1e9),
            number_text(row["gradient_bytes"] / 1e6),
            f"{row['busy']:.1f}",
        ]
        for row in rows.values()
        if "ms_a_step" in row
    ]
    return STEP_COLUMNS, cells


def stage_text(rows: dict[str, dict]) -> str:
    """Return one sentence per machine: seconds of each stage that a sweep runs after training."""
    sentences = []
    for row in rows.values():
        if "seconds" in row:
            seconds = ", ".join(f"{name} {value:.0f}" for name, value in row["seconds"].items())
            sentences.append(f"Seconds per run after training, one run alone, on {row['device']}: {seconds}.")
    return " ".join(sentences)


def number_text(value: float) -> str:
    """Return a number with three digits, or whole with separators from 1,000 on."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _shape(row: dict) -> str:
    return f"{row['case']['n_layers']} x {row['case']['d_model']}"


def _precision(row: dict) -> str:
    return "float32" if row["case"]["precision"] == "no" else row["case"]["precision"]
