"""Terminal tables of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable

from experiments.benchmarks.tables import step_table
from experiments.support.console import print_table

Rows = dict[str, dict]
PEERS = ("transformer_lens", "hook loop", "nnsight")


def show_patching(rows: Rows) -> None:
    """Print milliseconds per patch, and the ratios to TransformerLens, the hook loop and nnsight."""
    columns = [
        "case",
        "ours ms",
        "TransformerLens ms",
        "hooks ms",
        "x TL",
        "x hooks",
        "x nnsight",
        "x fewer FLOPs",
        "of bound",
        "skipped",
        "difference",
    ]
    cells = [
        [
            name,
            *(f"{row['ms_a_patch'][k]:.3f}" for k in ("ours", "transformer_lens", "hook loop")),
            *(f"{row['ratio'][k]:.1f}" if k in row["ratio"] else "-" for k in PEERS),
            f"{row['flops']['times_fewer']:.1f}",
            f"{row['flops']['of_lower_bound']:.2f}",
            f"{row['skipped'] / row['patches']:.0%}",
            f"{max(row['difference'].values()):.1e}",
        ]
        for name, row in rows.items()
    ]
    print_table("milliseconds per patch, medians", columns, cells)


def show_edges(rows: Rows) -> None:
    """Print milliseconds of edge attribution per pair of prompts."""
    columns = ["case", "edges", "ours ms", "TransformerLens ms", "x TL", "difference"]
    cells = [
        [
            name,
            str(row["edges"]),
            *(f"{row['ms_a_pair'][k]:.1f}" for k in ("ours", "transformer_lens")),
            f"{row['ratio']:.1f}",
            f"{row['difference']:.1e}",
        ]
        for name, row in rows.items()
    ]
    print_table("milliseconds per pair of prompts, medians", columns, cells)


def show_loops(rows: Rows) -> None:
    """Print milliseconds of whole sweeps, and the ratio to the loop written by hand."""
    cells = [
        [
            case,
            *(f"{row['ms'][way]:.1f}" for way in ("ours", "hand")),
            f"{row['ratio']:.2f}",
            f"{row['difference']:.1e}",
        ]
        for case, row in rows.items()
    ]
    print_table("milliseconds per sweep, medians", ["case", "ours", "loop by hand", "x", "difference"], cells)


def show_grids(rows: Rows) -> None:
    """Print milliseconds of every grid, the ratios to TransformerLens, and differences."""
    columns = [
        "case",
        "grid",
        "values",
        "ours ms",
        "declared ms",
        "TransformerLens ms",
        "x",
        "x declared",
        "difference",
    ]
    cells = [
        [
            case,
            name,
            str(row["values"]),
            *(f"{row['ms'][way]:.1f}" for way in ("ours", "declared", "transformer_lens")),
            *(f"{row['ms']['transformer_lens'] / row['ms'][way]:.1f}" for way in ("ours", "declared")),
            f"{row['difference']:.1e}",
        ]
        for case, found in rows.items()
        for name, row in found["grids"].items()
    ]
    print_table("milliseconds per grid, medians", columns, cells)


def show_integration(rows: Rows) -> None:
    """Print errors of integration by rule and number of points, as shares of the largest score, and seconds."""
    columns = ["case", "points", "error of ours", "of even points", "ours s", "even s"]
    cells = [
        [
            case,
            n,
            *(f"{row['error'][rule][n]:.2%}" for rule in ("adaptive", "even")),
            *(f"{row['seconds'][rule][n]:.2f}" if n in row["seconds"][rule] else "-" for rule in ("adaptive", "even")),
        ]
        for case, row in rows.items()
        for n in row["error"]["even"]
    ]
    print_table("error of edge scores, as a share of the largest", columns, cells)


def show_memory(rows: Rows) -> None:
    """Print peaks of memory by part and number of prompts."""
    cells = [[n, str(r["prompts"]), str(r["budget_mib"]), f"{r['peak_mib']:.0f}"] for n, r in rows.items()]
    print_table("MiB above the memory held before", ["case", "prompts", "budget", "peak"], cells)


def show_drift(rows: Rows) -> None:
    """Print differences between threads and between precisions, with the allowed ones."""
    cells = []
    for name, row in rows.items():
        for pair, found in row["compared"].items():
            for what, x in found.items():
                if what == "answers":
                    off = ["-", f"{x['differ']} of {x['of']}", str(x["allowed"])]
                else:
                    off = [f"{x['absolute']:.1e}", f"{x['relative']:.1e}", f"{x['allowed']:.1e}"]
                cells.append([name, pair, what, *off, "yes" if x["met"] else "NO"])
    columns = ["case", "compared", "what", "difference", "of the largest", "allowed", "met"]
    print_table("largest differences", columns, cells)


def show_scaling(rows: Rows) -> None:
    """Print optimiser steps as measured."""
    print_table("optimiser steps, measured on one device", *step_table(rows))


SHOWN: dict[str, Callable[[Rows], None]] = {
    "patching": show_patching,
    "edges": show_edges,
    "grids": show_grids,
    "loops": show_loops,
    "integration": show_integration,
    "memory": show_memory,
    "drift": show_drift,
    "scaling": show_scaling,
}
