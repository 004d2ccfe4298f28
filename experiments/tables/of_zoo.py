"""Numbers of the zoo for the prose of the READMEs, from its table and its verdicts over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from math import nan
from statistics import fmean

from pyarrow import parquet

from experiments.gathering import TABLE, read_verdicts
from experiments.support.reading import read_result
from interp.models.names import ZOO
from probes.keys import EITHER_SIDE, MARGIN_HELD


@cache
def rows() -> list[dict]:
    """Return all rows of the results of the zoo."""
    return parquet.read_table(ZOO / TABLE).to_pylist()


def by_seed(
    name: str, length: int, metric: str = "exact", mode: str = "forced", *, posed: str = "", learned: bool = True
) -> dict[int, float]:
    """Return the value of each seed of a configuration that learned, or with `learned=False` of each that did not."""
    task, form, family = name.split("-", 2)
    values = {
        row["seed"]: row["value"]
        for row in rows()
        if (row["task"], row["format"], row["family"]) == (task, form, family)
        and (row["length"], row["metric"], row["mode"]) == (length, metric, mode)
        and (row["posed"], row["learned"]) == (posed or f"{task}-{form}", learned)
    }
    assert values, (name, length, metric, mode, posed, learned)
    return values


def listed(*arguments, **options) -> list[float]:
    """Return the values of `by_seed`, by rising seed."""
    return list(by_seed(*arguments, **options).values())


def ends(*arguments, **options) -> tuple[float, float]:
    """Return the smallest and the largest value of `by_seed`."""
    return at_ends(listed(*arguments, **options))


def at_ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest value."""
    return min(values), max(values)


def recalled(name: str) -> dict[int, float]:
    """Return the share of rehearsed values that each seed recalls, from the record of its training."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(ZOO.glob(f"{name}-seed*/run.json"))]
    return {r["recipe"]["seed"]: r["outcome"]["token_accuracy"]["rehearsal"] for r in records}


def sinks(name: str, *, control: bool = False) -> list[float]:
    """Return the mean over the judged lengths of each model's sink, or of its control, from `battery.json`."""
    means = []
    for run in sorted(judged(name)["models"]):
        lengths = {row["length"] for row in rows() if (row["run"], row["metric"]) == (run, "rho sink")}
        measured = read_result(ZOO / run / "battery.json")["battery"]["measured"]
        evidence = [e for at in measured if at["length"] in lengths for e in at["evidence"] if e["name"] == "sink"]
        values = [e["control" if control else "value"] for e in evidence]
        means.append(fmean(value["value"] for value in values if value is not None) if any(values) else nan)
    return means


ALIGNED, PADDED, OWN, BARE = (f"addition-{form}-alibi" for form in ("aligned", "zeropad", "nonaligned", "none"))
ANCHORED, SCRATCHPAD = "parity-aligned-alibi", "parity-scratchpad-rotary"
KEY_SINKS = "parity-aligned-alibi_sink"
NUMERIC, CYCLIC = "parity-numeric-alibi", "parity-cyclic-alibi"
HINTED = "parity-hints-alibi"
UNPLACED, ROTARY, ABSOLUTE = (f"parity-aligned-{family}" for family in ("none", "rotary", "absolute"))
LARGER = ("12x768x12", "24x1024x16")
GAPS, FURTHEST = [f"parity-gap{gap}-alibi" for gap in (1, 2, 4)], "parity-gap8-alibi"


def beside_sinks(name: str, length: int) -> list[float]:
    """Return exact match by rising sink, of the addition models with shared labels or with separate ones."""
    names = {"shared": (ALIGNED, PADDED), "own": (OWN,)}[name]
    pairs = [
        (sink, right)
        for each in names
        for sink, right in zip(listed(each, 10, "rho sink", ""), listed(each, length), strict=True)
    ]
    return [right for _, right in sorted(pairs)]


def rhos(names: Iterable[str], length: int) -> list[float]:
    """Return the anchor's rho of every model of some configurations that is judged at a length."""
    return [rho for name in names for rho in listed(name, length, "rho anchor", "")]


def placeholder(run: str) -> float:
    """Return the mean of one model's placeholder over the lengths at which it is judged."""
    return fmean(row["value"] for row in rows() if (row["run"], row["metric"]) == (run, "rho placeholder"))


@cache
def verdicts() -> dict:
    """Return the verdicts over seeds, by configuration."""
    return read_verdicts(ZOO)


def judged(name: str) -> dict:
    """Return the verdict over the seeds of a configuration."""
    return verdicts()[name]["verdict"]


def lost(name: str) -> list[float]:
    """Return each model's loss of accuracy without labels at the trained length, with attention renormalised."""
    removals = [e for e in judged(name)["evidence"] if e["name"] == "remove labels, all heads: renormalise"]
    return removals[0]["details"]["models"]


def over_seeds(name: str, evidence: str, at: int = -1) -> list[float]:
    """Return evidence over the seeds of a configuration with its interval, at the longest length or at another one."""
    rows = [e["value"] for e in judged(name)["evidence"] if e["name"] == evidence]
    return [rows[at][key] for key in ("value", "low", "high")]


def margins_held(name: str, length: int, seeds: Sequence[int]) -> list[float]:
    """Return the share of the margin lost without labels in idle heads of single models of the zoo, by seed."""
    batteries = [read_result(ZOO / f"{name}-seed{seed}" / "battery.json")["battery"]["measured"] for seed in seeds]
    found = [e for at in batteries for m in at if m["length"] == length for e in m["evidence"]]
    return [e["value"]["value"] for e in found if e["name"] == MARGIN_HELD.template]


def posed(name: str, form: str, length: int = 20) -> list[float]:
    """Return the step accuracy of the models of a configuration on parity in another format."""
    return listed(name, length, "step", posed=f"parity-{form}")


def blurred() -> list[float]:
    """Return the shares of steps at trained lengths that another bit than the right one decides, without an address."""
    shares = []
    for form in ("scratchpad", "constant", "nonaligned"):
        for length in (15, 20):
            runs = {f"parity-{form}-alibi-seed{seed}" for seed in by_seed(f"parity-{form}-alibi", length)}
            for run in runs:
                read = {row["metric"]: row["value"] for row in rows() if (row["run"], row["length"]) == (run, length)}
                shares.append(1 - read["offset +0"] - read.get("offset none", 0.0))
    return shares


def share_at(name: str, length: int, offsets: tuple[str, ...], seed: int) -> float:
    """Return the share of one model's steps that are decided at some offsets."""
    return sum(by_seed(name, length, f"offset {offset}", "")[seed] for offset in offsets)


def operands(posed: str, *pairs: tuple[int, int]) -> list[float]:
    """Return exact match of one model of addition by the digits of both operands, from its `operands.json`."""
    found = {tuple(row["digits"]): row["exact"] for row in _operands(posed)}
    return [found[pair] for pair in pairs]


def first_past(posed: str, pair: tuple[int, int], trained: int = 10) -> float:
    """Return the share of one model's wrong sums whose first wrong digit is past the trained places."""
    (row,) = [row for row in _operands(posed) if tuple(row["digits"]) == pair]
    wrong = sum(row["first"].values()) + row["forwards"]
    return sum(count for place, count in row["first"].items() if int(place) > trained) / wrong


def _operands(posed: str) -> list[dict]:
    rows = read_result(ZOO / f"{ALIGNED}-seed2" / "operands.json")["operands"]
    return [row for row in rows if row["posed"] == f"addition-{posed}"]


def larger(length: int, metric: str, mode: str) -> list[float]:
    """Return a value of the two models that were trained on a GPU, by rising size; those that have it."""
    return [by_seed(f"parity-aligned-alibi_{size}", length, metric, mode)[2] for size in LARGER]


UNREHEARSED = "parity-aligned-alibi+none"


def anchor_without_rehearsal() -> list[float]:
    """Return the anchor's rho at 20 bits without rehearsal: over the models with its interval, then of each by seed."""
    anchor = judged(UNREHEARSED)["by_length"][0]["roles"]["anchor"]
    return [anchor["rho"], *anchor["ci"], *listed(UNREHEARSED, 20, "rho anchor", "")]


def evidence_without_rehearsal(arm: str, name: str) -> list[float]:
    """Return a piece of evidence at 20 bits of the aligned models without rehearsal, by seed."""
    return evidence_of(sorted(judged(UNREHEARSED)["models"]), arm, name)


def renamed_without_rehearsal() -> list[float]:
    """Return the least and the most that untrained labels move without rehearsal, and the most that trained ones do."""
    untrained, trained = (
        evidence_without_rehearsal("M3", name) for name in ("rename to held-out labels", "rename labels")
    )
    return [*at_ends(untrained), max(map(abs, trained))]


NOTHING_REHEARSED: dict[str, Callable[[], list[float]]] = {
    "none-30": partial(listed, UNREHEARSED, 30),
    "none-40": partial(listed, UNREHEARSED, 40),
    "none-anchor": anchor_without_rehearsal,
    "none-identity": partial(evidence_without_rehearsal, "identity", "largest effect"),
    "none-presence": partial(evidence_without_rehearsal, "presence", "largest effect"),
    "none-repaired": partial(evidence_without_rehearsal, "presence", "repaired by a key of equal score"),
    "none-untrained": renamed_without_rehearsal,
    "none-twice": partial(evidence_without_rehearsal, "presence", "labels count twice"),
    "none-scratchpad": partial(listed, "parity-scratchpad-alibi+none", 20, "step", learned=False),
}


def by_own_label(*runs: str) -> list[float]:
    """Return what trading two labels moves at 20 bits, of runs of the zoo, whatever address their verdicts name."""
    return evidence_of(runs, EITHER_SIDE.arm, EITHER_SIDE.template)


def evidence_of(runs: Iterable[str], arm: str, name: str) -> list[float]:
    """Return a piece of evidence at the first length of runs of the zoo, from `battery.json`."""
    first = [read_result(ZOO / run / "battery.json")["battery"]["measured"][0] for run in runs]
    return [e["value"]["value"] for at in first for e in at["evidence"] if (e["arm"], e["name"]) == (arm, name)]


def own_labels() -> list[float]:
    """Return exact match after rehearsal of a format's own labels, and the anchor's rho of numerals at 20 bits.

    Numerals at 30, 40 and 60 bits, then cyclic labels at 30.
    """
    numerals, repeated = (f"parity-{form}-alibi+own60" for form in ("numeric", "cyclic"))
    reach = [value for length in (30, 40, 60) for value in listed(numerals, length)]
    return [*reach, *listed(repeated, 30), *listed(numerals, 20, "rho anchor", "")]
