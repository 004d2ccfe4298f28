"""Which rows of the table of all runs does a figure take, and are they what it says?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from interp.support.sizes import split_kind
from interp.tasks import names_in_order

if TYPE_CHECKING:
    from pandas import DataFrame

# run: its name. task, format, family, seed: what was trained, such as "parity", "aligned", "alibi", 2; a family of
# another size than usual has it in its name, layers x width x heads: "alibi_6x128x8". rehearsal: share of its training
# that was in-context recall. steps: those that it took. precision: "bf16" or "no", "" if not recorded. learned:
# competent at its longest trained length, `trained_to`. posed: the format that it was shown, such as "parity-aligned";
# another one than its own where the same weights were tried on it. length: bits or digits. mode: "forced", "written",
# or "" where it does not apply. metric: "step", "exact", "final", "free step"; "offset +0", "offset none";
# "rho anchor". value, low, high, chance: NaN for none.
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
# What figures of rows take; intervals and counts are for tables.
NEEDED = tuple(c for c in COLUMNS if c not in ("seed", "steps", "precision", "low", "high", "n"))
FAMILIES = {
    "alibi": "ALiBi",
    "rotary": "rotary",
    "none": "no positions",
    "absolute": "absolute",
    "alibi_sink": "ALiBi, own sink",
}
# The order of formats in every figure; others follow in the order of their names.
FORMATS = names_in_order()


class NoRows(ValueError):
    """The table is whole, and has nothing of what a figure is of."""


def rows_of(
    frame: DataFrame,
    figure: str,
    task: str = "parity",
    families: Collection[str] = (),
    formats: Collection[str] = (),
    metrics: Collection[str] = (),
    own: bool = True,
) -> Any:
    """The rows of a task, and of some families, formats and metrics where any are named.

    `own`: only those in which a run was posed the format that it was trained on. Raises `ValueError` for missing
    columns, for runs with different shares of rehearsal (they were not trained alike) and for a row that is there
    twice, and `NoRows` where nothing is left.

    >>> rows_of(pandas.DataFrame({"run": []}), "the gaps")
    Traceback (most recent call last):
    ValueError: the gaps: the table lacks task, format, family, ...
    """
    if lacks := [c for c in NEEDED if c not in frame.columns]:
        raise ValueError(f"{figure}: the table lacks {', '.join(lacks)}")
    # Any: by its stubs, nearly every selection of pandas may be nearly anything.
    kept: Any = frame[frame["task"] == task]
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
    if len(shares) > 1:
        raise ValueError(f"{figure}: runs with different shares of rehearsal ({', '.join(map(str, shares))}); draw one")
    twice = kept.duplicated(["run", "posed", "length", "mode", "metric"])
    if twice.any():
        row = kept[twice].iloc[0]
        words = f"{row['run']}, {row['posed']}, length {row['length']}, {row['mode']} {row['metric']}"
        raise ValueError(f"{figure}: a row is there twice: {words}")
    return kept


def shown_kind(kind: str) -> str:
    """A family in words, and layers x width x heads where they are not the usual.

    >>> shown_kind("alibi"), shown_kind("alibi_6x128x8")
    ('ALiBi', 'ALiBi 6x128x8')
    """
    family, size = split_kind(kind)
    return FAMILIES.get(family, family) + (f" {size}" if size else "")


def usual_size(rows: Any) -> Any:
    """The rows of models of the usual size; others have it in the name of their family."""
    return rows[[not split_kind(kind)[1] for kind in rows["family"]]]


def in_order(names: Collection[str], order: Sequence[str] = FORMATS) -> list[str]:
    """Each name once, in the order given, and those that it lacks by name.

    >>> in_order(["zebra", "scratchpad", "aligned", "aligned"])
    ['aligned', 'scratchpad', 'zebra']
    """
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def counted(rows: Any) -> str:
    """How many of the runs learned what they were trained on: "2 of 3 learned"."""
    learned = rows.groupby("run")["learned"].first()
    return f"{int(learned.sum())} of {len(learned)} learned"


def trained_alike(rows: Any) -> str:
    """What all runs of a figure share, in words, for its title."""
    share = float(rows["rehearsal"].iloc[0])
    longest = ", ".join(str(n) for n in sorted(rows["trained_to"].unique()))
    unit = "digits" if rows["task"].iloc[0] == "addition" else "bits"
    mixed = f"{share:.0%} of the training was rehearsal of in-context recall" if share else "no rehearsal"
    return f"trained on up to {longest} {unit}; {mixed}"
