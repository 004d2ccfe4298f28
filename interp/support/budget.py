"""How much memory may one pass take, beyond the model and what is returned?

Passes run in chunks of prompts that fit, so that the peak does not grow with the number of prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Bytes: a GiB, which every machine has that runs such models at all.
DEFAULT = 2**30
_ALLOWED: ContextVar[int] = ContextVar("allowed", default=DEFAULT)


def allowed() -> int:
    """Bytes that one pass may take."""
    return _ALLOWED.get()


def numbers(share: float) -> int:
    """How many numbers in float32 fit into a share of the bytes that one pass may take."""
    return int(share * allowed() / 4)


@contextmanager
def within(n_bytes: int) -> Iterator[None]:
    """Inside the block, passes take about so many bytes; one prompt at a time is the least. Raises `ValueError`
    for less than one byte.

    >>> with within(2**28):
    ...     found = knock_out(run.raw, batch, knockout, metric)
    """
    if n_bytes < 1:
        raise ValueError(f"memory must be at least 1 byte; got {n_bytes}")
    token = _ALLOWED.set(n_bytes)
    try:
        yield
    finally:
        _ALLOWED.reset(token)
