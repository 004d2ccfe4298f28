"""Addition of operands of unequal length, and the place of the first wrong digit."""

from __future__ import annotations

from collections import Counter

from interp.forward import correct
from interp.models import Run
from interp.tasks import Batch, Role

# Digits of the two operands: equal, and unequal on either side, inside and past the 10 trained digits.
PAIRS = (
    (10, 10),
    (10, 5),
    (5, 10),
    (10, 2),
    (2, 10),
    (14, 14),
    (14, 10),
    (10, 14),
    (14, 5),
    (5, 14),
    (20, 20),
    (20, 10),
)
PADDED, ALIGNED = "addition-zeropad", "addition-aligned"
PROMPTS = 256


def operand_errors(run: Run, prompts: int = PROMPTS, pairs: tuple[tuple[int, int], ...] = PAIRS) -> list[dict]:
    """Return one entry per pair of lengths: exact match, and how often each digit is the first wrong one.

    Labels are given; digits are teacher-forced, so the first wrong digit is also the first of greedy decoding. `first`
    counts prompts by the place of that digit (1 = units), in the sum that is written from the units up; `forwards`
    counts prompts whose digits before `###` are all right and whose forward sum is not. `run` is one of addition; its
    format decides whether the shorter operand is padded with zeros.

    Raises `ValueError` for a run of another task.
    """
    if run.format is None or run.format.task != "addition":
        raise ValueError(f"{run.name} is no run of addition; its format is {run.format}")
    found = []
    for pair in pairs:
        batch = run.sample(prompts, pair, seed=max(pair))
        places, forwards = first_wrong(run, batch)
        wrong = sum(places.values()) + forwards
        found.append(
            {
                "digits": list(pair),
                "exact": 1 - wrong / prompts,
                "first": {str(place): places[place] for place in sorted(places)},
                "forwards": forwards,
            }
        )
    return found


def first_wrong(run: Run, batch: Batch) -> tuple[Counter[int], int]:
    """Return how many prompts have their first wrong digit at each place, and how many only in the forward sum."""
    at = batch.predicted(forced=True)
    right = correct(run.raw, batch, at)
    # Answers are written in order: the sum from the units up (OUTPUT), then forwards (ANSWER).
    first = (~right).int().argmax(dim=1)[~right.all(dim=1)]
    roles, steps = batch.role[at][first], batch.step[at][first]
    before = roles == int(Role.OUTPUT)
    return Counter(steps[before].tolist()), int((~before).sum())
