"""How many inputs does each property see, and how many did all of them see together?

`pytest tests/fuzz` tries a few, the same each time; `pytest tests/fuzz -m slow` many, others each time.
MNEMOSCOPE_FUZZ multiplies the many.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

FACTOR = float(os.environ.get("MNEMOSCOPE_FUZZ", "1"))
# Seconds of computing that one input may take, and seconds on the clock, for waits; most inputs take milliseconds.
LONGEST, LONGEST_ON_CLOCK = 30, 150
# Inputs tried so far, by kind.
tried: Counter[str] = Counter()


def counts(few: int, many: int) -> pytest.MarkDecorator:
    """Parametrises a property by its number of inputs; the many are slow."""
    many = int(many * FACTOR)
    return pytest.mark.parametrize(
        "count", [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.slow)]
    )


def hammer(kind: str, count: int, inputs: SearchStrategy[T], check: Callable[[T], None], few: int = 1000) -> None:
    """Runs `check` on `count` inputs (less where there are not so many); the first that fails is made small."""

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=count <= few,
        suppress_health_check=[*HealthCheck.__members__.values()],
    )
    @given(inputs)
    def each(value: T) -> None:
        tried[kind] += 1
        with soon():
            check(value)

    each()


@contextmanager
def soon() -> Iterator[None]:
    """Fails what takes longer than a person would wait for a refusal."""

    def late(*_: object) -> None:
        raise AssertionError(f"an input took more than {LONGEST} s")

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, LONGEST), signal.ITIMER_REAL: (signal.SIGALRM, LONGEST_ON_CLOCK)}
    before = {number: signal.signal(number, late) for number, _ in timers.values()}
    try:
        for timer, (_, seconds) in timers.items():
            signal.setitimer(timer, seconds)
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def refusal(work: Callable[[], T]) -> T | None:
    """What `work` gives, or None where it refuses with a `ValueError` that says something in one printable line."""
    try:
        return work()
    except ValueError as error:
        text = str(error)
        assert text.strip(), "a refusal without words"
        assert len(text) < 2000, text
        return None
