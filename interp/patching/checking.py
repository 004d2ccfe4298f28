"""Checks of a sweep, in every sweep: two controls, and random cells against the literal loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.cells import Cell, first
from interp.patching.editing import difference_from_raw
from interp.patching.effect import Checks
from interp.patching.engine import Engine
from interp.patching.generic import GenericEngine
from interp.patching.reference import literal, record
from interp.support.rounding import tolerance
from interp.tasks import Prompts

SPOT_PROMPTS = 4


def run_checks(
    engine: Engine | GenericEngine,
    base: Prompts,
    source: Prompts,
    cells: Sequence[Cell],
    alive: Sequence[bool],
    values: Float[Tensor, "cell batch"],
    baselines: tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]],
    spot_cells: int,
    seed: int,
) -> Checks:
    """Run the controls on the engine's prompts, and recompute random cells by the literal loop on random prompts.

    Positive control: patching all of resid_pre gives the source run. Negative control: patching the base run into
    itself changes nothing. Both unpatched runs are compared with the raw model.

    Raises `RuntimeError` if a check fails: then no number of the sweep can be trusted.
    """
    anatomy, prompts = engine.anatomy, engine.prompts
    base_values, source_values = baselines
    scale = max(1.0, float(base_values.abs().max()), float(source_values.abs().max()))
    allowed = tolerance_of(anatomy) * scale

    between: Any = engine.between  # each engine takes traces of its own kind
    everything = Cell(0, tuple(range(base.n_pos)))
    patched = between(engine.source, "resid_pre").run([everything], 0)[0]
    differences = {"positive control": float((patched - source_values[prompts]).abs().max()), "negative control": 0.0}
    if any(alive):
        cell = cells[alive.index(True)]
        patched = between(engine.base, engine.site).run([cell], first(cell))[0]
        differences["negative control"] = float((patched - base_values[prompts]).abs().max())

    gen = torch.Generator().manual_seed(seed)
    picked = _picked(alive, spot_cells, gen)
    few = torch.randperm(len(base), generator=gen)[: min(SPOT_PROMPTS, len(prompts))].sort().values
    _compare_with_raw(engine, prompts[:SPOT_PROMPTS], base, source)
    spot = 0.0
    for i in picked:
        cell = cells[i]
        given = record(anatomy, source.tokens[few], engine.site, cell.layer)
        expected = literal(anatomy, base.tokens[few], engine.site, cell, given, engine.metric, few)
        spot = max(spot, float((values[i, few] - expected).abs().max()))
    differences["spot"] = spot
    for what, difference in differences.items():
        if not difference <= allowed:
            raise RuntimeError(
                f"the {what} check failed: it differs by {difference:.2e}, and {allowed:.2e} is allowed; no number "
                "of this sweep can be trusted"
            )
    return Checks(
        positive=differences["positive control"],
        negative=differences["negative control"],
        spot_cells=len(picked),
        spot_difference=spot,
        tolerance=allowed,
    )


def _picked(alive: Sequence[bool], count: int, gen: torch.Generator) -> list[int]:
    """Return random cells: one that was not computed, the others from those that were."""
    order = torch.randperm(len(alive), generator=gen).tolist()
    skipped, computed = [i for i in order if not alive[i]], [i for i in order if alive[i]]
    return (skipped[: min(1, count // 2)] + computed + skipped[1:])[:count]


def _compare_with_raw(engine: Engine | GenericEngine, rows: Tensor, base: Prompts, source: Prompts) -> None:
    """Compare both unpatched runs of some of the engine's prompts with the raw model."""
    for run, prompts in ((engine.base, base), (engine.source, source)):
        if isinstance(engine.anatomy, GenericAnatomy):
            engine.anatomy.check_on(prompts.tokens[rows])
        else:
            difference_from_raw(engine.anatomy, prompts.tokens[rows], run.final[: len(rows)], engine.metric)


def tolerance_of(anatomy: Anatomy | GenericAnatomy) -> float:
    """Return the largest difference from the literal loop, relative to the largest metric (at least 1)."""
    depth = len(anatomy.layers if isinstance(anatomy, GenericAnatomy) else anatomy.blocks)
    return tolerance(anatomy.arithmetic, depth, anatomy.d_model, anatomy.device)
