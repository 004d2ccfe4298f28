"""Prints what `mnemoscope circuit` measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.support.console import print_table, say

if TYPE_CHECKING:
    from interp.circuits import Circuit
    from interp.models import Run

# Edges that are printed.
EDGES = 12


def print_report(run: Run, circuit: Circuit, data: dict, length: int) -> None:
    """Print the size, faithfulness, heads, strongest edges and baselines of a circuit of a task."""
    possible = data["possible_edges"]
    say(f"{run.name}: {len(circuit)} of {possible} edges ({circuit.share:.1%}), searched at length {length}")
    if not data["valid"]:
        say(f"INVALID: {data['reason']}")

    def row(name: str, numbers: dict) -> list[str]:
        share = f"{with_interval(numbers)}{'' if data['valid'] else ' (invalid)'}"
        return [name, share, f"{numbers['accuracy']:.3f}", f"{numbers['accuracy_full']:.3f}"]

    rows = [row(f"{kind}, n={length}", numbers) for kind, numbers in data["ablations"].items()]
    rows += [row(f"corrupted, n={n}", numbers) for n, numbers in data["lengths"].items() if n != str(length)]
    columns = ["ablation", "faithfulness", "step accuracy", "of the full model"]
    print_table("faithfulness on fresh prompts", columns, rows)
    print_table("heads of the circuit", ["head", "attention"], [[h, n] for h, n in data["heads"].items()])
    print_edges(circuit)
    random, complete = data["random"], data["completeness"]
    say(f"random circuits of this size: largest {random['largest']:.3f}, p {random['p']:.3f}, n {random['n']}")
    say(
        f"the model without the circuit: {complete['complement']:.3f}; without a random half of it, circuit and "
        f"model differ by {complete['mean_gap']:.3f} on average"
    )
    if gap := data["gap"]:
        say(f"integrated gradients miss {abs(gap):.1%} of the difference between clean and corrupted")
    for again in data["again"]:
        say(f"repeated on other prompts: {again['edges']} edges, overlap (Jaccard) {again['overlap']:.2f}")


def print_edges(circuit: Circuit) -> None:
    """Print the edges with the largest absolute scores."""
    edges = [[str(e), f"{score:+.3f}"] for e, score in circuit.edges()[:EDGES] if score is not None]
    print_table("strongest edges", ["edge", "score"], edges)


def say_files(folder: Path, names: Iterable[str]) -> None:
    """Print the paths of the files that were written."""
    for name in names:
        say(folder / name)


def with_interval(numbers: dict) -> str:
    """Return a faithfulness with its interval over prompts."""
    return f"{numbers['values']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]"
