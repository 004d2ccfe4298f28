"""Prints what `mnemoscope patch` measured, and what it would do."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from experiments.patch_inputs import LARGEST
from experiments.support.console import print_table, say

if TYPE_CHECKING:
    from experiments.commands.patch import PatchCommand
    from interp.circuits.validity import Validity
    from interp.models import Run
    from interp.patching import PatchEffect, Sweep


def show_effect(run: Run, effect: PatchEffect, validity: Validity | None, matmul: str) -> None:
    """Print the largest changes and the checks."""
    base, source = float(effect.base.mean()), float(effect.source.mean())
    title = f"{run.name}, {effect.site}: changes of the {effect.metric} (base {base:.3f}, source {source:.3f})"
    if validity is not None and not validity.valid:
        say(f"INVALID: {validity.reason}")
    rows = [[" ".join(str(c) for c in cell), f"{change:+.3f}"] for cell, change in effect.top(LARGEST)]
    print_table(title, [" ".join(effect.axes), "change"], rows)
    checks, cost = effect.checks, effect.cost
    assert checks is not None
    assert cost is not None
    to = "equal" if matmul == "exact" else f"with {matmul} products differ from"
    by = "to" if matmul == "exact" else "by up to"
    say(
        f"{cost.patches} patches, {cost.skipped} of which cannot matter; {cost.loop_flops / cost.flops:.1f} times "
        f"fewer FLOPs than one forward pass per patch; {checks.spot_cells} cells {to} the literal loop {by} "
        f"{checks.spot_difference:.1e} (allowed {checks.tolerance:.1e})"
    )


def show_plan(command: PatchCommand, sweep: Sweep) -> None:
    """Print what a sweep would do and cost; the time is that of one unit of work, which is computed."""
    cost = sweep.cost
    seconds = 0.0
    if sweep.units:
        unit = sweep.units[len(sweep.units) // 2]
        began = time.perf_counter()
        sweep.compute(unit)
        seconds = (time.perf_counter() - began) * len(sweep.units)
    if command.json:
        figures = {"peak_bytes": sweep.peak_bytes, "expected_seconds": round(seconds, 1)}
        print(json.dumps({**asdict(cost), **figures}))
        return
    prompts = len(command.clean) if command.is_text else command.prompts
    say(f"{cost.patches} patches for each of {prompts} prompts, {cost.skipped} of which cannot matter")
    say(
        f"{cost.flops:.3g} FLOPs; one forward pass per patch would take {cost.loop_flops:.3g}, "
        f"any exact method at least {cost.lower_bound_flops:.3g}"
    )
    say(f"at most {sweep.peak_bytes / 2**20:.0f} MiB beyond the model; about {seconds:.0f} s here")
