"""Numbers in the prose of the READMEs, computed from committed result files.

A number in a document is followed by a marker, `.971<!--=aligned-60.0-->`: an entry of `NUMBERS` and the index of the
value in it. `python -m experiments.tables` writes the number again; the prose around it is free to change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from math import nan, prod
from pathlib import Path
from statistics import fmean, median

from pyarrow import parquet
from safetensors import safe_open

from experiments.forced.judging import read_forced
from experiments.gathering import TABLE, read_verdicts
from experiments.support.binding_results import file_of
from experiments.support.list_results import LISTS
from experiments.support.reading import read_result
from interp.models.adapters import ADAPTER_WEIGHTS
from interp.models.names import SHIPPED, ZOO
from probes.keys import MARGIN_HELD, PRESENCE_MARGIN

FOLDER = Path(__file__).parent.parent
MARKER = re.compile(r"(?P<old>[-+]?[\d,]*\.?\d+|-?\?)<!--=(?P<name>[\w-]+)\.(?P<index>\d+)-->")
# Evaluations of SmolLM2-135M with adapters, by format. The adapter of the constant label is not shipped.
ADAPTED = {
    "aligned": SHIPPED / "smollm2-parity-aligned" / "evaluation.json",
    "scratchpad": SHIPPED / "smollm2-parity-scratchpad" / "evaluation.json",
}
# The pretrained model whose lists are judged, and the kinds of label and numbers of items in the text.
BASE = "smollm2-135m"
LISTED = (
    *(("letters", n) for n in (6, 12)),
    *(("numerals", n) for n in (6, 12)),
    *(("bullets", n) for n in (6, 12)),
    ("no-labels", 6),
)
# Evidence on the aligned adapter that the text quotes.
ADAPTED_EVIDENCE = (
    "either side",
    "rename labels",
    "V at label, L15-L19",
    "K at bit, L15-L19",
    "history in V at labels",
    "swap the input labels of the step and before",
    "swap the input labels before",
)
# Perplexities of the steering example in interp/README.md, at its scales 0, 1 and 4.
STEERING = FOLDER / "results" / "steering.json"
WITHOUT_REHEARSAL = FOLDER / "recipes" / "parity-aligned-alibi-without-rehearsal.json"


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


def printed(value: float, digits: int) -> str:
    """Return a number as the READMEs print it: `.867`, `1.000`, `-.00`."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")


ALIGNED, PADDED, OWN, BARE = (f"addition-{form}-alibi" for form in ("aligned", "zeropad", "nonaligned", "none"))
ANCHORED, SCRATCHPAD = "parity-aligned-alibi", "parity-scratchpad-rotary"
KEY_SINKS = "parity-aligned-alibi_sink"
NUMERIC, CYCLIC = "parity-numeric-alibi", "parity-cyclic-alibi"
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


def checked(case: str, quantity: str) -> list[float]:
    """Return what the raw models of a forced case do, by seed (`experiments.forced.checks`)."""
    return [row["checked"][quantity] for row in read_forced().values() if row["case"] == case]


def rested(case: str) -> list[float]:
    """Return the attention of the noisy head to labels, by seed, and the answers without attention to labels."""
    return [*checked(case, "attention on labels, last head"), *checked(case, "answers without labels")]


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


def millions_of_parameters(path: Path) -> float:
    """Return the number of parameters in a file of weights, in millions, from its header."""
    with safe_open(path, framework="pt") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys()) / 1e6  # noqa: SIM118


def evaluated(path: Path, metric: str, mode: str, lengths: Sequence[int]) -> list[float]:
    """Return the accuracies of one model by length, from its `evaluation.json`."""
    values = {
        at["length"]: at["value"]
        for at in read_result(path)["accuracy"]
        if (at["metric"], at["mode"]) == (metric, mode)
    }
    return [values[length] for length in lengths]


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


def presence(run: str, name: str) -> list[float]:
    """Return an effect of the presence arm in the stored verdict of a shipped run, by length."""
    evidence = json.loads((SHIPPED / run / "verdict.json").read_text(encoding="utf-8"))["evidence"]
    return [e["value"]["value"] for e in evidence if (e["arm"], e["name"]) == ("presence", name)]


def evidence_at(run: str, names: Sequence[str], length: int = 20) -> list[float]:
    """Return value, lower and upper end of pieces of evidence, by name, in the stored verdict of a shipped run."""
    evidence = read_result(SHIPPED / run / "verdict.json")["evidence"]
    by_name = {e["name"]: e["value"] for e in evidence if e["length"] == length}
    return [by_name[name][key] for name in names for key in ("value", "low", "high")]


def on_list(run: str, task: str, items: int) -> list[float]:
    """Return accuracy, shares and remainder of a stored verdict on a list; the accuracy only where it was refused.

    The shares are own label traded in the list and in the query, order and its control, and position.
    """
    found = read_result(LISTS / run / file_of(task, items))
    if found["refusal"] is not None:
        return [found["accuracy"]["value"]]
    shares = {arm: share["value"]["value"] for arm, share in found["shares"].items()}
    control = found["shares"]["order"]["control"]["value"] if "order" in shares else nan
    values = [shares.get(arm, nan) for arm in ("label at list", "label at query", "order")]
    rest = nan if found["remainder"] is None else found["remainder"]["value"]
    return [found["accuracy"]["value"], *values, control, shares.get("position", nan), rest]


def calibrated_before() -> list[float]:
    """Return the counts with the margins `2026-11d`: wrong labels, models, and those without a label."""
    path = FOLDER / "results" / "calibration-2026-11d.json"
    rates = json.loads(path.read_text(encoding="utf-8"))["rates"]
    wrong = rates["wrong confident label"]
    return [wrong["hits"], wrong["n"], rates["undecided, all"]["hits"]]


def recalled_by_label() -> list[float]:
    """Return the smallest share of own label, traded in the list, over the stored verdicts on recall."""
    found = [read_result(path) for path in sorted(LISTS.glob("*/verdict-recall-*.json"))]
    return [min(x["shares"]["label at list"]["value"]["value"] for x in found if x["refusal"] is None)]


# Decimal places and values, by name.
NUMBERS: dict[str, tuple[int, Callable[[], Iterable[float]]]] = {
    "calibration-before": (0, calibrated_before),
    **{f"list-{kind}-{items}": (2, partial(on_list, BASE, f"list-{kind}", items)) for kind, items in LISTED},
    "recall-own-label": (2, recalled_by_label),
    "steering": (1, lambda: [row["perplexity"] for row in json.loads(STEERING.read_text(encoding="utf-8"))["scales"]]),
    "adapted-evidence": (2, partial(evidence_at, "smollm2-parity-aligned", ADAPTED_EVIDENCE)),
    "no-rehearsal-40": (3, lambda: evaluated(WITHOUT_REHEARSAL, "step", "forced", [40])),
    "shipped-written": (
        3,
        lambda: evaluated(SHIPPED / "parity-aligned-alibi" / "evaluation.json", "step", "written", (45, 50, 55, 60)),
    ),
    **{
        f"no-rehearsal-{mode}-{metric}": (3, partial(evaluated, WITHOUT_REHEARSAL, metric, mode, (10, 20, 30, 40, 60)))
        for mode in ("forced", "written")
        for metric in ("step", "exact")
    },
    "parameters": (2, lambda: [millions_of_parameters(SHIPPED / "parity-aligned-alibi" / "model.safetensors")]),
    "lora-parameters": (2, lambda: [millions_of_parameters(SHIPPED / "smollm2-parity-aligned" / ADAPTER_WEIGHTS)]),
    **{
        f"lora-{form}-{mode}": (3, partial(evaluated, path, "exact", mode, (10, 20, 25, 30, 40, 60)))
        for form, path in ADAPTED.items()
        for mode in (("forced", "written") if form == "aligned" else ("forced",))
    },
    "aligned-60": (
        3,
        lambda: [f(listed(ANCHORED, 60, mode=mode)) for mode in ("forced", "written") for f in (median, min)],
    ),
    "operands-equal": (3, lambda: operands("aligned", (14, 14), (20, 20))),
    "operands-unequal": (3, lambda: operands("aligned", (14, 10), (10, 14), (14, 5), (5, 14), (20, 10))),
    "operands-padded": (3, lambda: operands("zeropad", (14, 10), (10, 14), (14, 5), (5, 14), (20, 10))),
    "operands-first": (2, lambda: [first_past("aligned", pair) for pair in ((14, 14), (20, 20))]),
    "larger-60": (3, lambda: [*larger(60, "exact", "forced"), *larger(60, "exact", "written")]),
    "larger-anchor": (3, lambda: larger(20, "rho anchor", "")),
    "larger-sink": (2, lambda: [larger(20, "rho sink", "")[-1]]),
    "reach-80": (3, lambda: listed(ANCHORED, 80)),
    "reach-100": (3, lambda: [median(values := listed(ANCHORED, 100)), max(values)]),
    "aligned-written-40": (3, lambda: [min(listed(ANCHORED, 40, mode="written"))]),
    "aligned-step-40": (3, lambda: [min(listed(ANCHORED, 40, "step") + listed(ANCHORED, 40, "step", "written"))]),
    "rotary-anchor": (2, lambda: listed(ROTARY, 20, "rho anchor", "")),
    "no-positions-step": (3, lambda: [*listed(UNPLACED, 20, "step", learned=False), *listed(UNPLACED, 40, "step")]),
    "no-positions-anchor": (2, lambda: listed(UNPLACED, 20, "rho anchor", "")),
    "absolute-scratchpad": (
        3,
        lambda: [
            f
            for learned in (True, False)
            for f in sorted(listed("parity-scratchpad-absolute", 20, "step", learned=learned))
        ],
    ),
    "no-positions-recall": (3, lambda: [recalled(UNPLACED)[seed] for seed in (2, 3, 4)]),
    "aligned-recall": (3, lambda: [min(recalled(ANCHORED).values())]),
    "rotary-recall": (2, lambda: [max(recalled(ROTARY).values())]),
    "absolute-recall": (2, lambda: [max(recalled(ABSOLUTE).values())]),
    "key-sink-anchor": (2, lambda: ends(KEY_SINKS, 20, "rho anchor", "")),
    "key-sink-60": (
        3,
        lambda: [value for mode in ("forced", "written") for value in sorted(listed(KEY_SINKS, 60, mode=mode))],
    ),
    "forced-first-layer": (2, lambda: checked("only path", "answers without labels in the first layer")),
    **{
        f"forced-{name}": (2, partial(rested, case))
        for name, case in (("rest", "resting place"), ("null", "resting place, null key"))
    },
    "key-sink-margins": (2, lambda: [v for name in (ANCHORED, KEY_SINKS) for v in margins_held(name, 20, (2, 3, 4))]),
    "key-sink-sink": (2, lambda: [max(sinks(KEY_SINKS))]),
    "variants-30": (
        3,
        lambda: [
            median(listed(f"parity-{form}-alibi", 30, "step"))
            for form in ("numeric", "constant", "cyclic", "nonaligned", "scratchpad")
        ],
    ),
    "nonaligned-failed": (3, lambda: listed("parity-nonaligned-alibi", 20, "step", learned=False)),
    "addition-14": (3, lambda: [*listed(ALIGNED, 14), *set(listed(ALIGNED, 10)), *listed(OWN, 14)]),
    "addition-own-format": (3, lambda: [min(listed(ALIGNED, 10, "step"))]),
    "addition-bare": (2, lambda: ends(BARE, 10, "step", learned=False)),
    "addition-written-20": (3, lambda: [max(listed(ALIGNED, 20, mode="written"))]),
    "addition-padded": (3, lambda: [*listed(PADDED, 14), *listed(PADDED, 20), *listed(ALIGNED, 20)]),
    "gaps": (
        3,
        lambda: [
            *(end for name in (ANCHORED, *GAPS[:2]) for end in ends(name, 40)),
            *sorted(listed(GAPS[2], 40)),
            *listed(FURTHEST, 40),
            *(end for name in (ANCHORED, *GAPS) for end in ends(name, 60)),
            *listed(FURTHEST, 60),
        ],
    ),
    "gap8-failed": (3, lambda: sorted(listed(FURTHEST, 20, "step", learned=False))),
    "gap8-recall": (3, lambda: [min(recalled(FURTHEST).values())]),
    "gaps-anchor": (2, lambda: [end for length in (20, 40) for end in at_ends(rhos(GAPS, length))]),
    "gap8-roles": (
        2,
        lambda: [*listed(FURTHEST, 20, "rho anchor", ""), *sinks(FURTHEST), *sinks(FURTHEST, control=True)],
    ),
    "gap2-placeholder": (2, lambda: [placeholder("parity-gap2-alibi-seed3")]),
    "numeric-anchor": (2, lambda: [*ends(NUMERIC, 20, "rho anchor", ""), *judged(NUMERIC)["roles"]["anchor"]["ci"]]),
    "numeric-sink": (2, lambda: sorted(listed(NUMERIC, 20, "rho sink", ""))),
    "aligned-sink-40": (3, lambda: [(sink := judged(ANCHORED)["by_length"][-1]["roles"]["sink"])["rho"], *sink["ci"]]),
    "aligned-margin-held": (2, lambda: over_seeds(ANCHORED, MARGIN_HELD.template)),
    "aligned-cells": (2, lambda: [x for at in (0, -1) for x in over_seeds(ANCHORED, PRESENCE_MARGIN.template, at)]),
    "cyclic-removal": (2, lambda: at_ends(lost(CYCLIC))),
    "constant-removal": (2, lambda: lost("parity-constant-alibi")),
    "constant-presence": (
        2,
        lambda: [presence("parity-constant-alibi", name)[0] for name in ("largest effect", "labels count twice")],
    ),
    "aligned-presence": (2, lambda: presence("parity-aligned-alibi", "largest effect on margins")),
    "addition-aligned-sink": (2, lambda: [*sinks(ALIGNED)[::2], *sinks(ALIGNED, control=True)[::2], sinks(ALIGNED)[1]]),
    "addition-own-sink": (2, lambda: [*sinks(OWN), *sinks(OWN, control=True)]),
    "addition-padded-sink": (2, lambda: [*sorted(sinks(PADDED)), sinks(PADDED, control=True)[0]]),
    "encoding-sinks": (
        2,
        lambda: [sinks(name, control=control)[0] for name in (UNPLACED, ROTARY) for control in (False, True)],
    ),
    "addition-sinks": (2, lambda: sorted(listed(ALIGNED, 10, "rho sink", "") + listed(PADDED, 10, "rho sink", ""))),
    "addition-sinks-20": (3, lambda: beside_sinks("shared", 20)),
    "addition-own-sinks": (2, lambda: sorted(listed(OWN, 10, "rho sink", ""))),
    "addition-own-14": (3, lambda: beside_sinks("own", 14)),
    "rotary-scratchpad-offsets": (
        2,
        lambda: [share_at(SCRATCHPAD, 30, at, seed) for at in (("+12", "+13", "-7", "-6"), ("+0",)) for seed in (3, 4)],
    ),
    "rotary-scratchpad-none": (2, lambda: [share_at(SCRATCHPAD, 30, ("none",), 2)]),
    "rotary-aligned-offsets": (
        2,
        lambda: [
            *(share_at(ROTARY, 30, at, 2) for at in (("+9", "+10"), ("-19", "-18"), ("+0",), ("-10", "-9"))),
            *(share_at(ROTARY, 40, at, 2) for at in (("-10", "-9"), ("+0",), ("+19", "+20"))),
        ],
    ),
    "no-positions-offsets": (
        2,
        lambda: [share_at(UNPLACED, n, (at,), 2) for n, at in ((40, "+0"), (60, "+0"), (60, "none"))],
    ),
    "cyclic-none": (2, lambda: [share_at(CYCLIC, 60, ("none",), seed) for seed in (2, 3, 4)]),
    "blurred": (2, lambda: at_ends(blurred())),
    "posed-aligned": (
        2,
        lambda: at_ends([v for form in ("constant", "nonaligned", "cyclic") for v in posed(ANCHORED, form)]),
    ),
    "posed-nonaligned": (
        2,
        lambda: [
            posed("parity-nonaligned-alibi", "constant")[0],
            *posed("parity-nonaligned-alibi", "cyclic"),
        ],
    ),
    "cyclic-20": (3, lambda: [min(listed(CYCLIC, 20, "step"))]),
    "posed-cyclic": (
        2,
        lambda: [
            *(v for length in (20, 40) for v in posed(CYCLIC, "aligned", length)),
            *listed(CYCLIC, 40, "step"),
        ],
    ),
    "posed-addition": (
        2,
        lambda: sorted({round(v, 2) for v in listed(ALIGNED, 10, "step", posed="addition-nonaligned")}),
    ),
}


def with_numbers(text: str) -> str:
    """Return a document's text with the number before each marker written again.

    Raises `ValueError` for a marker whose name or index does not exist.
    """

    def written(match: re.Match) -> str:
        name, index = match["name"], int(match["index"])
        if name not in NUMBERS or index >= len(values_of(name)):
            raise ValueError(f"the marker {match[0]} names no number in experiments/tables/numbers.py")
        return f"{values_of(name)[index]}<!--={name}.{index}-->"

    return MARKER.sub(written, text)


@cache
def values_of(name: str) -> tuple[str, ...]:
    """Return the values of an entry as printed."""
    digits, compute = NUMBERS[name]
    return tuple(printed(value, digits) for value in compute())
