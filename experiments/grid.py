"""Which models does the zoo hold? Task x format x family x seed, as comprehensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.commands.train import TrainCommand

# Seed 1 was looked at while the tests were built; what is to be confirmed needs models that nobody has seen.
CONFIRMING = range(2, 10)
SEEDS = range(2, 5)
PARITY = ("direct", "scratchpad", "interleaved", "aligned", "nonaligned", "numeric", "constant", "cyclic")
GAPS = (1, 2, 4, 8)
ADDITION = ("none", "aligned", "zeropad", "nonaligned")
# ALiBi is the family in which the aligned format generalises best (RECIPES.md).
BEST, OTHERS = "alibi", ("rotary", "none", "absolute")
# Layers x width x heads, beside the usual 3x128x8.
SIZES = ("1x128x8", "2x128x8", "6x128x8", "3x64x8", "3x256x8")
# Groups that are trained only where they are named.
BY_NAME = ("scale",)

GROUPS: dict[str, tuple[tuple[str, int], ...]] = {
    "confirmatory": tuple((f"parity-aligned-{BEST}", seed) for seed in CONFIRMING),
    "formats": tuple((f"parity-{fmt}-{BEST}", seed) for seed in SEEDS for fmt in PARITY),
    "gaps": tuple((f"parity-gap{gap}-{BEST}", seed) for seed in SEEDS for gap in GAPS),
    "addition": tuple((f"addition-{fmt}-{BEST}", seed) for seed in SEEDS for fmt in ADDITION),
    "families": tuple(
        (f"parity-{fmt}-{family}", seed) for seed in SEEDS for family in OTHERS for fmt in ("scratchpad", "aligned")
    ),
    # A key sink in each head: if labels serve as sinks, this model does not need them (science 2.3).
    "sink": tuple((f"parity-{fmt}-{BEST}_sink", seed) for seed in SEEDS for fmt in ("scratchpad", "aligned")),
    # What grows with scale, as far as a CPU goes.
    "scale": tuple((f"parity-aligned-{BEST}_{size}", SEEDS[0]) for size in SIZES),
}


def runs_of(groups: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[TrainCommand]:
    """The runs of some groups, or of all but those `BY_NAME`, each once, lowest seeds first.

    `seeds` keeps those seeds alone. Raises `ValueError` for an unknown group and for seeds that leave nothing.
    """
    from experiments.commands.train import TrainCommand

    if unknown := sorted(set(groups) - set(GROUPS)):
        raise ValueError(f"unknown groups {', '.join(unknown)}; groups are {', '.join(GROUPS)}")
    runs = dict.fromkeys(run for name in groups or [g for g in GROUPS if g not in BY_NAME] for run in GROUPS[name])
    kept = sorted((run for run in runs if not seeds or run[1] in seeds), key=lambda run: run[1])
    if not kept:
        there = ", ".join(map(str, sorted({seed for _, seed in runs})))
        raise ValueError(f"no run of these groups has seed {', '.join(map(str, seeds))}; seeds are {there}")
    return [TrainCommand(name, seed) for name, seed in kept]
