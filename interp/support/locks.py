"""One re-entrant lock per model, so that threads do not see each other's hooks and gradient flags."""

from __future__ import annotations

from threading import Lock, RLock
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
