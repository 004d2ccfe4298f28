"""The three tables of the root README: results, reasons to trust them, supported models."""

from __future__ import annotations

import json
from typing import Any

from experiments.gathering import TABLE, read_verdicts
from experiments.support.reading import LIST_CALIBRATION, read_calibration, read_rows
from experiments.tables.benchmarks import BENCHMARK, LOOPS
from experiments.tables.cells import markdown
from experiments.tables.families import counted_families
from experiments.tables.gpu import gpu_sweeps
from experiments.tables.list_calibration import blind_lists
from experiments.tables.outsiders import blind_rounds
from experiments.tables.trust import FAULTS, RESULTS, counts_of
from interp.models.names import ZOO
from interp.tasks import parse_format

SUPPORT = RESULTS / "support.json"
# Formats of parity in the table.
FORMATS = ("aligned", "gap4", "numeric", "cyclic", "constant", "nonaligned", "scratchpad")
LENGTHS = (20, 40, 60)
# Model types that the root README names; interp/README.md has them all.
WELL_KNOWN = ("bloom", "gemma2", "gpt2", "gpt_neox", "gptj", "llama", "mistral", "mixtral", "olmo2", "phi3", "qwen3")


def headline_table() -> str:
    """Return exact match by length and the verdict per format of parity, ALiBi models, labels given."""
    import pandas as pd

    from experiments.tables.zoo import judged_text, spread

    frame: Any = pd.read_parquet(ZOO / TABLE)
    verdicts = read_verdicts(ZOO)
    rows = []
    for name in FORMATS:
        parity = frame[(frame["task"] == "parity") & (frame["format"] == name) & (frame["family"] == "alibi")]
        models = parity[parity["posed"] == f"parity-{name}"]
        learned = models.groupby("run")["learned"].first().astype(bool)
        exact = models[models["learned"] & (models["mode"] == "forced") & (models["metric"] == "exact")]
        cells = [spread(exact[exact["length"] == n]["value"], int(learned.sum())) for n in LENGTHS]
        entry = verdicts.get(f"parity-{name}-alibi")
        label = judged_text(entry, short=True) if entry else "no labels"
        rows.append(
            (
                name,
                parse_format(f"parity-{name}").title,
                f"{int(learned.sum())} of {len(learned)}",
                *cells,
                label or "no labels",
            )
        )
    head = (
        "format",
        "before each bit",
        "learned",
        *(f"exact match, {n} bits" for n in LENGTHS),
        "verdict on the labels",
    )
    return markdown(head, rows)


def trust_table() -> str:
    """Return measured numbers: exactness and speed of patching, error rates of the verdict, survived faults."""
    rows = read_rows(BENCHMARK).values()
    worst = max(x for row in (*rows, *gpu_sweeps()) for x in row["difference"].values())
    calibration = read_calibration()
    rate, mechanisms = calibration["rates"]["wrong confident label"], calibration["mechanisms"]
    planted, families, misjudged, strange, right = counted_families()
    open_, required = calibration["rates"]["undecided, all"], calibration["coverage"]["all"]["target"]
    rounds = "; ".join(f"{wrong} ({none}) of {judged}" for judged, wrong, none in blind_rounds())
    listed = read_calibration(LIST_CALIBRATION)["rates"]["wrong status"]
    in_lists = f"{listed['hits']} of {listed['n']}"
    lists_by_round = "; ".join(f"{wrong} of {judged}" for judged, wrong in blind_lists())
    covered = [row["rate"] for row in calibration["coverage"].values()]
    missed = [name for name, row in calibration["coverage"].items() if not row["met"]]
    faults = [n for by_fault in counts_of(FAULTS, "faults").values() for n in by_fault.values() if n]
    survived, injected = (sum(n[key] for n in faults) for key in ("survived", "injected"))
    cpu = [row["ratio"]["transformer_lens"] for row in rows]
    gpu = [row["ratio"]["transformer_lens"] for row in gpu_sweeps()]
    hand = [row["ratio"] for row in read_rows(LOOPS).values()]
    cells = [
        ("patching equals one forward pass per patch", f"largest relative difference {worst:.0e}"),
        (
            "times as fast as TransformerLens per patch: CPU; H100; as a batched loop by hand: CPU",
            "; ".join(f"{min(some):.1f} to {max(some):.1f}" for some in (cpu, gpu, hand)),
        ),
        (
            f"wrong labels (no label) of planted models: {mechanisms} mechanisms; {families:.0f} harder families",
            f"{rate['hits']} ({open_['hits']}) of {rate['n']}; "
            f"{misjudged:.0f} ({planted - misjudged - strange - right:.0f}) of {planted:.0f}",
        ),
        ("the same of models that others built, by round", rounds),
        ("wrong on lists: planted; built by others", f"{in_lists}; {lists_by_round}"),
        (
            f"truths in 95 % intervals, by role (required: {required[0]:g} to {required[1]:g})",
            f"{min(covered):.3f} to {max(covered):.3f}{'; missed by ' * bool(missed)}{', '.join(missed)}",
        ),
        (
            "commands killed or out of disk that resume to the same result",
            f"{survived} of {injected}",
        ),
    ]
    return markdown(("claim", "measured"), cells)


def support_text() -> str:
    """Return the model types by kind of patching, in short, from `results/support.json`."""
    rows = _support_rows()
    exact, generic = ([row for row in rows if row["patching"] == kind] for kind in ("exact", "generic"))
    worst = max(row["float32"] for row in exact)
    types = dict.fromkeys(row["type"].partition(",")[0] for row in exact)
    named = ", ".join(name for name in WELL_KNOWN if name in types)
    text = f"{len(types)} types at all their sites, largest relative difference {worst:.0e} in float32, among them "
    text += f"{named}: [all](interp/README.md#supported-models).\n"
    others = dict.fromkeys(row["type"].partition(",")[0] for row in generic)
    others = [name for name in others if name not in types]
    return f"{text}\nOthers by the residual stream before and after each layer, such as {', '.join(others)}.\n"


def support_table() -> str:
    """Return one row per model type: capture, patching, differences from the literal loop, circuits."""
    head = ("model type", "capture", "patching", "float32", "float64", "circuits")
    cells = []
    for row in _support_rows():
        differences = ("" if row[name] is None else f"{row[name]:.0e}" for name in ("float32", "float64"))
        kinds = [_short(row[name]) for name in ("capture", "patching")]
        cells.append((row["type"], *kinds, *differences, _short(row["circuits"])))
    return markdown(head, cells)


def _support_rows() -> list[dict]:
    return json.loads(SUPPORT.read_text(encoding="utf-8"))


def _short(text: str) -> str:
    """Return a kind of support, or "no" with the first part of the reason.

    >>> _short("edges"), _short("mpt clips q, k and v: they are not linear")
    ('edges', 'no: mpt clips q, k and v')
    """
    if text in ("bridge", "exact", "generic", "edges"):
        return text
    return f"no: {text.splitlines()[0].partition('; ')[0].partition(': ')[0]}"
