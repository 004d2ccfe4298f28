"""Numbers in the words of `figures/README.md` and `RECIPES.md` are those of the committed files.

Tables are written by a command; words are not. Each claim here is a sentence with its numbers left out and the code
that reads them, so that a zoo that has changed fails here until the words have been read again.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from math import nan
from pathlib import Path
from statistics import fmean, median

import pytest
from pyarrow import parquet

from experiments.gathering import TABLE, read_verdicts
from interp.models.names import SHIPPED, ZOO
from experiments.support.reading import read_result
from tests.test_readme import ROOT

EXPERIMENTS = ROOT / "experiments"
WITHOUT_REHEARSAL = EXPERIMENTS / "recipes" / "parity-aligned-alibi-without-rehearsal.json"
DOCUMENTS = (ROOT / "figures" / "README.md", EXPERIMENTS / "RECIPES.md")
WORDS = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in DOCUMENTS)


@cache
def rows() -> list[dict]:
    return parquet.read_table(ZOO / TABLE).to_pylist()


def by_seed(
    name: str, length: int, metric: str = "exact", mode: str = "forced", *, posed: str = "", learned: bool = True
) -> dict[int, float]:
    """Value of each seed of a configuration, of those that learned or (`learned=False`) of those that did not."""
    task, form, family = name.split("-")
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
    return list(by_seed(*arguments, **options).values())


def ends(*arguments, **options) -> tuple[float, float]:
    return at_ends(listed(*arguments, **options))


def at_ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def recalled(name: str) -> dict[int, float]:
    """Share of rehearsed values that each seed of a configuration recalls, by the record of its training."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(ZOO.glob(f"{name}-seed*/run.json"))]
    return {r["recipe"]["seed"]: r["outcome"]["token_accuracy"]["rehearsal"] for r in records}


def sinks(name: str, *, control: bool = False) -> list[float]:
    """Mean over the judged lengths of each model's sink, or of its control, in `battery.json`."""
    found = []
    for run in sorted(judged(name)["models"]):
        lengths = {row["length"] for row in rows() if (row["run"], row["metric"]) == (run, "rho sink")}
        measured = read_result(ZOO / run / "battery.json")["battery"]["measured"]
        evidence = [e for at in measured if at["length"] in lengths for e in at["evidence"] if e["name"] == "sink"]
        values = [e["control" if control else "value"] for e in evidence]
        found.append(fmean(value["value"] for value in values if value is not None) if any(values) else nan)
    return found


def printed(value: float, digits: int) -> str:
    """As the words print it: `.867`, `1.000`, `-.00`."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")


ALIGNED, PADDED, OWN, BARE = (f"addition-{form}-alibi" for form in ("aligned", "zeropad", "nonaligned", "none"))
ANCHORED, SCRATCHPAD = "parity-aligned-alibi", "parity-scratchpad-rotary"
KEY_SINKS = "parity-aligned-alibi_sink"
NUMERIC, CYCLIC = "parity-numeric-alibi", "parity-cyclic-alibi"
UNPLACED, ROTARY, ABSOLUTE = (f"parity-aligned-{family}" for family in ("none", "rotary", "absolute"))
GAPS, FURTHEST = [f"parity-gap{gap}-alibi" for gap in (1, 2, 4)], "parity-gap8-alibi"


def beside_sinks(name: str, length: int) -> list[float]:
    """Exact match of the six addition models with shared labels, or the three with their own, by rising sink."""
    names = {"shared": (ALIGNED, PADDED), "own": (OWN,)}[name]
    pairs = [
        (sink, right)
        for each in names
        for sink, right in zip(listed(each, 10, "rho sink", ""), listed(each, length), strict=True)
    ]
    return [right for _, right in sorted(pairs)]


def rhos(names: Iterable[str], length: int) -> list[float]:
    """The anchor of every model of some configurations that is judged at a length."""
    return [rho for name in names for rho in listed(name, length, "rho anchor", "")]


def placeholder(run: str) -> float:
    """One model's placeholder, the mean over the lengths at which it is judged."""
    return fmean(row["value"] for row in rows() if (row["run"], row["metric"]) == (run, "rho placeholder"))


@cache
def verdicts() -> dict:
    return read_verdicts(ZOO)


def judged(name: str) -> dict:
    """The verdict over the seeds of a configuration."""
    return verdicts()[name]["verdict"]


def lost(name: str) -> list[float]:
    """Accuracy that each model loses without labels, at the trained length, other keys sharing their attention."""
    told = [e for e in judged(name)["evidence"] if e["name"] == "remove labels, all heads: renormalise"]
    return told[0]["details"]["models"]


def posed(name: str, form: str, length: int = 20) -> list[float]:
    """Step accuracy of the models of a configuration, posed parity in another format."""
    return listed(name, length, "step", posed=f"parity-{form}")


def blurred() -> list[float]:
    """Shares of steps within training that hang on another bit than the right one, in models without an address."""
    shares = []
    for form in ("scratchpad", "constant", "nonaligned"):
        for length in (15, 20):
            runs = {f"parity-{form}-alibi-seed{seed}" for seed in by_seed(f"parity-{form}-alibi", length)}
            for run in runs:
                read = {row["metric"]: row["value"] for row in rows() if (row["run"], row["length"]) == (run, length)}
                shares.append(1 - read["offset +0"] - read.get("offset none", 0.0))
    return shares


def share_at(name: str, length: int, offsets: tuple[str, ...], seed: int) -> float:
    """Share of the steps of one model that are decided at some offsets."""
    return sum(by_seed(name, length, f"offset {offset}", "")[seed] for offset in offsets)


def evaluated(path: Path, metric: str, mode: str, lengths: Sequence[int]) -> list[float]:
    """Accuracies of one model by length, in its `evaluation.json`."""
    values = {
        at["length"]: at["value"]
        for at in read_result(path)["accuracy"]
        if (at["metric"], at["mode"]) == (metric, mode)
    }
    return [values[length] for length in lengths]


# A sentence, decimal places, and what stands in its gaps.
CLAIMS: list[tuple[str, int, Callable[[], Iterable[float]]]] = [
    (
        "(step accuracy {} and no whole solution at 40 bits, labels given, one seed;",
        3,
        lambda: evaluated(WITHOUT_REHEARSAL, "step", "forced", [40]),
    ),
    (
        "whatever the length ({} of 45 steps, {} of 50, {} of 55, {} of 60)",
        3,
        lambda: evaluated(SHIPPED / "parity-aligned-alibi" / "evaluation.json", "step", "written", (45, 50, 55, 60)),
    ),
    *(
        (
            f"| {mode} | {metric} | {{}} | {{}} | {{}} | {{}} | {{}} |",
            3,
            partial(evaluated, WITHOUT_REHEARSAL, metric, mode, (10, 20, 30, 40, 60)),
        )
        for mode in ("forced", "written")
        for metric in ("step", "exact")
    ),
    # The paper's Figure 4.
    (
        "labels given: median {}, least {}; labels written: median {}, least {}",
        3,
        lambda: [f(listed(ANCHORED, 60, mode=mode)) for mode in ("forced", "written") for f in (median, min)],
    ),
    (
        "writes at least {} of solutions whole",
        3,
        lambda: [min(listed(ANCHORED, 40, mode="written"))],
    ),
    (
        "has a step accuracy of {} or more in both modes",
        3,
        lambda: [min(listed(ANCHORED, 40, "step") + listed(ANCHORED, 40, "step", "written"))],
    ),
    ("labels are no anchor (rho {} at 20 bits)", 2, lambda: listed(ROTARY, 20, "rho anchor", "")),
    (
        "(the others reach {} and {} of steps at 20 bits); that one goes on to {} of steps at 40",
        3,
        lambda: [*listed(UNPLACED, 20, "step", learned=False), *listed(UNPLACED, 40, "step")],
    ),
    ("of steps at 40, on an anchor ({} at 20)", 2, lambda: listed(UNPLACED, 20, "rho anchor", "")),
    (
        "in one seed of three, just ({} of steps; the others {} and {})",
        3,
        lambda: [
            f
            for learned in (True, False)
            for f in sorted(listed("parity-scratchpad-absolute", 20, "step", learned=learned))
        ],
    ),
    (
        "the aligned models without positions {}, {} and {} in the order of their success",
        3,
        lambda: [recalled(UNPLACED)[seed] for seed in (2, 3, 4)],
    ),
    ("in the order of their success, rotary {} at most", 2, lambda: [max(recalled(ROTARY).values())]),
    (" at most, absolute {} (", 2, lambda: [max(recalled(ABSOLUTE).values())]),
    ("leaves labels an anchor (rho {} to {} at 20 bits)", 2, lambda: ends(KEY_SINKS, 20, "rho anchor", "")),
    (
        "at 60 bits {}, {} and {} of solutions are whole with labels given, {}, {} and {} with labels written",
        3,
        lambda: [value for mode in ("forced", "written") for value in sorted(listed(KEY_SINKS, 60, mode=mode))],
    ),
    (
        "In one of them a sink of {} beside the anchor is unsettled",
        2,
        lambda: [max(sinks(KEY_SINKS))],
    ),
    # The paper's Figures 6 and 7.
    (
        "at 30 bits the medians of these four are {}, {}, {} and {} of steps, the bare scratchpad's {}.",
        3,
        lambda: [
            median(listed(f"parity-{form}-alibi", 30, "step"))
            for form in ("numeric", "constant", "cyclic", "nonaligned", "scratchpad")
        ],
    ),
    (
        "one of three non-aligned models was not, at {})",
        3,
        lambda: listed("parity-nonaligned-alibi", 20, "step", learned=False),
    ),
    (
        "of the sums of 14 digits {}, {} and {} are whole with aligned labels (seeds 2, 3, 4; at 10 digits {} each), "
        "{}, {} and {} with labels of their own",
        3,
        lambda: [*listed(ALIGNED, 14), *set(listed(ALIGNED, 10)), *listed(OWN, 14)],
    ),
    ("by any seed ({} to {} of steps at 10 digits)", 2, lambda: ends(BARE, 10, "step", learned=False)),
    ("writing its labels itself ({} of sums whole at 20)", 3, lambda: [max(listed(ALIGNED, 20, mode="written"))]),
    (
        "two of them clearly ({}, {} and {} at 14 digits; {}, {} and {} at 20, against {}, {} and {})",
        3,
        lambda: [*listed(PADDED, 14), *listed(PADDED, 20), *listed(ALIGNED, 20)],
    ),
    # Gaps.
    (
        "of the solutions of 40 bits {} to {} are whole without a gap, {} to {} at a gap of 1, {} to {} at 2, "
        "{}, {} and {} at 4, and {} in the one model at 8; "
        "of those of 60 bits {} to {}, {} to {}, {} to {}, {} to {}, {}.",
        3,
        lambda: [
            *(end for name in (ANCHORED, *GAPS[:2]) for end in ends(name, 40)),
            *sorted(listed(GAPS[2], 40)),
            *listed(FURTHEST, 40),
            *(end for name in (ANCHORED, *GAPS) for end in ends(name, 60)),
            *listed(FURTHEST, 60),
        ],
    ),
    (
        "a gap of 8 by one of three (the others have {} and {} of steps at 20 bits)",
        3,
        lambda: sorted(listed(FURTHEST, 20, "step", learned=False)),
    ),
    (
        "all three models of gap 8 recall at least {} of the rehearsed values",
        3,
        lambda: [min(recalled(FURTHEST).values())],
    ),
    (
        "(rho {} to {} at 20 bits, {} to {} at 40 in the eight that are judged there;",
        2,
        lambda: [end for length in (20, 40) for end in at_ends(rhos(GAPS, length))],
    ),
    (
        "a mixture at 20 bits, an anchor of {} and a sink of {} (as many other tokens {})",
        2,
        lambda: [*listed(FURTHEST, 20, "rho anchor", ""), *sinks(FURTHEST), *sinks(FURTHEST, control=True)],
    ),
    ("a placeholder of {} is unsettled", 2, lambda: [placeholder("parity-gap2-alibi-seed3")]),
    # What the labels are.
    (
        "in all three models (rho {} to {}; interval over seeds {} to {})",
        2,
        lambda: [*ends(NUMERIC, 20, "rho anchor", ""), *judged(NUMERIC)["roles"]["anchor"]["ci"]],
    ),
    (
        "a small effect of a sink ({}, {}, {}) is settled",
        2,
        lambda: sorted(listed(NUMERIC, 20, "rho sink", "")),
    ),
    (
        "loses hardly an answer ({} [{}, {}] of accuracy at 40 bits",
        3,
        lambda: [(sink := judged(ANCHORED)["by_length"][-1]["roles"]["sink"])["rho"], *sink["ci"]],
    ),
    ("loses {}, {} and {} of accuracy in the three models", 2, lambda: lost("parity-constant-alibi")),
    (
        "with aligned labels {} and {} in two models (as many other tokens {}, {}), absent in the third ({})",
        2,
        lambda: [*sinks(ALIGNED)[::2], *sinks(ALIGNED, control=True)[::2], sinks(ALIGNED)[1]],
    ),
    (
        "with labels of each operand's own {}, {} and {} ({}, {}, {});",
        2,
        lambda: [*sinks(OWN), *sinks(OWN, control=True)],
    ),
    (
        "after padding absent in two ({}, {}), unsettled in one ({}; {})",
        2,
        lambda: [*sorted(sinks(PADDED)), sinks(PADDED, control=True)[0]],
    ),
    (
        "the sink is {} and its control {}: most of that is any tokens' absence, "
        "and in the rotary one ({}; control {})",
        2,
        lambda: [sinks(name, control=control)[0] for name in (UNPLACED, ROTARY) for control in (False, True)],
    ),
    (
        "their sinks at 10 digits, where all are equally right, are {}, {}, {}, {}, {} and {}",
        2,
        lambda: sorted(listed(ALIGNED, 10, "rho sink", "") + listed(PADDED, 10, "rho sink", "")),
    ),
    ("of the sums of 20 digits {}, {}, {}, {}, {} and {} are whole", 3, lambda: beside_sinks("shared", 20)),
    ("({}, {}, {}; ", 2, lambda: sorted(listed(OWN, 10, "rho sink", ""))),
    ("; {}, {}, {} at 14 digits)", 3, lambda: beside_sinks("own", 14)),
    # Which bit decides a step.
    (
        "the models of seeds 3 and 4 read at +12 or +13 and -7 or -6 in {} and {} of their steps, "
        "at the right bit in {} and {};",
        2,
        lambda: [share_at(SCRATCHPAD, 30, at, seed) for at in (("+12", "+13", "-7", "-6"), ("+0",)) for seed in (3, 4)],
    ),
    (
        "The third mostly reads no single bit past training ({} of its steps at 30 bits)",
        2,
        lambda: [share_at(SCRATCHPAD, 30, ("none",), 2)],
    ),
    (
        "at 30 bits +9 or +10 in {} of its steps, -19 or -18 in {}, the right bit in {}, -10 or -9 in {}; "
        "at 40 mainly -10 or -9 ({}) and the right bit ({}), hardly the diamond ({})",
        2,
        lambda: [
            *(share_at(ROTARY, 30, at, 2) for at in (("+9", "+10"), ("-19", "-18"), ("+0",), ("-10", "-9"))),
            *(share_at(ROTARY, 40, at, 2) for at in (("-10", "-9"), ("+0",), ("+19", "+20"))),
        ],
    ),
    (
        "the aligned model without positions does at 40 bits ({} of its steps), and at 60 in {} (nowhere {})",
        2,
        lambda: [share_at(UNPLACED, n, (at,), 2) for n, at in ((40, "+0"), (60, "+0"), (60, "none"))],
    ),
    (
        "and none decides in {}, {} and {} of steps)",
        2,
        lambda: [share_at(CYCLIC, 60, ("none",), seed) for seed in (2, 3, 4)],
    ),
    # Where the read goes.
    ("although between {} and {} of their steps hang more", 2, lambda: at_ends(blurred())),
    # The same weights, posed other formats.
    (
        "match nothing, or several things (constant, non-aligned, cyclic: {} to {} of steps at 20 bits)",
        2,
        lambda: at_ends([v for form in ("constant", "nonaligned", "cyclic") for v in posed(ANCHORED, form)]),
    ),
    (
        "worse with constant or cyclic ones ({} or {}, and {}, of steps at 20 bits in the two that learned)",
        2,
        lambda: [
            posed("parity-nonaligned-alibi", "constant")[0],
            *posed("parity-nonaligned-alibi", "cyclic"),
        ],
    ),
    (
        "posed aligned labels have {}, {} and {} of steps right at 20 bits and about the same at 40 ({}, {}, {}), "
        "where labels of their own give all of them 1.000 at 20 and {}, {} and {} at 40:",
        2,
        lambda: [
            *(v for length in (20, 40) for v in posed(CYCLIC, "aligned", length)),
            *listed(CYCLIC, 40, "step"),
        ],
    ),
    (
        "the aligned models fall from 1.000 to {} or {} of steps at 10 digits",
        2,
        lambda: sorted({round(v, 2) for v in listed(ALIGNED, 10, "step", posed="addition-nonaligned")}),
    ),
]


@pytest.mark.parametrize(("sentence", "digits", "numbers"), CLAIMS, ids=[sentence[:40] for sentence, *_ in CLAIMS])
def test_the_words_say_what_the_files_say(sentence, digits, numbers):
    values = [printed(value, digits) for value in numbers()]
    assert sentence.count("{}") == len(values), (sentence, values)
    assert sentence.format(*values) in WORDS
