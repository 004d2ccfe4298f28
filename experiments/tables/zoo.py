"""Markdown tables of all trained configurations, from `results.parquet` and `verdicts.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from experiments.support.reading import read_result
from experiments.tables.cells import interval, markdown
from interp.models.names import ZOO
from interp.models.record import read_record
from probes.findings import MARGINS

# Lengths of the table of all configurations, by task: the longest trained length and longer ones.
ZOO_LENGTHS = {"parity": (20, 30, 40, 60), "addition": (10, 12, 14)}
# `mnemoscope train addition-aligned-alibi --seed 2 --precision bf16 --steps 3000`, evaluated.
FEWER_STEPS = Path(__file__).parent.parent / "recipes" / "addition-aligned-alibi-3000-steps.json"
ADDITION_LENGTHS = (10, 12, 14, 20)
# The least p of a sign-flip test of K models is 2 ** -K, so with fewer no role can be shown to be present.
FEWEST = next(k for k in count(1) if 2**-k <= MARGINS.alpha)
# Behind verdicts of batteries that were measured before the largest effects and presence existed.
EARLIER, PRESENCE = " †", "presence"


def zoo_table(zoo: Path = ZOO) -> str:
    """Return every trained configuration, from `zoo/results.parquet` and `zoo/verdicts.json`.

    One table per task, one row per configuration and mode (who writes the labels). Accuracy is the median [minimum,
    maximum] over the seeds that learned, and in round brackets over all seeds where none did. The verdict is over
    seeds, followed by the verdicts on single models.
    """
    from experiments.gathering import TABLE, read_verdicts

    path = zoo / TABLE
    if not path.is_file():
        return "not built yet\n"
    import pandas as pd

    frame: Any = pd.read_parquet(path)
    frame = frame[frame["posed"] == frame["task"] + "-" + frame["format"]]
    verdicts = read_verdicts(zoo)
    return (
        "\n".join(
            _zoo_task(frame[frame["task"] == task], lengths, verdicts)
            for task, lengths in ZOO_LENGTHS.items()
            if task in set(frame["task"])
        )
        or "not built yet\n"
    )


def addition_table(zoo: Path = ZOO) -> str:
    """Return exact match of addition after 3,000 and 6,000 steps, one seed, from two `evaluation.json` files."""
    run = zoo / "addition-aligned-alibi-seed2"
    record = read_record(run)
    assert record is not None
    cells = []
    for steps, path in ((3000, FEWER_STEPS), (record["outcome"]["steps"], run / "evaluation.json")):
        rows = read_result(path)["accuracy"]
        values = {(row["mode"], row["length"]): row["value"] for row in rows if row["metric"] == "exact"}
        for mode in ("forced", "written"):
            cells.append((f"{steps:,}", mode, *(f"{values[mode, n]:.3f}" for n in ADDITION_LENGTHS)))
    return markdown(("steps", "labels", *(f"n={n}" for n in ADDITION_LENGTHS)), cells)


def confirmatory_table(zoo: Path = ZOO) -> str:
    """Return the confirmatory tests of the aligned format over its seeds: each role at each length, Holm-corrected."""
    from experiments.gathering import read_verdicts
    from experiments.grid import BEST, CONFIRMING

    entry = read_verdicts(zoo).get(name := f"parity-aligned-{BEST}")
    if entry is None or entry["verdict"] is None:
        return "not built yet\n"
    planned = {f"{name}-seed{seed}" for seed in CONFIRMING}
    if strange := sorted(set(entry["models"]) - planned):
        raise ValueError(f"{zoo}: {', '.join(strange)}: in the verdict but not a planned seed; move it elsewhere")
    head = ("length", "role", "rho over models", "matched control", "present: p", "Holm", "absent: p", "Holm", "status")
    rows = []
    for at in entry["verdict"]["by_length"]:
        for name, role in at["roles"].items():
            rows.append((at["length"], name, *_tested(role, role["rho"])))
            if margins := role.get("margins"):
                rows.append((at["length"], f"{name} on margins", *_tested(margins, margins["share"])))
    verdict = entry["verdict"]
    summary = (
        f"{entry['learned']} of {entry['of']} models learned the task, {len(entry['models'])} of them are judged: "
    )
    summary += f"**{verdict['verdict']}**. "
    summary += f"May be claimed: {verdict['may_claim']}. May not be claimed: {verdict['may_not_claim']}.\n"
    return markdown(head, rows) + "\n" + summary


def _tested(finding: Mapping[str, Any], estimate: float | None) -> tuple[str, ...]:
    """Return the cells of a role, or of the sink on margins: estimate, control, p values and status."""
    tests = [(finding.get("tests") or {}).get(test, {}) for test in ("present", "absent")]
    control = finding["control"] or {}
    beside = interval(control.get("value"), [control["low"], control["high"]] if control else None)
    cells = [f"{t[p]:.2g}" if t else "" for t in tests for p in ("p", "holm")]
    return (interval(estimate, finding["ci"]), beside, *cells, finding["status"])


def _zoo_task(frame: Any, lengths: Sequence[int], verdicts: Mapping[str, dict]) -> str:
    from experiments.drawing.zoo.frames import FAMILIES, in_order

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
        label = judged_text(entry) if ours else ""
        some = learned[learned] if learned.any() else learned
        kept = config[config["run"].isin(some.index)]
        for mode in (m for m in ("forced", "written") if m in set(config["mode"])):
            cells = [spread(_values(kept, mode, metric, n), len(some)) for metric in ("step", "exact") for n in lengths]
            if not learned.any():
                cells = [f"({cell})" if cell else "" for cell in cells]
            of = f"{int(learned.sum())} of {len(learned)}"
            rows.append((fmt, family, f"{share:g}", of, mode, *cells, label))
    return markdown(head, rows)


def _values(rows: Any, mode: str, metric: str, n: int) -> Any:
    return rows[(rows["mode"] == mode) & (rows["metric"] == metric) & (rows["length"] == n)]["value"]


def judged_text(entry: Mapping[str, Any], short: bool = False) -> str:
    """Return the verdict over the seeds, with the number of models per verdict on single models; "" if there is none.

    Models that are undecided because there are too few of them are said to be that, and how many that learned are
    judged where not all are. Verdicts of an earlier battery,
    without the largest effects and presence, end with a dagger.

    >>> verdict = {"verdict": "undecided", "evidence": [{"arm": "presence"}]}
    >>> judged_text({"verdict": verdict, "learned": 3, "alone": {"a": "anchor", "b": "anchor", "c": "undecided"}})
    '2 of 3 models anchor, 1 undecided: too few for a claim over models'
    """
    if entry["verdict"] is None:
        return ""
    complete = any(e["arm"] == PRESENCE for e in entry["verdict"]["evidence"])
    judged, learned = len(entry["alone"]), entry["learned"]
    some = f", {judged} of {learned} judged" if judged < learned else ""
    return _over_seeds(entry, short) + some + ("" if complete else EARLIER)


def _over_seeds(entry: Mapping[str, Any], short: bool) -> str:
    from experiments.drawing.zoo.roles import judged_alone

    label, alone = entry["verdict"]["verdict"], entry["alone"]
    if len(alone) < 2:
        return label
    if label != "undecided" or len(alone) >= FEWEST:
        return f"{label} ({judged_alone(alone)})"
    (most, n), *others = Counter(alone.values()).most_common()
    counts = ", ".join((f"{n} of {len(alone)} {'' if short else 'models '}{most}", *(f"{k} {x}" for x, k in others)))
    return f"{counts}: {'too few' if short else 'too few for a claim over models'}"


def spread(values: Iterable[float], of: int = 0) -> str:
    """Return median, minimum and maximum; a single value alone; "" for none.

    `of`: the number of seeds of the row; where fewer were measured, their number follows.

    >>> spread([0.5, 1.0], of=2), spread([0.5], of=2), spread([], of=2)
    ('0.750 [0.500, 1.000]', '0.500; 1 seed', '')
    """
    import statistics

    numbers = list(values)
    if not numbers:
        return ""
    text = f"{statistics.median(numbers):.3f}"
    if len(numbers) > 1:
        text += f" [{min(numbers):.3f}, {max(numbers):.3f}]"
    return text if len(numbers) >= of else f"{text}; {len(numbers)} seed{'s' if len(numbers) > 1 else ''}"
