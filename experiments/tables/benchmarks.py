"""Markdown tables of speed, memory and exactness, from the files of `mnemoscope bench`."""

from __future__ import annotations

import statistics
from pathlib import Path

from experiments.benchmarks.tables import number_text, stage_text, step_table
from experiments.support.reading import read_rows
from experiments.tables.cells import markdown, yes
from interp.models import read_json

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
BENCHMARK, EDGES, SCALING, GPU_STEPS, DRIFT, MEMORY, GRIDS, INTEGRATION, LOOPS = (
    RESULTS / f"{name}.json"
    for name in ("patching", "edges", "scaling", "gpu-steps", "drift", "memory", "grids", "integration", "loops")
)
CORRUPTIONS = {"flip": "a bit flipped", "redraw": "another prompt"}


def speed_table() -> str:
    """Return every row of the patching benchmark, from `benchmarks/results/patching.json`."""
    head = (
        "family",
        "layers x d",
        "tokens",
        "prompts",
        "site",
        "corrupted by",
        "ms per patch",
        "x TransformerLens",
        "x hook loop",
        "x nnsight",
        "x fewer FLOPs",
        "of the bound",
        "difference",
    )
    rows = []
    for row in read_rows(BENCHMARK).values():
        case, ratio, flops = row["case"], row["ratio"], row["flops"]
        cells = (
            case["family"],
            f"{case['n_layers']} x {case['d_model']}",
            row["tokens"],
            case["prompts"],
            case["site"],
            CORRUPTIONS[case["corrupt"]],
            f"{row['ms_a_patch']['ours']:.3g}",
            f"{ratio['transformer_lens']:.1f}",
            f"{ratio['hook loop']:.1f}",
            f"{ratio['nnsight']:.1f}" if "nnsight" in ratio else "",
            f"{flops['times_fewer']:.1f}",
            f"{flops['of_lower_bound']:.2f}",
            f"{max(row['difference'].values()):.0e}",
        )
        rows.append(cells)
    return markdown(head, rows)


def speed_summary() -> str:
    """Return the ratios over all cases, by corruption of the prompt, from `benchmarks/results/patching.json`."""
    rows = read_rows(BENCHMARK).values()
    cells = []
    for corrupt, title in CORRUPTIONS.items():
        alike = [row for row in rows if row["case"]["corrupt"] == corrupt]
        ratios = [[r["ratio"][peer] for r in alike] for peer in ("transformer_lens", "hook loop")]
        ratios.append([r["flops"]["times_fewer"] for r in alike])
        worst = max(x for row in alike for x in row["difference"].values())
        spread = (f"{statistics.median(r):.1f} [{min(r):.1f}, {max(r):.1f}]" for r in ratios)
        cells.append((title, len(alike), *spread, f"{worst:.0e}"))
    head = ("corrupted by", "cases", "x TransformerLens", "x hook loop", "x fewer FLOPs", "largest difference")
    return markdown(head, cells)


def edges_table() -> str:
    """Return every row of the edge attribution benchmark, from `benchmarks/results/edges.json`."""
    head = ("family", "layers x d", "tokens", "pairs", "edges", "ms per pair", "TransformerLens", "x", "difference")
    rows = []
    for row in read_rows(EDGES).values():
        case, ms = row["case"], row["ms_a_pair"]
        cells = (
            case["family"],
            f"{case['n_layers']} x {case['d_model']}",
            row["tokens"],
            case["prompts"],
            row["edges"],
            f"{ms['ours']:.3g}",
            f"{ms['transformer_lens']:.3g}",
            f"{row['ratio']:.1f}",
            f"{row['difference']:.0e}",
        )
        rows.append(cells)
    return markdown(head, rows)


def loops_table() -> str:
    """Return whole sweeps beside the best loop written by hand, from `benchmarks/results/loops.json`."""
    head = ("shape", "layers x d", "tokens", "vocabulary", "sweep, ms", "loop by hand, ms", "x", "difference")
    if not LOOPS.exists():
        return "Not measured yet.\n"
    cells = []
    for row in read_rows(LOOPS).values():
        case, ms = row["case"], row["ms"]
        of = f" of {case['layers_of']}" if case["layers_of"] else ""
        shape = f"{case['n_layers']}{of} x {case['d_model']}"
        values = (f"{ms['ours']:.3g}", f"{ms['hand']:.3g}", f"{row['ratio']:.2f}", f"{row['difference']:.0e}")
        cells.append((case["title"], shape, case["tokens"], f"{case['vocabulary']:,}", *values))
    return markdown(head, cells)


def grids_table() -> str:
    """Return how many times faster each grid is than TransformerLens's, from `benchmarks/results/grids.json`.

    A cell is the ratio with TransformerLens's metric, a function of all logits, and with a declared one.
    """
    rows = read_rows(GRIDS)
    types = [row["case"]["model_type"] for row in rows.values()]
    cells = []
    for name in next(iter(rows.values()))["grids"]:
        found = [row["grids"][name] for row in rows.values()]
        ratios = ((f["ms"]["transformer_lens"] / f["ms"][way] for way in ("ours", "declared")) for f in found)
        shown = [" / ".join(f"{ratio:.1f}" for ratio in pair) for pair in ratios]
        worst = max(f["difference"] for f in found)
        cells.append((f"`{name}`", found[0]["values"], *shown, f"{worst:.0e}"))
    return markdown(("`get_act_patch_...`", "values", *types, "largest difference"), cells)


def integration_table() -> str:
    """Return the error of integration by rule and number of points, from `benchmarks/results/integration.json`."""
    cells = []
    for row in read_rows(INTEGRATION).values():
        error, seconds = row["error"], row["seconds"]
        for n in seconds["even"]:
            shares = (f"{100 * error[rule][n]:.2g} %" for rule in ("adaptive", "even"))
            times = (f"{seconds[rule][n]:.2f}" for rule in ("adaptive", "even"))
            cells.append((row["case"]["run"], row["tokens"], n, *shares, *times))
    head = ("model", "tokens", "points", "error, ours", "error, even points", "seconds, ours", "seconds, even")
    return markdown(head, cells)


def scaling_table(path: Path = SCALING, gpu: Path = GPU_STEPS) -> str:
    """Return optimiser steps as measured on CPUs and on a GPU, from `scaling.json` and `gpu-steps.json`."""
    rows = read_rows(path)
    head = ("device", "layers x d", "precision", "tokens per step", "ms per step", "tokens/s")
    cells = []
    for row in read_json(gpu)["rows"].values():
        ms, tokens = row["ms_per_step"], row["tokens"]
        shape = f"{row['n_layers']} x {row['d_model']}"
        values = (f"{tokens:,}", number_text(ms), number_text(1000 * tokens / ms))
        cells.append((row["device"], shape, row["precision"], *values))
    return f"{markdown(*step_table(rows))}\n{stage_text(rows)}\n\n{markdown(head, cells)}"


def drift_table() -> str:
    """Return the largest differences between threads and between precisions, from `benchmarks/results/drift.json`.

    A cell is the difference relative to the largest value of its quantity, with the absolute one in brackets.
    """
    rows, allowed = [], {}
    for row in read_rows(DRIFT).values():
        for pair, differences in row["compared"].items():
            *quantities, answers = differences.items()
            allowed |= {name: x["allowed"] for name, x in quantities}
            cells = {
                name: f"{x['relative']:.0e} ({x['absolute']:.0e})" if x["absolute"] else "0" for name, x in quantities
            }
            changed = f"{answers[1]['differ']} of {answers[1]['of']}"
            met = yes(all(x["met"] for x in differences.values()))
            rows.append((row["case"]["run"], row["case"]["length"], pair, cells, changed, met))
    table = [("allowed", "", "", *(f"{x:.0e}" for x in allowed.values()), 0, "")]
    for *case, cells, changed, met in rows:
        table.append((*case, *(cells.get(name, "") for name in allowed), changed, met))
    return markdown(("run", "length", "compared", *allowed, "answers that differ", "met"), table)


def drift_summary() -> str:
    """Return the largest difference of each quantity over all cases, from `benchmarks/results/drift.json`."""
    compared: dict[str, dict[str, list[dict]]] = {}
    for row in read_rows(DRIFT).values():
        for pair, differences in row["compared"].items():
            for name, x in differences.items():
                compared.setdefault(name, {}).setdefault(pair, []).append(x)
    answers = compared.pop("answers")
    pairs = tuple(answers)
    cells = []
    for name, by_pair in compared.items():
        every = [x for cases in by_pair.values() for x in cases]
        worst = (f"{x:.0e}" if (x := max(x["relative"] for x in by_pair[pair])) else "0" for pair in pairs)
        cells.append((name, f"{max(x['allowed'] for x in every):.0e}", *worst, yes(all(x["met"] for x in every))))
    differ = (f"{sum(x['differ'] for x in answers[pair])} of {sum(x['of'] for x in answers[pair])}" for pair in pairs)
    met = all(x["met"] for cases in answers.values() for x in cases)
    cells.append(("answers that differ", 0, *differ, yes(met)))
    return markdown(("quantity", "allowed", *pairs, "met"), cells)


def memory_table() -> str:
    """Return peaks of memory by part and number of prompts, from `benchmarks/results/memory.json`."""
    rows = read_rows(MEMORY).values()
    budget = {row["budget_mib"] for row in rows}
    assert len(budget) == 1, budget
    head = ("part", "prompts", "peak, MiB beyond the model", f"within {budget.pop()} MiB")
    cells = [(r["part"], r["prompts"], f"{r['peak_mib']:.0f}", yes(r["peak_mib"] <= r["budget_mib"])) for r in rows]
    return markdown(head, cells)
