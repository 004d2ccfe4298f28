"""Selection and checks of the rows that a figure shows, and the names of formats and families."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from interp.support.sizes import split_kind
from interp.tasks import names_in_order

if TYPE_CHECKING:
    from pandas import DataFrame

# run: the run's name. task, format, family, seed: what was trained, such as "parity", "aligned", "alibi", 2; the family
# of a model of another size has layers x width x heads in its name, "alibi_6x128x8", and that of a model that rehearsed
# something else has its condition, "alibi+lookup20". rehearsal: share of rehearsal in training. steps: training steps.
# precision: "bf16" or "no", "" if not recorded. learned: whether the run is competent at its longest trained length,
# `trained_to`. posed: the format on which it is evaluated, such as "parity-aligned". length: bits or digits. mode:
# "forced", "written", or "" where it does not apply. metric: "step", "exact", "final", "free step"; "offset +0",
# "offset none"; "rho anchor". value, low, high, chance: NaN for none.
COLUMNS = (
    "run",
    "task",
    "format",
    "family",
    "seed",
    "rehearsal",
    "trained_to",
    "steps",
    "precision",
    "learned",
    "posed",
    "length",
    "mode",
    "metric",
    "value",
    "low",
    "high",
    "chance",
    "n",
)
# The columns that figures need; intervals and counts are for tables.
NEEDED = tuple(c for c in COLUMNS if c not in ("seed", "steps", "precision", "low", "high", "n"))
OWN = {
    "alibi": "ALiBi",
    "rotary": "rotary",
    "none": "no positions",
    "absolute": "absolute",
    "alibi_sink": "ALiBi, own sink",
}
FAMILIES = {
    **OWN,
    "smollm2_135m_lora4": "SmolLM2-135M with adapters of rank 4",
    "gemma3_270m_lora4": "Gemma 3 270M with adapters of rank 4",
}
# What stands between a family and a condition of rehearsal.
CONDITION = "+"
# The longest length of the figures that compare configurations. Longer ones are measured of few (`curves.reach`).
LONGEST = 60
# Past every length that is measured.
LONGER = 10**6
# The order of formats in every figure. Others follow by name.
FORMATS = names_in_order()


def family_of(kind: str) -> str:
    """Return the family, as the table names it, of a recipe's kind.

    >>> family_of("smollm2-135m-lora4")
    'smollm2_135m_lora4'
    """
    return kind.replace("-", "_")  # hub names may contain the separator of a run's name


class NoRows(ValueError):
    """The table is valid but has none of the rows that a figure shows."""


def rows_of(
    frame: DataFrame,
    figure: str,
    task: str = "parity",
    families: Collection[str] = (),
    formats: Collection[str] = (),
    metrics: Collection[str] = (),
    own: bool = True,
    longest: int = LONGEST,
    conditions: bool = False,
) -> Any:
    """Return the rows of a task, of the given families, formats and metrics, or of all of them, up to a length.

    `own`: only rows in which a run is evaluated on the format that it was trained on. `conditions`: also runs that
    rehearsed something else than the others. Raises `ValueError` for missing columns, for runs with different shares of
    rehearsal (their training differs) and for duplicate rows, and `NoRows` if no row is left.

    >>> rows_of(pandas.DataFrame({"run": []}), "the gaps")
    Traceback (most recent call last):
    ValueError: the gaps: the table lacks task, format, family, ...
    """
    if lacks := [c for c in NEEDED if c not in frame.columns]:
        raise ValueError(f"{figure}: the table lacks {', '.join(lacks)}")
    # Any: pandas's stubs give most selections a union of types.
    kept: Any = frame if conditions else usual_rehearsal(frame)
    kept = kept[(kept["task"] == task) & (kept["length"] <= longest)]
    for column, names in (("family", families), ("format", formats), ("metric", metrics)):
        if names:
            kept = kept[kept[column].isin(list(names))]
    if own:
        kept = kept[kept["posed"] == kept["task"] + "-" + kept["format"]]
    if kept.empty:
        wanted = [f"task {task}"]
        wanted += [
            f"{what} {', '.join(some)}"
            for what, some in (("family", families), ("format", formats), ("metric", metrics))
            if some
        ]
        raise NoRows(f"{figure}: the table has no rows with {'; '.join(wanted)}")
    shares = sorted(kept["rehearsal"].unique())
    if len(shares) > 1 and not conditions:
        raise ValueError(f"{figure}: runs with different shares of rehearsal ({', '.join(map(str, shares))}); draw one")
    twice = kept.duplicated(["run", "posed", "length", "mode", "metric"])
    if twice.any():
        row = kept[twice].iloc[0]
        text = f"{row['run']}, {row['posed']}, length {row['length']}, {row['mode']} {row['metric']}"
        raise ValueError(f"{figure}: duplicate row: {text}")
    return with_chance_of_given_labels(kept)


def with_chance_of_given_labels(rows: Any) -> Any:
    """Return the rows with the chance that holds where labels are right, also of labels that the model writes.

    A guess of labels too is right far less often, so that a mean of both modes would be the chance of neither.
    """
    keys = ["posed", "metric", "length"]
    given = rows[rows["mode"] == "forced"].groupby(keys)["chance"].max().rename("given").reset_index()
    chance = rows[keys].merge(given, on=keys, how="left")["given"].set_axis(rows.index)
    return rows.assign(chance=rows["chance"].where(rows["mode"] != "written", chance.fillna(rows["chance"])))


def shown_kind(kind: str) -> str:
    """Return a family's name, with layers x width x heads for models of another size.

    >>> shown_kind("alibi"), shown_kind("alibi_6x128x8")
    ('ALiBi', 'ALiBi 6x128x8')
    """
    family, size = split_kind(kind)
    return FAMILIES.get(family, family) + (f" {size}" if size else "")


def usual_rehearsal(rows: Any) -> Any:
    """Return the rows of models without a condition of rehearsal in their family's name."""
    return rows[~rows["family"].astype(str).str.contains(CONDITION, regex=False)]


def fine_tuned(rows: Any, yes: bool = True) -> Any:
    """Return the rows of models that started from a pretrained one, or of the others; they have their own figures."""
    return rows[rows["family"].astype(str).map(starts_pretrained).astype(bool) == yes]


def precisions(rows: DataFrame) -> str:
    """Return the precisions in which the models of some rows were trained, such as "bfloat16/float32"."""
    return "/".join({"no": "float32", "bf16": "bfloat16"}.get(name, "") for name in sorted(rows["precision"].unique()))


def starts_pretrained(kind: str) -> bool:
    """Return whether models of a kind, as the table names it, started from a pretrained one."""
    return split_kind(kind.partition(CONDITION)[0])[0] not in OWN


def usual_size(rows: Any) -> Any:
    """Return the rows of models of the usual size; others have their size in the family's name."""
    return rows[[not split_kind(kind)[1] for kind in rows["family"]]]


def in_order(names: Collection[str], order: Sequence[str] = FORMATS) -> list[str]:
    """Return each name once, in the given order; other names follow alphabetically.

    >>> in_order(["zebra", "scratchpad", "aligned", "aligned"])
    ['aligned', 'scratchpad', 'zebra']
    """
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def counted(rows: Any) -> str:
    """Return how many of the runs learned the format that they were trained on: "2 of 3 learned"."""
    learned = rows.groupby("run")["learned"].first()
    return f"{int(learned.sum())} of {len(learned)} learned"


def trained_alike(rows: Any) -> str:
    """Return what the training of all runs of a figure has in common, for its title."""
    share = float(rows["rehearsal"].iloc[0])
    longest = ", ".join(str(n) for n in sorted(rows["trained_to"].unique()))
    unit = "digits" if rows["task"].iloc[0] == "addition" else "bits"
    mixed = f"{share:.0%} of the training was rehearsal of in-context recall" if share else "no rehearsal"
    return f"trained on up to {longest} {unit}; {mixed}"
