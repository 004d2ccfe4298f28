"""How is each benchmark shown on a terminal? A table or more, from the rows by case."""

from __future__ import annotations

from collections.abc import Callable

from experiments.support.console import print_table

Rows = dict[str, dict]
PEERS = ("transformer_lens", "hook loop", "nnsight")


def show_patching(rows: Rows) -> None:
    """Milliseconds a patch, and how many times more others take."""
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
    print_table("milliseconds a patch, medians", columns, cells)


def show_edges(rows: Rows) -> None:
    """Edge attribution, by pairs of prompts."""
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
    print_table("milliseconds a pair of prompts, medians", columns, cells)


def show_memory(rows: Rows) -> None:
    """Peaks, by part and number of prompts."""
    cells = [[n, str(r["prompts"]), str(r["budget_mib"]), f"{r['peak_mib']:.0f}"] for n, r in rows.items()]
    print_table("MiB beyond what was held before", ["case", "prompts", "budget", "peak"], cells)


def show_drift(rows: Rows) -> None:
    """Differences between threads and between precisions, beside what is allowed."""
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
    """What devices take, and the estimates for more of them."""
    from experiments.benchmarks import tables as showing

    print_table("measured on one device", *showing.measured_steps(rows))
    print_table("ESTIMATED: the grid on several devices", *showing.estimated_grid(rows))
    print_table("ESTIMATED: one model on several devices, links assumed", *showing.estimated_parallel(rows))
    print_table("ESTIMATED: one model on several GPUs, links assumed", *showing.estimated_links(rows))


SHOWN: dict[str, Callable[[Rows], None]] = {
    "patching": show_patching,
    "edges": show_edges,
    "memory": show_memory,
    "drift": show_drift,
    "scaling": show_scaling,
}
