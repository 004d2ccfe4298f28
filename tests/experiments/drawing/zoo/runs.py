"""Small tables of runs with known content, and how a drawing is read."""

from typing import Any

import numpy as np
import pandas as pd

from experiments.drawing import zoo as figures

# By matplotlib's stubs, what was drawn may be nearly anything; tests read numbers.
zoo: Any = figures
LENGTHS = (10, 20, 40)
METRICS = ("step", "exact", "final")


def value_of(metric: str, mode: str, length: int, seed: int) -> float:
    """Another number for each line; the median of three seeds is not their mean."""
    lost = METRICS.index(metric) / 10 if metric in METRICS else 0.0
    return 1 - lost - (mode == "written") / 20 - length / 100 - seed**2 / 500


def rows_of(
    fmt: str,
    family: str = "alibi",
    seeds=(1, 2, 3),
    failed=(),
    task="parity",
    modes=("forced", "written"),
    posed: str = "",
    rehearsal=0.5,
    metrics=METRICS,
    lengths=LENGTHS,
    trained_to=20,
) -> list[dict]:
    """One configuration; lengths in no order."""
    return [
        {
            "run": f"{task}-{fmt}-{family}-seed{seed}",
            "task": task,
            "format": fmt,
            "family": family,
            "seed": seed,
            "rehearsal": rehearsal,
            "learned": seed not in failed,
            "trained_to": trained_to,
            "posed": posed or f"{task}-{fmt}",
            "length": n,
            "mode": mode,
            "metric": metric,
            "value": value_of(metric, mode, n, seed),
            "low": np.nan,
            "high": np.nan,
            "chance": 1 / n,
            "n": 64,
        }
        for seed in seeds
        for n in reversed(lengths)
        for mode in modes
        for metric in metrics
    ]


def offset_rows(
    fmt: str, shares: dict[int, dict[str, float]], seed: int = 1, learned: bool = True, family: str = "alibi"
) -> list[dict]:
    """`shares`: for each length, the share of each offset."""
    one = rows_of(fmt, family, seeds=(seed,), failed=() if learned else (seed,))[0]
    return [
        one | {"length": n, "mode": "", "metric": f"offset {offset}", "value": share, "chance": np.nan}
        for n, histogram in shares.items()
        for offset, share in histogram.items()
    ]


def table(*parts: list[dict]) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part])


def labelled(axis, label: str) -> Any:
    (found,) = [line for line in axis.lines if line.get_label() == label]
    return found


def data(line) -> dict[float, float]:
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def shaded(axis) -> list[float]:
    return [p.get_extents().transformed(axis.transData.inverted()).x1 for p in axis.patches]


def words(figure) -> str:
    """All that is written, in legends and titles too."""
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    found = [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    found += [t.get_text() for axis in figure.axes for t in (*axis.texts, axis.title, axis.yaxis.label)]
    found += [t.get_text() for axis in figure.axes for t in axis.get_yticklabels()]
    return "\n".join([*found, figure.get_suptitle()])


FAMILY = table(
    rows_of("aligned", failed=(3,)),
    rows_of("scratchpad", modes=("forced",)),
    rows_of("aligned", "rotary", failed=(1, 2, 3)),
)
READ = table(
    offset_rows("aligned", {20: {"+0": 1.0}, 30: {"+0": 0.9, "-1": 0.06, "none": 0.04}}),
    offset_rows("aligned", {20: {"+0": 0.8, "+1": 0.2}, 30: {"+0": 0.7, "none": 0.3}}, seed=2),
    offset_rows("aligned", {20: {"none": 1.0}, 30: {"none": 1.0}}, seed=3, learned=False),
    offset_rows("scratchpad", {15: {"+0": 1.0}, 60: {"+45": 0.5, "-43": 0.3, "+41": 0.2}}),
)
POSED = table(
    rows_of("aligned", failed=(3,)),
    rows_of("constant"),
    rows_of("numeric"),
    rows_of("aligned", posed="parity-constant", failed=(3,), metrics=("step",), modes=("forced",)),
    rows_of("constant", posed="parity-aligned", metrics=("step",), modes=("forced",), lengths=(20,)),
)
