"""Say which run a command uses where two have the name that it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from experiments.support.console import warn

# Names that were looked at in the block of `saying_which`.
_seen: ContextVar[set[str] | None] = ContextVar("names of runs", default=None)


@contextmanager
def saying_which() -> Iterator[None]:
    """Inside the block, `say_which` prints: a command does, its worker processes and other programs do not."""
    token = _seen.set(set())
    try:
        yield
    finally:
        _seen.reset(token)


def say_which(name: str | Path) -> None:
    """Print one line on standard error where two folders with a model have a run's name: which one is used.

    Each name is reported once per block of `saying_which`; elsewhere nothing is printed.
    """
    from interp.models.names import places_of

    seen, text = _seen.get(), str(name)
    if seen is None or text in seen:
        return
    seen.add(text)
    used, *others = [f"./{text}" if place == text else place for place in places_of(text)] or [text]
    if others:
        warn(f"two models are named {text}: {used} is used; to use the other, write {others[0]}")
