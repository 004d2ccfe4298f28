"""Copies of a model's modules that share its weights, and a fingerprint that tells when weights changed."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def share_weights(model: M) -> M:
    """Return a copy of the module tree whose parameters and buffers are the same tensors as in `model`."""
    return copy.deepcopy(model, memo={id(t): t for t in (*model.parameters(), *model.buffers())})


def fingerprint(model: nn.Module) -> tuple[Hashable, ...]:
    """Return a value that differs after any weight was replaced, moved, or edited in place, or a hook was added.

    It reads addresses and version counters, not numbers: writes through `.data` are not seen.
    """
    weights = tuple((t.data_ptr(), _version(t)) for t in (*model.parameters(), *model.buffers()))
    hooks = tuple(key for m in model.modules() for key in (*m._forward_pre_hooks, *m._forward_hooks))
    return weights, hooks


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # inference tensors count no versions
