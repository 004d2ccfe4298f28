"""The numbers in the prose of the READMEs, by name: how each is computed from committed result files.

`experiments.tables.markers` writes them into the documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from statistics import median

from experiments.tables.numbers_pretrained import OF_PRETRAINED
from experiments.tables.of_files import (
    FOLDER,
    OWN_FORMAT,
    SUFFIX,
    calibrated_before,
    checked,
    evaluated,
    largest_effects,
    millions_of_parameters,
    perplexities,
    presence,
    recalled_by_label,
    rested,
)
from experiments.tables.of_zoo import (
    ABSOLUTE,
    ALIGNED,
    ANCHORED,
    BARE,
    CYCLIC,
    FURTHEST,
    GAPS,
    HINTED,
    KEY_SINKS,
    NOTHING_REHEARSED,
    NUMERIC,
    OWN,
    PADDED,
    ROTARY,
    SCRATCHPAD,
    UNPLACED,
    at_ends,
    beside_sinks,
    blurred,
    by_own_label,
    ends,
    first_past,
    judged,
    larger,
    listed,
    lost,
    margins_held,
    operands,
    over_seeds,
    own_labels,
    placeholder,
    posed,
    recalled,
    rhos,
    share_at,
    sinks,
)
from interp.models.names import SHIPPED
from probes.keys import MARGIN_HELD, PRESENCE_MARGIN

# Formats that fail past the trained length, in the text's order.
VARIANTS = ("numeric", "constant", "cyclic", "nonaligned", "scratchpad")
# What is rehearsed in the conditions that the text tells apart.
REHEARSED = ("lookup20", "disjoint60", "copying60")
WITHOUT_REHEARSAL = FOLDER / "recipes" / "parity-aligned-alibi-without-rehearsal.json"


# Decimal places and values, by name.
NUMBERS: dict[str, tuple[int, Callable[[], Iterable[float]]]] = {
    "calibration-before": (0, calibrated_before),
    "recall-own-label": (2, recalled_by_label),
    "steering": (1, perplexities),
    "largest-own-format": (3, partial(largest_effects, OWN_FORMAT, 20)),
    "largest-suffix": (3, partial(largest_effects, SUFFIX, 12)),
    **OF_PRETRAINED,
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
    **{
        f"rehearsed-{condition}-{length}": (3, partial(read, f"parity-aligned-alibi+{condition}", length))
        for condition in REHEARSED
        for length, read in ((40, listed), (60, ends))
    },
    "rehearsed-anchors": (2, lambda: rhos((f"parity-aligned-alibi+{name}" for name in REHEARSED), 20)),
    **{name: (3, read) for name, read in NOTHING_REHEARSED.items()},
    "own-label": (
        2,
        lambda: by_own_label(
            *(f"parity-numeric-alibi+own60-seed{seed}" for seed in (1, 2, 3)),
            *(f"parity-aligned-alibi+{name}-seed{seed}" for name in REHEARSED for seed in (2, 3, 4, 5, 6)),
        ),
    ),
    "rehearsed-own": (3, own_labels),
    "rehearsed-scratchpad": (3, lambda: [max(listed("parity-scratchpad-alibi+copying60", 30))]),
    "reach-80": (3, lambda: listed(ANCHORED, 80)),
    "reach-100": (3, lambda: [median(values := listed(ANCHORED, 100)), max(values)]),
    "aligned-exact-40": (3, lambda: [min(listed(ANCHORED, 40))]),
    "aligned-written-40": (3, lambda: [min(listed(ANCHORED, 40, mode="written"))]),
    "aligned-step-40": (3, lambda: [min(listed(ANCHORED, 40, "step") + listed(ANCHORED, 40, "step", "written"))]),
    **{f"hints-{n}": (3, partial(listed, HINTED, n)) for n in (30, 40, 60)},
    "hints-anchor": (2, partial(ends, HINTED, 20, "rho anchor", "")),
    "hints-written": (3, partial(listed, HINTED, 40, mode="written")),
    "hints-own-bit": (3, partial(listed, HINTED, 40, "offset +0", "")),
    **{f"hints-on-random-{n}": (3, partial(posed, HINTED, "aligned", n)) for n in (20, 40)},
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
    "forced-rest": (2, partial(rested, "resting place")),
    "forced-null": (2, partial(rested, "resting place, null key")),
    "key-sink-margins": (2, lambda: [v for name in (ANCHORED, KEY_SINKS) for v in margins_held(name, 20, (2, 3, 4))]),
    "key-sink-sink": (2, lambda: [max(sinks(KEY_SINKS))]),
    "variants-30": (
        3,
        lambda: [median(listed(f"parity-{form}-alibi", 30, "step")) for form in VARIANTS],
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
        lambda: [posed("parity-nonaligned-alibi", "constant")[0], *posed("parity-nonaligned-alibi", "cyclic")],
    ),
    "cyclic-20": (3, lambda: [min(listed(CYCLIC, 20, "step"))]),
    "posed-cyclic": (
        2,
        lambda: [*(v for n in (20, 40) for v in posed(CYCLIC, "aligned", n)), *listed(CYCLIC, 40, "step")],
    ),
    "posed-addition": (
        2,
        lambda: sorted({round(v, 2) for v in listed(ALIGNED, 10, "step", posed="addition-nonaligned")}),
    ),
}
