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
    """Positive control (all of resid_pre patched gives the source run), negative control (this site of a run into
    itself changes nothing), and a spot check of this site against the literal loop.

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

    gen = torch.Generator().manual_seed(seed)
    # One of those that were not computed, the others of those that were, on prompts from anywhere in the batch.
    order = torch.randperm(len(sweep.cells), generator=gen).tolist()
    dead = [i for i in order if not sweep.alive[i]]
    alive = [i for i in order if sweep.alive[i]]
    picked = (dead[: min(1, spot_cells // 2)] + alive + dead[1:])[:spot_cells]
    few = torch.randperm(len(base), generator=gen)[:SPOT_PROMPTS].sort().values
    spot = 0.0
    for i in picked:
        cell = sweep.cells[i]
        given = record(sweep.anatomy, sweep.source.tokens[few], sweep.site, cell.layer)
        expected = literal(sweep.anatomy, sweep.base.tokens[few], sweep.site, cell, given, sweep.metric, few)
        spot = max(spot, float((values[i, few] - expected).abs().max()))
    for what, difference in (("positive control", positive), ("negative control", negative), ("spot", spot)):
        if not difference <= tolerance:
            raise RuntimeError(
                f"the {what} check failed: {difference:.2e} from what it must be, {tolerance:.2e} allowed; "
                "no number of this sweep can be trusted"
            )
    return Checks(positive, negative, len(picked), spot, tolerance)
