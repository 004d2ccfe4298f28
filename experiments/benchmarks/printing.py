"""Terminal tables of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable

from experiments.benchmarks.tables import step_table
from experiments.support.console import print_table, say

Rows = dict[str, dict]
PEERS = ("transformer_lens", "hook loop", "nnsight")
# What the columns of each table are, one line each. Every column stands in a line, which a test holds.
NOTES: dict[str, tuple[str, ...]] = {
    "patching": (
        "mnemoscope ms: interp.patching.plan(...).run() with its controls and checks, per patch.",
        "TransformerLens ms: generic_activation_patch, one forward pass per patch. hooks ms: the same by hand, with "
        "hooks on the Hugging Face model.",
        "x TL, x hooks, x nnsight: how many times mnemoscope is faster; -: not installed.",
        "x fewer FLOPs: counted, than one forward pass per patch. of bound: FLOPs over the least of any exact method.",
        "skipped: patches that need no computation: both runs are equal there, or the metric's token cannot read it.",
        "difference: largest of any value from the loops', relative to the largest metric (at least 1).",
    ),
    "edges": (
        "edges: of the graph whose scores are computed. mnemoscope ms: edge_scores with the method eap.",
        "TransformerLens ms: attribution_patch at the granularity of edges. x TL: how many times mnemoscope is faster.",
        "difference: largest of a score, relative to the largest score.",
    ),
    "loops": (
        "mnemoscope: a sweep of resid_pre over layers and positions, with its controls and checks.",
        "loop by hand: the fastest loop on the Hugging Face model that we could write; it skips the layers before the "
        "patch, runs patches in batches, and checks nothing.",
        "x: how many times mnemoscope is faster; below 1 it is slower. difference: largest, relative to the largest "
        "value.",
    ),
    "grids": (
        "grid: the function get_act_patch_<grid>. values: how many numbers it returns.",
        "mnemoscope ms: interp.patching.grids, with the same metric as TransformerLens, a function of all logits.",
        "declared ms: mnemoscope with logit_diff, a metric that says which logits it reads. TransformerLens ms: "
        "transformer_lens.patching.",
        "x, x declared: how many times mnemoscope is faster. difference: largest, relative to the largest value.",
    ),
    "integration": (
        "points: gradients along the line from corrupted to clean prompts (EAP-IG).",
        "error, adaptive: of mnemoscope's rule, which takes the middles of the intervals, and further points where the "
        "scores do not add up to the metric's change.",
        "error, even: of the rule of EAP-IG's code, the ends of even intervals, as other libraries have it.",
        "adaptive s, even s: seconds, medians; -: not timed.",
    ),
    "memory": (
        "prompts: how many there are. budget: MiB that --memory allows one pass beyond the model.",
        "peak: most MiB that the process held above what it held before, the model's not counted.",
    ),
    "drift": (
        "compared: the two ways of computing. what: the quantity. difference: largest, absolute; for answers, how many "
        "differ.",
        "of the largest: the difference relative to the largest value. allowed: the bound that rounding gives. met: "
        "whether the difference is within it.",
    ),
    "scaling": (
        "layers x d: layers and width of the model. runs at once: processes that train beside each other.",
        "ms per step, gradients MB: of one run. tokens/s, GFLOP/s: of all runs at once. load before: processes that "
        "the machine ran already; a loaded machine is slower.",
        "device, precision: where, and in which type of numbers, a step is computed.",
    ),
}


def show_patching(rows: Rows) -> None:
    """Print milliseconds per patch, and the ratios to TransformerLens, the hook loop and nnsight."""
    columns = [
        "case",
        "mnemoscope ms",
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
    columns = ["case", "edges", "mnemoscope ms", "TransformerLens ms", "x TL", "difference"]
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
    print_table("milliseconds per sweep, medians", ["case", "mnemoscope", "loop by hand", "x", "difference"], cells)


def show_grids(rows: Rows) -> None:
    """Print milliseconds of every grid, the ratios to TransformerLens, and differences."""
    columns = [
        "case",
        "grid",
        "values",
        "mnemoscope ms",
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
    columns = ["case", "points", "error, adaptive", "error, even", "adaptive s", "even s"]
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


TABLES: dict[str, Callable[[Rows], None]] = {
    "patching": show_patching,
    "edges": show_edges,
    "grids": show_grids,
    "loops": show_loops,
    "integration": show_integration,
    "memory": show_memory,
    "drift": show_drift,
    "scaling": show_scaling,
}


def show(kind: str, rows: Rows) -> None:
    """Print the table of a benchmark, and below it what its columns are."""
    TABLES[kind](rows)
    for line in NOTES[kind]:
        say(line)
