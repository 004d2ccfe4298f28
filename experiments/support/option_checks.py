"""Checks of options that need no library, so that bad input is refused at once."""

from __future__ import annotations

MOST_WORKERS = 1024
# Seeds are multiplied by 1000 and added to; this many fit into 32 bits.
MOST_SEEDS = 4_000_000


def check_seed(seed: int) -> None:
    """Raise `ValueError` unless a seed leaves room for the seeds that are derived from it."""
    if not 0 <= seed < MOST_SEEDS:
        raise ValueError(f"seed must be an integer from 0 to {MOST_SEEDS - 1}; got {seed}")


def check_workers(name: str, count: int) -> None:
    """Raise `ValueError` for a number of threads or processes that no machine has; all start at once."""
    if not 1 <= count <= MOST_WORKERS:
        raise ValueError(f"--{name} must be at least 1 and at most {MOST_WORKERS}; got {count}")


def check_positive(command: object, *names: str) -> None:
    """Raise `ValueError` unless the named options of a verb are at least 1."""
    for name in names:
        if (value := getattr(command, name)) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {value}")
