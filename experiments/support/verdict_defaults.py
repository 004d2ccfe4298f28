"""What a verdict measures by default: arms, lengths and prompts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from interp.models.names import OUT, SHIPPED

if TYPE_CHECKING:
    from interp.models import Run

# A trained and an untrained length: bits trained to 20, digits trained to 10 (probes/README.md, Recipes).
LENGTHS = {"parity": (20, 40), "addition": (10, 14)}
# Prompts at a length: by default, and of a large model on a CPU, where 128 take hours.
PROMPTS, FEW_PROMPTS = 128, 24


def is_unmeasured(names: Sequence[str], out: Path | None) -> bool:
    """Return whether no folder in which a finished verdict on these runs is looked for has one, of any options."""
    own = [Path(name).name for name in names]
    places = [*([out] if out else []), *(folder / name for folder in (OUT, SHIPPED) for name in own)]
    return not any((place / "verdict.json").exists() for place in places)


def usual_arms(run: Run) -> tuple[str, ...]:
    """Return the arms of a verdict by default: all of them, or those that decide and M7 where there are many heads.

    The other arms that describe take a pass per head, or per pair of heads, or train.
    """
    from probes.arms.registry import ARMS, DECIDING

    return (*DECIDING, "M7") if is_deep(run) else tuple(ARMS)


def usual_prompts(runs: Sequence[Run]) -> int:
    """Return the default number of prompts at each length, on parity and addition: few for large models on a CPU."""
    from experiments.support.pieces import are_small

    return FEW_PROMPTS if runs[0].raw.device.type == "cpu" and not are_small(runs) else PROMPTS


def is_deep(run: Run) -> bool:
    """Return whether a model has so many heads that what takes a pass per head takes minutes to hours."""
    from probes.arms.group_search import MANY_UNITS

    return n_heads(run) > MANY_UNITS


def n_heads(run: Run) -> int:
    """Return the number of heads of all layers."""
    return run.raw.config.num_hidden_layers * run.raw.config.num_attention_heads


def pieces_of(arms: Collection[str]) -> int:
    """Return how often `battery` calls `step` per length, at most: competence, searches and each group of arms."""
    from probes.arms.registry import ARMS

    groups = groupby(ARMS.values(), key=lambda arm: arm.measure)
    searches = bool({"M6", "shares"} & set(arms)) + 2 * ("presence" in arms)
    return 1 + searches + sum(any(arm.code in arms for arm in group) for _, group in groups)


def default_lengths(run: Run) -> tuple[int, ...]:
    """Return 20 and 40 bits, or 10 and 14 digits, where they fit the positions and labels, else the longest that fits.

    Raises `ValueError` where the shortest testable length does not fit.
    """
    from probes.limits import shortest_of

    usual, shortest = LENGTHS.get(run.format.task, LENGTHS["parity"]), shortest_of(run.format.task)
    if lengths := fitting(run, usual):
        return lengths
    for n in range(min(usual) - 1, shortest - 1, -1):
        if fits(run, n):
            return (n,)
    unit = "digits" if run.format.task == "addition" else "bits"
    raise ValueError(f"{run.name} takes no {run.format} with {shortest} {unit} or more, which the verdict needs")


def fitting(run: Run, lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the lengths that fit the run's positions and labels."""
    return tuple(n for n in lengths if fits(run, n))


def fits(run: Run, length: int) -> bool:
    """Return whether prompts of this length fit the run's positions and labels; imports torch, but makes no prompt."""
    try:
        run.check_length(length)
    except ValueError:
        return False
    return True
