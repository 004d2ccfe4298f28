"""The goals of sweeps on an H100, and the time of a sweep beside the FLOPs that it counts."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch

from experiments.benchmarks import patching
from experiments.benchmarks.patching import Case
from experiments.benchmarks.scaling import seconds_of

Part = Callable[[], dict]

# Sweeps with another prompt as source, and how many times faster than TransformerLens they should be: small ones,
# which launches bound, and large ones, which arithmetic bounds.
SWEEPS = {
    Case("alibi", 4, 128, 20, 1, "resid_pre", "redraw"): 100,
    Case("absolute", 12, 768, 20, 1, "resid_pre", "redraw"): 60,
    Case("rotary", 12, 768, 20, 8, "resid_pre", "redraw"): 20,
    Case("alibi", 24, 1024, 20, 8, "resid_pre", "redraw", vocabulary=250_880): 15,
}
SMALLEST = {Case("alibi", 2, 16, 3, 1, "resid_pre", "redraw"): 1}
# A sweep of over a second should take at most so many times what its FLOPs take at the device's rate.
LONG, OF_RATE = 1.0, 2.0
# Side of the square matrices whose product gives a device's rate.
SIDE = 8192


def device() -> str:
    """Return the device of all parts."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def rate(side: int) -> dict:
    """Return the rate of a product of square matrices, in FLOP/s, by arithmetic."""
    return {"side": side, "flops_a_second": {name: _rate(side, dtype) for name, dtype in _TYPES.items()}}


_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _rate(side: int, dtype: torch.dtype) -> float:
    x = torch.randn(side, side, device=device()).to(dtype)
    return 2 * side**3 / median(seconds_of(lambda: x @ x, device()) for _ in range(5))


def timed_sweep(case: Case, goal: int, side: int, rounds: int) -> dict:
    """Return the row of the patching benchmark, and the time of the sweep over that of its counted FLOPs."""
    row = patching.run_case(case, rounds)
    seconds = row["patches"] * row["ms_a_patch"]["ours"] / 1000
    at_rate = row["flops"]["ours"] / _rate(side, torch.float32)
    row |= {"sweep_seconds": seconds, "of_counted_flops": seconds / at_rate, "goal": {"transformer_lens": goal}}
    if seconds > LONG:
        row["goal"]["of_counted_flops"] = OF_RATE
    return row
