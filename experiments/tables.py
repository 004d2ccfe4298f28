"""The tables of README.md and figures/README.md, made from result files: `python -m experiments.tables`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.names import SHIPPED, ZOO, shipped_runs
from experiments.provenance import saying_versions
from experiments.reading import read_calibration, read_result, read_rows
from interp.writing import write_whole

LENGTHS = (10, 20, 30, 40, 60)
METRICS = {"step": "step accuracy", "exact": "exact match", "final": "final bit"}
BENCHMARK = Path(__file__).parent / "benchmarks" / "results" / "patching.json"
EDGES = BENCHMARK.with_name("edges.json")
SCALING = BENCHMARK.with_name("scaling.json")
DRIFT = BENCHMARK.with_name("drift.json")
# Lengths of the table of all configurations, by task: the longest trained, and past it.
ZOO_LENGTHS = {"parity": (20, 30, 40, 60), "addition": (10, 12, 14)}
CORRUPTIONS = {"flip": "a bit flipped", "redraw": "another prompt"}


def accuracy_table() -> str:
    """The three metrics of each shipped run by length and mode, as Markdown, from its `evaluation.json`."""
    found = []
    for name in shipped_runs():
        rows = read_result(SHIPPED / name / "evaluation.json")["accuracy"]
        values = {(r["mode"], r["metric"], r["length"]): r["value"] for r in rows}
        for mode in dict.fromkeys(r["mode"] for r in rows):
            for metric, words in METRICS.items():
                found.append((name, mode, words, *(f"{values[mode, metric, n]:.3f}" for n in LENGTHS)))
    return _markdown(("run", "labels", "metric", *(f"n={n}" for n in LENGTHS)), found)


def speed_table() -> str:
    """Every row of the benchmark, as Markdown, from `benchmarks/results/patching.json`."""
    head = ("family", "layers x d", "tokens", "prompts", "site", "corrupted by", "ms a patch", "x TransformerLens",
            "x hook loop", "x nnsight", "x fewer FLOPs", "of the bound", "difference")  # fmt: skip
    rows = []
    for row in read_rows(BENCHMARK).values():
        case, ratio, flops = row["case"], row["ratio"], row["flops"]
        cells = (
            case["family"], f"{case['n_layers']} x {case['d_model']}", row["tokens"], case["prompts"], case["site"],
            CORRUPTIONS[case["corrupt"]], f"{row['ms_a_patch']['ours']:.3g}", f"{ratio['transformer_lens']:.1f}",
            f"{ratio['hook loop']:.1f}", f"{ratio['nnsight']:.1f}" if "nnsight" in ratio else "",
            f"{flops['times_fewer']:.1f}", f"{flops['of_lower_bound']:.2f}", f"{max(row['difference'].values()):.0e}",
        )  # fmt: skip
        rows.append(cells)
    return _markdown(head, rows)


def edges_table() -> str:
    """Every row of the benchmark of edge attribution, as Markdown, from `benchmarks/results/edges.json`."""
    head = ("family", "layers x d", "tokens", "pairs", "edges", "ms a pair", "TransformerLens", "x", "difference")
    rows = []
    for row in read_rows(EDGES).values():
        case, ms = row["case"], row["ms_a_pair"]
        cells = (
            case["family"], f"{case['n_layers']} x {case['d_model']}", row["tokens"], case["prompts"], row["edges"],
            f"{ms['ours']:.3g}", f"{ms['transformer_lens']:.3g}", f"{row['ratio']:.1f}", f"{row['difference']:.0e}",
        )  # fmt: skip
        rows.append(cells)
    return _markdown(head, rows)


def scaling_table(path: Path = SCALING) -> str:
    """What was measured on one device and what is estimated from it, from `benchmarks/results/scaling.json`."""
    from experiments.benchmarks import showing

    rows = read_rows(path)
    estimates = {"the grid": showing.estimated_grid, "one model": showing.estimated_parallel,
                 "one model on GPUs, from its size alone": showing.estimated_links}  # fmt: skip
    found = f"Measured:\n\n{_markdown(*showing.measured_steps(rows))}\n{showing.stage_words(rows)}\n"
    return found + "".join(f"\nEstimated, {what}:\n\n{_markdown(*lay(rows))}" for what, lay in estimates.items())


def drift_table() -> str:
    """Largest differences between threads and between precisions, as Markdown, from `benchmarks/results/drift.json`.

    Each cell is the difference relative to the largest value of its quantity, and in brackets as it is.
    """
    if not DRIFT.is_file():
        return "not built yet\n"
    rows, allowed = [], {}
    for row in read_rows(DRIFT).values():
        for pair, found in row["compared"].items():
            *quantities, answers = found.items()
            allowed |= {name: x["allowed"] for name, x in quantities}
            cells = {
                name: f"{x['relative']:.0e} ({x['absolute']:.0e})" if x["absolute"] else "0" for name, x in quantities
            }
            kept = f"{answers[1]['differ']} of {answers[1]['of']}"
            met = _yes(all(x["met"] for x in found.values()))
            rows.append((row["case"]["run"], row["case"]["length"], pair, cells, kept, met))
    table = [("allowed", "", "", *(f"{x:.0e}" for x in allowed.values()), 0, "")]
    for *case, cells, kept, met in rows:
        table.append((*case, *(cells.get(name, "") for name in allowed), kept, met))
    return _markdown(("run", "length", "compared", *allowed, "answers that differ", "met"), table)


def circuit_table() -> str:
    """The circuit of each shipped run, at each length, as Markdown, from its `circuit.json`."""
    head = ("run", "edges", "length", "faithfulness", "step accuracy", "of the full model", "heads")
    rows = []
    for name in shipped_runs():
        data = read_result(SHIPPED / name / "circuit.json")
        for n, worth in data["lengths"].items():
            share = data["circuit"]["share"]
            cells = (
                name, f"{data['circuit']['size']} of {data['possible_edges']} ({share:.1%})", n,
                _interval(worth["values"], [worth["low"], worth["high"]]), f"{worth['accuracy']:.3f}",
                f"{worth['accuracy_full']:.3f}", len(data["heads"]),
            )  # fmt: skip
            rows.append(cells)
    return _markdown(head, rows)


def verdict_table() -> str:
    """The arms that decide of each shipped run that has labels, as Markdown, from its `verdict.json`."""
    head = ("run", "length", "anchor (M1, M2)", "its attention alone (M4)", "placeholder (M5)", "sink (M6)", "verdict")
    rows = []
    for name in shipped_runs():
        data = read_result(SHIPPED / name / "verdict.json")
        attention = {e["length"]: e["value"] for e in data["evidence"] if (e["arm"], e["name"]) == ("M4", "attention")}
        for at in data["by_length"]:
            cells = [
                f"{role['status']} {_interval(role['rho'], role['ci'])}".strip()
                for role in (at["roles"][r] for r in ("anchor", "placeholder", "sink"))
            ]
            seen = attention.get(at["length"])
            cells.insert(1, "" if seen is None else _interval(seen["value"], [seen["low"], seen["high"]]))
            rows.append((name, at["length"], *cells, at["verdict"]))
    return _markdown(head, rows)


def calibration_table() -> str:
    """Confusion and error rates, as Markdown, from `results/calibration.json`."""
    data = read_calibration()
    labels = sorted({label for row in data["confusion"].values() for label in row})
    confusion = []
    for mechanism, row in data["confusion"].items():
        star = "" if mechanism in data["tuned_on"] else " *"
        confusion.append((mechanism + star, data["expected"][mechanism], *(row.get(label, "") for label in labels)))
    rates = []
    for name, rate in data["rates"].items():
        asked = "" if rate["target"] is None else f"at most {rate['target']}"
        rates.append((name, f"{rate['hits']} of {rate['n']}", asked, _yes(rate["met"])))
    for name, error in data["share error"].items():
        found = f"mean {error['mean']:.3f}, largest {error['largest']:.3f}, "
        found += f"{error['above target']} of {error['n']} above"
        rates.append((f"share error, {name}", found, f"at most {error['target']}", _yes(error["met"])))
    for name, row in data["coverage"].items():
        if row["intervals"]:
            low, high = row["target"]
            found = f"{row['rate']:.3f} of {row['intervals']}"
            rates.append((f"coverage of 95 % intervals, {name}", found, f"{low} to {high}", _yes(row["met"])))
    for name, null in data["nulls"].items():
        if name != "margin":
            found, margin = null["99th percentile"], data["nulls"]["margin"]
            cells = (f"{found:.3f} of {null['n']}", f"at most {margin}", _yes(found <= margin))
            rates.append((f"99th percentile of abs(rho), {name}", *cells))
    head = ("planted (* never used for tuning)", "right", *labels)
    return _markdown(head, confusion) + "\n" + _markdown(("", "measured", "asked", "met"), rates)


def zoo_table(zoo: Path = ZOO) -> str:
    """Every trained configuration, as Markdown, from `zoo/results.parquet` and `zoo/verdicts.json`.

    One table a task, one row a configuration and who writes the labels: accuracy is the median over the seeds that
    learned, with the least and the greatest. A verdict stands beside the configuration whose runs it judged.
    """
    from experiments.gathering import TABLE, read_verdicts

    path = zoo / TABLE
    if not path.is_file():
        return "not built yet\n"
    import pandas as pd

    frame: Any = pd.read_parquet(path)
    frame = frame[frame["posed"] == frame["task"] + "-" + frame["format"]]
    verdicts = read_verdicts(zoo)
    return "\n".join(
        _zoo_task(frame[frame["task"] == task], lengths, verdicts)
        for task, lengths in ZOO_LENGTHS.items() if task in set(frame["task"])
    ) or "not built yet\n"  # fmt: skip


def confirmatory_table(zoo: Path = ZOO) -> str:
    """What is confirmed of the aligned format over its seeds: each role at each length, with Holm's correction."""
    from experiments.gathering import read_verdicts
    from experiments.grid import BEST

    entry = read_verdicts(zoo).get(f"parity-aligned-{BEST}")
    if entry is None or entry["verdict"] is None:
        return "not built yet\n"
    head = ("length", "role", "rho over models", "matched control", "present: p", "Holm", "absent: p", "Holm", "status")
    rows = []
    for at in entry["verdict"]["by_length"]:
        for name, role in at["roles"].items():
            tests = [role.get("tests", {}).get(test, {}) for test in ("present", "absent")]
            control = role["control"] or {}
            cells = [f"{t[p]:.2g}" if t else "" for t in tests for p in ("p", "holm")]
            beside = _interval(control.get("value"), [control["low"], control["high"]] if control else None)
            rows.append((at["length"], name, _interval(role["rho"], role["ci"]), beside, *cells, role["status"]))
    verdict = entry["verdict"]
    words = f"{entry['learned']} of {entry['of']} models learned the task, {len(entry['models'])} of them are judged: "
    words += f"**{verdict['verdict']}**. "
    words += f"May be claimed: {verdict['may_claim']}. May not be claimed: {verdict['may_not_claim']}.\n"
    return _markdown(head, rows) + "\n" + words


def _zoo_task(frame: Any, lengths: Sequence[int], verdicts: Mapping[str, dict]) -> str:
    from interp.views.zoo.frames import FAMILIES, in_order

    head = ["format", "family", "rehearsal", "learned", "labels"]
    head += [f"{metric} n={n}" for metric in ("step", "exact") for n in lengths] + ["verdict"]
    rows = []
    configs: dict[Any, Any] = dict(iter(frame.groupby(["family", "format", "rehearsal"])))
    families, formats = in_order(frame["family"], tuple(FAMILIES)), in_order(frame["format"])
    for key in sorted(configs, key=lambda key: (families.index(key[0]), formats.index(key[1]), -key[2])):
        (family, fmt, share), config = key, configs[key]
        learned = config.groupby("run")["learned"].first().astype(bool)
        entry = verdicts.get(f"{config['task'].iloc[0]}-{fmt}-{family}", {})
        ours = set(entry.get("models", ())) & set(learned.index)
        label = (entry["verdict"] or {}).get("verdict", "") if ours else ""
        kept = config[config["run"].isin(learned[learned].index)]
        for mode in (m for m in ("forced", "written") if m in set(config["mode"])):
            cells = [
                _spread(kept[(kept["mode"] == mode) & (kept["metric"] == metric) & (kept["length"] == n)]["value"])
                for metric in ("step", "exact") for n in lengths
            ]  # fmt: skip
            of = f"{int(learned.sum())} of {len(learned)}"
            rows.append((fmt, family, f"{share:g}", of, mode, *cells, label))
    return _markdown(head, rows)


def _spread(values: Iterable[float]) -> str:
    """Median, least and greatest; the value alone where there is one, nothing where there is none."""
    import statistics

    found = list(values)
    if len(found) < 2:
        return "".join(f"{v:.3f}" for v in found)
    return f"{statistics.median(found):.3f} [{min(found):.3f}, {max(found):.3f}]"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(map(str, cells))} |" for cells in rows]
    return "\n".join(lines) + "\n"


def _interval(value: float | None, bounds: list[float] | None) -> str:
    return "" if value is None or bounds is None else f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _yes(met: bool | None) -> str:
    return {None: "", True: "yes", False: "**no**"}[met]


TABLES: dict[str, Callable[[], str]] = {
    "verdict": verdict_table, "calibration": calibration_table, "circuit": circuit_table, "accuracy": accuracy_table,
    "speed": speed_table, "edges": edges_table, "scaling": scaling_table, "drift": drift_table,
}  # fmt: skip


FIGURE_TABLES: dict[str, Callable[[], str]] = {"zoo": zoo_table, "confirmatory": confirmatory_table}
ROOT = Path(__file__).parent.parent
# Files with tables, and which they have.
PLACES = {ROOT / "README.md": TABLES, ROOT / "figures" / "README.md": FIGURE_TABLES}


def with_tables(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """A README's text with the tables in their places."""
    for name, make in tables.items():
        begin, end = f"<!-- {name} table: python -m experiments.tables -->\n", f"<!-- end of {name} table -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"the README has no place for the {name} table, between {begin.strip()} and {end}")
        text = before + begin + make() + end + after
    return text


if __name__ == "__main__":
    with saying_versions():
        for readme, tables in PLACES.items():
            write_whole(readme, with_tables(readme.read_text(encoding="utf-8"), tables))
