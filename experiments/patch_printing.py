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

# Sites of the residual stream.
RESIDUAL = ("resid_pre", "resid_mid", "resid_post")


def show_effect(run: Run, effect: PatchEffect, validity: Validity | None, matmul: str) -> None:
    """Print the largest changes and the checks."""
    into, out_of = ("corrupted", "clean") if effect.direction == "denoise" else ("clean", "corrupted")
    base, source = float(effect.base.mean()), float(effect.source.mean())
    whole, best = whole_difference(effect), effect.site in RESIDUAL and effect.axes == ("layer", "pos")
    if validity is not None and not validity.valid:
        say(f"INVALID: {validity.reason}")
    title = f"{run.name}, {effect.site}: changes of the {effect.metric} ({into} {base:.3f}, {out_of} {source:.3f}) "
    title += f"by {out_of} activations in the {into} run" + (", at each position in its best layer" if best else "")
    rows = [
        [*map(str, cell), f"{change:+.3f}", *([] if whole is None else [f"{change / whole:.3f}"])]
        for cell, change in largest(effect, best)
    ]
    print_table(title, [*effect.axes, "change", *([] if whole is None else ["recovered"])], rows)
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


def largest(effect: PatchEffect, best: bool) -> list[tuple[tuple[str | int, ...], float]]:
    """Return the cells that change the metric most, largest first; with `best`, each position in one layer only.

    Cells that change nothing are left out. The residual stream at one position has much the same effect in many
    layers, which would fill the list.
    """
    cells, found = effect.top(effect.values[..., 0].numel() if best else LARGEST), {}
    for cell, change in cells:
        found.setdefault(cell[-1] if best else cell, (cell, change))
    moved = [one for one in found.values() if one[1]]
    return (moved or list(found.values())[:1])[:LARGEST]


def whole_difference(effect: PatchEffect) -> float | None:
    """Return the mean difference of source and base, of which changes are shares; None where it is too small."""
    try:
        effect.recovered  # noqa: B018
    except ValueError:
        return None
    return float((effect.source - effect.base).mean())


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
