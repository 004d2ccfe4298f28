"""Can a sweep's numbers be trusted? Controls, and random cells against the literal loop, in every sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.patching.cells import Cell, first
from interp.patching.effect import Checks
from interp.patching.reference import literal, record

if TYPE_CHECKING:
    from interp.patching.sweep import Sweep

# Largest difference from the literal loop, relative to the largest metric (at least 1), by type of the weights.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
HALF_TOLERANCE = 0.05
SPOT_PROMPTS = 4


def run_checks(sweep: Sweep, values: Tensor, spot_cells: int, seed: int) -> Checks:
    """Positive control (patch everything), negative control (a run with itself), and a spot check.

    Raises `RuntimeError` when one fails: then no number of the sweep can be trusted.
    """
    base, source = sweep.baselines
    scale = max(1.0, float(base.abs().max()), float(source.abs().max()))
    tolerance = TOLERANCE.get(sweep.anatomy.dtype, HALF_TOLERANCE) * scale
    prompts = next(sweep.slices())
    engine = sweep.engine(prompts)
    rows = slice(prompts.start, prompts.stop)

    everything = Cell(0, tuple(range(sweep.base.n_pos)))
    whole = sweep.engine_of(engine.base, engine.source, prompts, "resid_pre").run([everything], 0)[0]
    positive = float((whole - source[rows]).abs().max())
    negative = 0.0
    if sweep.units:
        cell = sweep.cells[sweep.units[0].cells[0]]
        same = sweep.engine_of(engine.base, engine.base, prompts).run([cell], first(cell))[0]
        negative = float((same - base[rows]).abs().max())

    picked = torch.randperm(len(sweep.cells), generator=torch.Generator().manual_seed(seed))[:spot_cells].tolist()
    few = min(SPOT_PROMPTS, len(base))
    spot = 0.0
    for i in picked:
        cell = sweep.cells[i]
        given = record(sweep.anatomy, sweep.source.tokens[:few], sweep.site, cell.layer)
        tokens, numbers = sweep.base.tokens[:few], torch.arange(few)
        expected = literal(sweep.anatomy, tokens, sweep.site, cell, given, sweep.metric, numbers)
        spot = max(spot, float((values[i, :few] - expected).abs().max()))
    for what, difference in (("positive control", positive), ("negative control", negative), ("spot", spot)):
        if not difference <= tolerance:
            raise RuntimeError(
                f"the {what} check failed: {difference:.2e} from what it must be, {tolerance:.2e} allowed; "
                "no number of this sweep can be trusted"
            )
    return Checks(positive, negative, len(picked), spot, tolerance)
