"""The counts of `mnemoscope calibrate` as tables on the terminal."""

from __future__ import annotations

from experiments.support.console import print_table


def report_rates(table: dict) -> None:
    """Print the confusion of mechanisms and verdicts, and the error rates."""
    labels = sorted({label for row in table["confusion"].values() for label in row})
    rows = [
        [m + ("" if m in table["tuned_on"] else " *"), table["expected"][m], *(str(row.get(x, 0)) for x in labels)]
        for m, row in table["confusion"].items()
    ]
    print_table("planted mechanism against verdict (* never used for tuning)", ["planted", "right", *labels], rows)
    rows = []
    for name, rate in table["rates"].items():
        count = f"{rate['hits']}/{rate['n']}"
        row = [name, _rate(rate["rate"]), _bounds(rate["interval"]), count, _most(rate["target"]), _met(rate["met"])]
        rows.append(row)
    for name, error in table["share error"].items():
        rows.append(
            [
                f"share error, {name}: largest",
                _rate(error["largest"]),
                "",
                f"mean {_rate(error['mean'])}",
                _most(error["target"]),
                _met(error["met"]),
            ]
        )
    for name, row in table["coverage"].items():
        bounds = f"{row['target'][0]} to {row['target'][1]}"
        rows.append(
            [
                f"coverage of 95 % intervals, {name}",
                _rate(row["rate"]),
                _bounds(row["interval"]),
                f"{row['covered']}/{row['intervals']}",
                bounds,
                _met(row["met"]),
            ]
        )
    for name, null in ((k, v) for k, v in table["nulls"].items() if k != "margin"):
        high = null["99th percentile"]
        within = None if high is None else high <= table["nulls"]["margin"]
        target = f"at most {table['nulls']['margin']}"
        rows.append([f"99th percentile of |rho|, {name}", _rate(high), "", str(null["n"]), target, _met(within)])
    title = "error rates (met: the rate itself is within the target; its interval may reach beyond)"
    print_table(title, ["", "rate", "95 %", "count", "target", "met"], rows)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _bounds(interval: dict | None) -> str:
    return "-" if interval is None else f"[{interval['low']:.3f}, {interval['high']:.3f}]"


def _most(target: float | None) -> str:
    return "-" if target is None else f"at most {target}"


def _met(met: bool | None) -> str:
    return {None: "-", True: "yes", False: "NO"}[met]


def report_families(table: dict) -> None:
    """Print the verdict on each family, clean and with dirt, and the counts."""
    rows = []
    for case in table["cases"]:
        dirt = "dirt" if case["dirty"] else "clean"
        rows.append([case["family"], case["architecture"], dirt, case["expected"], case["label"], case["outcome"]])
    print_table("families outside of the calibration", ["family", "in", "", "right", "verdict", "outcome"], rows)
    names = ("right", "wrong label", "wrong status", "none")
    counts = [[group, *(str(found.get(name, 0)) for name in names)] for group, found in table["counts"].items()]
    print_table("counts", ["", *names], counts)


def report_lists(table: dict) -> None:
    """Print the verdict on each planted model of a list, and the counts."""
    rows = []
    for case in table["cases"]:
        dirt, where = "dirt" if case["dirty"] else "clean", f"{case['task']}, {case['items']}"
        wrong = f"{case['outcome']}: {', '.join(case['wrong'])}" if case["wrong"] else case["outcome"]
        rows.append([case["mechanism"], case["architecture"], where, dirt, case["expected"], case["label"], wrong])
    print_table("planted models of lists", ["mechanism", "in", "list", "", "right", "verdict", "outcome"], rows)
    names = ("right", "incomplete", "wrong")
    counts = [[group, *(str(found.get(name, 0)) for name in names)] for group, found in table["counts"].items()]
    print_table("counts", ["", *names], counts)
    rates = [[name, f"{rate['hits']}/{rate['n']}", _bounds(rate["interval"])] for name, rate in table["rates"].items()]
    print_table("rates", ["", "count", "95 %"], rates)
