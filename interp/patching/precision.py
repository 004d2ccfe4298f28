"""Coarser arithmetic for the matrix products of patched runs, where their measured error is acceptable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

import torch

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.support.rounding import TF32, tolerance

if TYPE_CHECKING:
    from interp.patching.effect import Checks

# How matrix products of patched runs are computed: in the model's own type; in TF32; with bfloat16 factors.
Matmul = Literal["exact", "tf32", "bfloat16"]
# Cells that are compared with the literal loop where products are coarser, to measure the error.
COARSE_CELLS = 16


def check_matmul(matmul: str, anatomy: Anatomy | GenericAnatomy) -> None:
    """Raise `ValueError` for an unknown way, or one that this model and device do not have."""
    if matmul not in get_args(Matmul):
        raise ValueError(f"matmul must be {', '.join(map(repr, get_args(Matmul)))}; got {matmul!r}")
    if matmul == "exact":
        return
    if isinstance(anatomy, GenericAnatomy):
        raise ValueError(f"matmul={matmul!r} is for models that are taken apart; this one is run layer by layer")
    if anatomy.dtype != torch.float32:
        raise ValueError(f"matmul={matmul!r} is for models in float32; this one is in {anatomy.dtype}")
    if matmul == "tf32" and anatomy.device.type != "cuda":
        raise ValueError(f"matmul='tf32' needs a CUDA device; the model is on {anatomy.device}")


@contextmanager
def products(matmul: Matmul, device: torch.device) -> Iterator[None]:
    """Inside the block, compute matrix products on a device in this way; sums, norms and softmax stay in float32.

    PyTorch sets "tf32" for the whole process: other threads have it too until the block ends.
    """
    match matmul:
        case "exact":
            yield
        case "tf32":
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("high")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(before)
        case "bfloat16":
            with torch.autocast(device.type, torch.bfloat16):
                yield


def coarse_tolerance(matmul: Matmul, exact: float, depth: int, width: int) -> float:
    """Return the largest difference that rounding explains, relative to the largest metric; `exact` is without."""
    match matmul:
        case "exact":
            return exact
        case "tf32":
            return max(exact, TF32 * tolerance(torch.float32, depth, width))
        case "bfloat16":
            return tolerance(torch.bfloat16, depth, width)


def stated_error(matmul: Matmul, checks: Checks) -> dict:
    """Return what a result says of its error, in units of the metric; nothing where products are exact."""
    if matmul == "exact":
        return {}
    return {"matmul": matmul, "measured error": checks.spot_difference, "of cells": checks.spot_cells}
