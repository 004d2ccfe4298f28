"""One re-entrant lock per model, so that threads do not see each other's hooks and gradient flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, RLock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

_LOCKS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_GUARD = Lock()


def lock_of(model: object) -> Any:
    """Return the model's lock, an `RLock`. It lives as long as the model.

    Hold it around every forward pass, hook and change of `requires_grad`. A pass without a hook must hold it too:
    it would otherwise be altered by the hook of another thread.

    >>> with lock_of(raw):
    ...     logits = raw(tokens).logits
    """
    with _GUARD:
        if model not in _LOCKS:
            _LOCKS[model] = RLock()
        return _LOCKS[model]


@contextmanager
def own_thread(model: object, what: str) -> Iterator[Callable[[], None]]:
    """Hold the model's lock, and yield a function that raises `ValueError` in every thread but this one.

    For blocks that change what the model computes: call it at the start of each forward pass. Functions of `interp` in
    other threads wait for the lock; a plain forward pass does not know of it, and must not be changed silently. `what`
    names the block.
    """
    owner = get_ident()

    def check() -> None:
        if get_ident() != owner:
            raise ValueError(
                f"this model is in use: another thread is inside a `{what}` block of it; wait for its end, enter the "
                "block in the thread that runs the model, or load the model once per thread"
            )

    with lock_of(model):
        yield check
