"""The README's tables, made from result files: `python -m experiments.tables`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from experiments.names import SHIPPED, shipped_runs

LENGTHS = (10, 20, 30, 40, 60)
METRICS = {"step": "step accuracy", "exact": "exact match", "final": "final bit"}
BENCHMARK = Path(__file__).parent / "benchmarks" / "results" / "patching.json"
CORRUPTIONS = {"flip": "a bit flipped", "redraw": "another prompt"}


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


def speed_table() -> str:
    """Every row of the benchmark, as Markdown, from `benchmarks/results/patching.json`."""
    head = ("family", "layers x d", "tokens", "prompts", "site", "corrupted by", "ms a patch", "x TransformerLens",
            "x hook loop", "x nnsight", "x fewer FLOPs", "of the bound", "difference")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in json.loads(BENCHMARK.read_text(encoding="utf-8"))["rows"].values():
        case, ratio, flops = row["case"], row["ratio"], row["flops"]
        cells = (
            case["family"], f"{case['n_layers']} x {case['d_model']}", row["tokens"], case["prompts"], case["site"],
            CORRUPTIONS[case["corrupt"]], f"{row['ms_a_patch']['ours']:.3g}", f"{ratio['transformer_lens']:.1f}",
            f"{ratio['hook loop']:.1f}", f"{ratio['nnsight']:.1f}" if "nnsight" in ratio else "",
            f"{flops['times_fewer']:.1f}", f"{flops['of_lower_bound']:.2f}", f"{max(row['difference'].values()):.0e}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[], str]] = {"accuracy": accuracy_table, "speed": speed_table}


def with_tables(text: str) -> str:
    """A README's text with the tables in their places."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} table: python -m experiments.tables -->\n", f"<!-- end of {name} table -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"the README has no place for the {name} table, between {begin.strip()} and {end}")
        text = before + begin + make() + end + after
    return text


if __name__ == "__main__":
    readme = Path(__file__).parent.parent / "README.md"
    readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
