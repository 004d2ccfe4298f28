"""Take a raw Hugging Face model apart into steps between TransformerLens's sites.

The patching engine runs these steps at few positions and for many patches at once. The steps are checked against the
raw model's logits before they are used. `interp.models.architectures` has one builder per architecture.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from interp.models.architectures import BUILDERS, SUPPORTED
from interp.models.architectures.block import Block
from interp.models.architectures.checks import TOLERANCE, tolerance_of
from interp.models.architectures.discovery import generic_of
from interp.models.architectures.generic import GenericAnatomy
from interp.models.architectures.steps import Anatomy
from interp.models.changed import require_evaluating, require_unchanged
from interp.support.locks import lock_of

__all__ = [
    "SUPPORTED",
    "TOLERANCE",
    "Anatomy",
    "Block",
    "GenericAnatomy",
    "anatomy_of",
    "anatomy_or_generic",
    "tolerance_of",
]


class _Unknown(ValueError):
    """An architecture without a builder."""


def anatomy_of(raw: PreTrainedModel, test: bool = True) -> Anatomy:
    """Take a raw model apart, and check that its steps give its logits.

    `test=False` leaves the check out, for callers that compare with the raw model on the prompts themselves.

    Raises `ValueError` for an architecture that is not among `SUPPORTED`, for an option of its configuration that is
    not supported, and for a model in training mode; `RuntimeError` where the logits differ.
    """
    _require_ready(raw)
    try:
        anatomy = _built(raw)
    except _Unknown as error:
        raise ValueError(f"{error}; the types that are: {', '.join(SUPPORTED)}") from error
    if test:
        _self_test(anatomy, raw)
    return anatomy


def anatomy_or_generic(raw: PreTrainedModel, test: bool = True) -> Anatomy | GenericAnatomy:
    """Return `anatomy_of` a model, or its `GenericAnatomy` where the architecture or an option is not supported.

    `test` is that of `anatomy_of`.

    Raises `ValueError`, with both reasons, for a model that has neither.
    """
    _require_ready(raw)
    try:
        anatomy = _built(raw)
    except ValueError as reason:
        try:
            with lock_of(raw):
                return generic_of(raw)
        except ValueError as error:
            raise ValueError(f"{reason}; and it cannot be patched layer by layer: {error}") from error
    if test:
        _self_test(anatomy, raw)
    return anatomy


def _self_test(anatomy: Anatomy, raw: PreTrainedModel) -> None:
    """Check the steps under the model's lock: the model runs, and may be in a block of another thread."""
    with lock_of(raw):
        anatomy.self_test()


def _require_ready(raw: PreTrainedModel) -> None:
    require_evaluating(raw)
    with lock_of(raw):  # a block of another thread ends first
        require_unchanged(raw)


def _built(raw: Any) -> Anatomy:
    builder = BUILDERS.get(raw.config.model_type)
    if builder is None:
        raise _Unknown(f"the architecture {raw.config.model_type!r} is not taken apart")
    anatomy = builder(raw)
    object.__setattr__(anatomy, "rebuild", _built)  # it is new; `replace` would make another one
    return anatomy
