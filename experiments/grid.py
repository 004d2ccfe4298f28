"""The grid of trained models, the zoo: task x format x family x seed, in named groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.tasks import known_formats, parse_format

if TYPE_CHECKING:
    from experiments.commands.train import TrainCommand

# Seed 1 was inspected while the tests were written; confirmation needs models that nobody has seen.
CONFIRMING = range(2, 10)
SEEDS = range(2, 5)
# Seeds that make eight of every format; what is expected of them is in zoo/predictions.json.
FURTHER = range(5, 10)
# The aligned format generalises best with ALiBi (RECIPES.md).
BEST, OTHERS = "alibi", ("rotary", "none", "absolute")
# Layers x width x heads; the default size is 3x128x8.
SIZES = ("1x128x8", "2x128x8", "6x128x8", "3x64x8", "3x256x8")
# Formats that interp/tasks/format_table.py puts in the grid. Gaps between label and bit are a group of their own.
_FORMATS = [fmt for name in known_formats() if (fmt := parse_format(name)).row.in_grid]
PARITY = tuple(str(fmt) for fmt in _FORMATS if fmt.task == "parity" and not fmt.gap)
GAPS = tuple(str(fmt) for fmt in _FORMATS if fmt.task == "parity" and fmt.gap)
ADDITION = tuple(str(fmt) for fmt in _FORMATS if fmt.task == "addition")
# What is rehearsed instead of lookup of up to 60 pairs (experiments/training/rehearsal.py). The first are compared on
# aligned labels and on the scratchpad, whose own skill is rehearsed by lookup and by copying; "own" is for formats with
# fixed labels.
CONDITIONS, OWN_LABELS = ("copying60", "lookup20", "disjoint60", "none"), "own60"
# Seeds of the conditions. The usual condition has seed 1 among the shipped runs, and others in the other groups.
CONDITIONED, OWN_SEEDS = range(1, 9), range(1, 4)
# The model that is fine-tuned, as the paper does, and the rank of its adapters; the shortest length in the paper.
SOURCE, RANK, PAPERS_SHORTEST = "smollm2-135m", 4, 10
# A model of another family, for the question whether what holds in the first is of that model alone.
SECOND_SOURCE = "gemma3-270m"
# What stands in the names of their runs where others have a family (experiments/training/recipe.py).
PRETRAINED, SECOND_PRETRAINED = f"{SOURCE}-lora{RANK}", f"{SECOND_SOURCE}-lora{RANK}"
# Formats with eight fine-tuned models: aligned labels and its controls. The others have three.
CONTROLS = ("scratchpad", "aligned", "constant", "numeric", "nonaligned", "cyclic")
# Groups that are trained only when --groups names them.
BY_NAME = ("scale", "rehearsal", "replication", "baselines", "pretrained", "pretrained-paper", "pretrained-second")
# Index hints (2402.09371), from random weights and fine-tuned; what is expected is in zoo/predictions-hints.json.
HINTS = "parity-hints"

# A run of the grid: its name in `mnemoscope train` and its seed.
GROUPS: dict[str, tuple[tuple[str, int], ...]] = {
    "confirmatory": tuple((f"parity-aligned-{BEST}", seed) for seed in CONFIRMING),
    "formats": tuple((f"{fmt}-{BEST}", seed) for seed in SEEDS for fmt in PARITY),
    "gaps": tuple((f"{fmt}-{BEST}", seed) for seed in SEEDS for fmt in GAPS),
    "addition": tuple((f"{fmt}-{BEST}", seed) for seed in SEEDS for fmt in ADDITION),
    "families": tuple(
        (f"parity-{fmt}-{family}", seed) for seed in SEEDS for family in OTHERS for fmt in ("scratchpad", "aligned")
    ),
    # Each head has a key sink of its own, so this model needs no label as a sink (probes/README.md, Hypotheses).
    "sink": tuple((f"parity-{fmt}-{BEST}_sink", seed) for seed in SEEDS for fmt in ("scratchpad", "aligned")),
    # Sizes that a CPU can train.
    "scale": tuple((f"parity-aligned-{BEST}_{size}", SEEDS[0]) for size in SIZES),
    # A comparison is complete at each seed: all conditions of a seed come before the next one.
    "rehearsal": (
        *(
            (f"parity-{fmt}-{BEST}+{condition}", seed)
            for seed in CONDITIONED
            for condition in CONDITIONS
            for fmt in ("scratchpad", "aligned")
        ),
        *((f"parity-{fmt}-{BEST}+{OWN_LABELS}", seed) for seed in OWN_SEEDS for fmt in ("numeric", "cyclic")),
    ),
    "replication": tuple(
        (f"{fmt}-{BEST}", seed)
        for seed in FURTHER
        for fmt in (*PARITY, *GAPS, *ADDITION)
        if fmt != "parity-aligned"  # its seeds to 9 are in "confirmatory"
    ),
    "baselines": tuple((name, seed) for seed in range(1, 4) for name in (f"{HINTS}-{BEST}", HINTS)),
    # Names without a family are fine-tuned from SOURCE.
    "pretrained": (
        *((fmt, seed) for seed in range(1, 4) for fmt in (*PARITY, *GAPS, *ADDITION)),
        *((f"parity-{fmt}", seed) for seed in range(4, 9) for fmt in CONTROLS),
    ),
    "pretrained-paper": tuple((f"{fmt}+from{PAPERS_SHORTEST}", seed) for seed in range(1, 4) for fmt in PARITY),
    "pretrained-second": tuple(
        (f"parity-{fmt}-{SECOND_SOURCE}", seed) for seed in range(1, 4) for fmt in ("scratchpad", "aligned")
    ),
}


def runs_of(groups: Sequence[str] = (), seeds: Sequence[int] = (), formats: Sequence[str] = ()) -> list[TrainCommand]:
    """Return the runs of some groups, or of all groups except those in `BY_NAME`, each once, lowest seeds first.

    `seeds` and `formats` keep only those seeds and those formats, such as "parity-aligned". Raises `ValueError` for an
    unknown group, and where no run has one of the seeds or of the formats.
    """
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise ValueError(f"unknown groups {', '.join(unknown)}; groups are {', '.join(GROUPS)}")
    runs = dict.fromkeys(run for name in groups or [g for g in GROUPS if g not in BY_NAME] for run in GROUPS[name])
    kept = sorted((run for run in runs if not seeds or run[1] in seeds), key=lambda run: run[1])
    if not kept:
        present = ", ".join(map(str, sorted({seed for _, seed in runs})))
        raise ValueError(f"no run of these groups has seed {', '.join(map(str, seeds))}; seeds are {present}")
    commands = [_command(name, seed) for name, seed in kept]
    if not formats:
        return commands
    by_format = {train: train.format for train in commands}
    if unknown := sorted(set(formats) - set(by_format.values())):
        present = ", ".join(dict.fromkeys(by_format.values()))
        raise ValueError(f"no run of these groups and seeds has the format {', '.join(unknown)}; formats are {present}")
    return [train for train, fmt in by_format.items() if fmt in formats]


def _command(name: str, seed: int) -> TrainCommand:
    """Return the training of a run of the grid: from random weights, or of adapters where its name has no family.

    A name that ends with `SECOND_SOURCE` is fine-tuned from that model.
    """
    from experiments.commands.train import TrainCommand

    whole, _, shortest = name.partition("+from")
    fmt = whole.removesuffix(f"-{SECOND_SOURCE}")
    if fmt not in known_formats():
        return TrainCommand(name, seed)
    source = SOURCE if fmt == whole else SECOND_SOURCE
    return TrainCommand(fmt, seed, source=source, lora=RANK, shortest=int(shortest or 1))
