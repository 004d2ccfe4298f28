"""Markdown tables of the shipped runs and of the calibration, from their result files."""

from __future__ import annotations

from experiments.support.reading import read_calibration, read_result
from experiments.tables.cells import interval, markdown, yes
from interp.models.names import SHIPPED, shipped_runs
from probes.arms.naming import with_arm_names
from probes.evidence import find_rows
from probes.keys import ATTENTION

LENGTHS = (10, 20, 30, 40, 60)
METRICS = {"step": "step accuracy", "exact": "exact match", "final": "final bit"}
# Share of the full model's margin from which a circuit counts as found.
FOUND = 0.9


def shipped_with(file: str) -> list[str]:
    """Return the names of the shipped runs that have a result file."""
    return [name for name in shipped_runs() if (SHIPPED / name / file).exists()]


def accuracy_table() -> str:
    """Return the three metrics of each shipped run by length and mode, from its `evaluation.json`."""
    cells = []
    for name in shipped_with("evaluation.json"):
        rows = read_result(SHIPPED / name / "evaluation.json")["accuracy"]
        values = {(r["mode"], r["metric"], r["length"]): r["value"] for r in rows}
        for mode in dict.fromkeys(r["mode"] for r in rows):
            for metric, title in METRICS.items():
                cells.append((name, mode, title, *(f"{values[mode, metric, n]:.3f}" for n in LENGTHS)))
    return markdown(("run", "labels", "metric", *(f"n={n}" for n in LENGTHS)), cells)


def circuit_table() -> str:
    """Return the circuit of each shipped run that has one at each length, from its `circuit.json`.

    A circuit is found where its faithfulness at the length of the search is at least `FOUND`. The last column is the
    smallest set of edges that reaches it without pruning, of those that were tried: the best by score.
    """
    head = (
        "run",
        "edges",
        "length",
        "faithfulness",
        "step accuracy",
        "of the full model",
        "heads",
        "circuit",
        f"best edges by score that reach {FOUND:g}",
    )
    rows = []
    for name in shipped_with("circuit.json"):
        data = read_result(SHIPPED / name / "circuit.json")
        searched = data["lengths"][str(data["options"]["length"])]
        size = data["circuit"]["size"]
        state = "found" if searched["values"] >= FOUND else f"not found with {size} edges"
        reach = data["curves"]["greedy"][f"smallest_with_{FOUND:g}"]
        for n, worth in data["lengths"].items():
            share = data["circuit"]["share"]
            cells = (
                name,
                f"{size} of {data['possible_edges']} ({share:.1%})",
                n,
                interval(worth["values"], [worth["low"], worth["high"]]),
                f"{worth['accuracy']:.3f}",
                f"{worth['accuracy_full']:.3f}",
                len(data["heads"]),
                state,
                f"{reach} ({reach / data['possible_edges']:.0%})",
            )
            rows.append(cells)
    return markdown(head, rows)


def verdict_table() -> str:
    """Return the deciding arms of each shipped run that has a verdict, from its `verdict.json`."""
    head = (
        "run",
        "length",
        "anchor (M1 input swap, M2 output swap, or by the labels that are named)",
        "attention alone (M4 routes)",
        "placeholder (M5 history)",
        "sink on answers",
        "sink on margins",
        "verdict",
    )
    rows = []
    for name in shipped_with("verdict.json"):
        data = read_result(SHIPPED / name / "verdict.json")
        attention = {e["length"]: e["value"] for e in find_rows(data["evidence"], ATTENTION)}
        for at in data["by_length"]:
            cells = [
                f"{role['status']} {interval(role['rho'], role['ci'])} {role.get('by', '')}".strip()
                for role in (at["roles"][r] for r in ("anchor", "placeholder", "sink"))
            ]
            patched = attention.get(at["length"])
            cells.insert(1, "" if patched is None else interval(patched["value"], [patched["low"], patched["high"]]))
            margins = at["roles"]["sink"].get("margins")
            shown = f"{margins['status']} {interval(margins['share'], margins['ci'])}" if margins else ""
            rows.append((name, at["length"], *cells, shown, at["verdict"]))
    return markdown(head, rows)


def calibration_table() -> str:
    """Return the confusion table and the error rates, from `results/calibration.json`."""
    data = read_calibration()
    labels = sorted({label for row in data["confusion"].values() for label in row})
    confusion = []
    for mechanism, row in data["confusion"].items():
        mark = "" if mechanism in data["tuned_on"] else " *"
        confusion.append((mechanism + mark, data["expected"][mechanism], *(row.get(label, "") for label in labels)))
    rates = []
    for name, rate in data["rates"].items():
        name = name.replace("undecided", "undecided or unresolved")
        required = "" if rate["target"] is None else f"at most {rate['target']}"
        rates.append((name, f"{rate['hits']} of {rate['n']}", required, yes(rate["met"])))
    for name, error in data["share error"].items():
        measured = f"mean {error['mean']:.3f}, largest {error['largest']:.3f}, "
        measured += f"{error['above target']} of {error['n']} above"
        rates.append((f"share error, {name}", measured, f"at most {error['target']}", yes(error["met"])))
    for name, row in data["coverage"].items():
        if row["intervals"]:
            low, high = row["target"]
            measured = f"{row['rate']:.3f} of {row['intervals']}"
            rates.append((f"coverage of 95 % intervals, {name}", measured, f"{low} to {high}", yes(row["met"])))
    for name, null in data["nulls"].items():
        if name != "margin":
            quantile, margin = null["99th percentile"], data["nulls"]["margin"]
            cells = (f"{quantile:.3f} of {null['n']}", f"at most {margin}", yes(quantile <= margin))
            rates.append((f"99th percentile of abs(rho), {with_arm_names(name)}", *cells))
    head = ("planted (* never used for tuning)", "expected", *labels)
    return markdown(head, confusion) + "\n" + markdown(("", "measured", "required", "met"), rates)
