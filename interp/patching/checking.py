"""Checks of a sweep, in every sweep: two controls, and random cells against the literal loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.at_once import AtOnce
from interp.patching.cells import Cell, first
from interp.patching.editing import difference_where_read
from interp.patching.effect import Checks
from interp.patching.engine import Engine, run_together
from interp.patching.generic import GenericEngine
from interp.patching.precision import Matmul, coarse_tolerance
from interp.patching.reference import literal_beside, literal_together, record, recording
from interp.support.exactness import Inexact
from interp.support.rounding import tolerance
from interp.tasks import Prompts

# Engines of one base, each with the cells that it patches.
Groups = Sequence[tuple[Any, Sequence[Cell]]]
CONTROLS = ("positive control", "negative control")
SPOT_PROMPTS = 4
# Cells whose spot checks are stacked.
SPOT_TOGETHER = 4


def run_checks(
    engine: Engine | GenericEngine | AtOnce,
    base: Prompts,
    source: Prompts,
    cells: Sequence[Cell],
    alive: Sequence[bool],
    values: Float[Tensor, "cell batch"],
    baselines: tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]],
    spot_cells: int,
    seed: int,
    together: bool,
    matmul: Matmul = "exact",
    controls: Float[Tensor, "control prompt"] | None = None,
) -> Checks:
    """Run the controls on the engine's prompts, and recompute random cells on the raw model for random prompts.

    `together`: whether the memory has room for stacked checks. `matmul`: how products of the values were computed;
    the controls and the literal loop are exact. `controls`: the metric after `control_groups`, if it is known.

    Positive control: patching all of resid_pre gives the source run. Negative control: patching the base run into
    itself changes nothing. Both unpatched runs are compared with the raw model.

    Raises `RuntimeError` if a check fails: then no number of the sweep can be trusted.
    """
    anatomy, prompts, runs = engine.anatomy, engine.prompts.tolist(), [run.tolist() for run in baselines]
    scale = max(1.0, *(abs(value) for run in runs for value in run))
    exact = tolerance_of(anatomy)

    if controls is None:
        assert not isinstance(engine, AtOnce), "its controls are known"
        controls = _controls(control_groups(engine, cells, alive), together)
    differences = dict.fromkeys((*CONTROLS, "spot"), 0.0)
    for what, control, run in zip(CONTROLS, controls.tolist(), runs[::-1], strict=False):
        differences[what] = _largest_difference(control, [run[i] for i in prompts])

    gen = torch.Generator().manual_seed(seed)
    picked = _picked(alive, spot_cells, gen)
    few = sorted(torch.randperm(len(base), generator=gen)[: min(SPOT_PROMPTS, len(prompts))].tolist())
    computed = dict(zip(picked, values[picked].tolist(), strict=True))
    found, expected = list[float](), list[float]()
    for some, literal in _by_the_literal_loop(engine, base, source, cells, picked, few, together):
        found += [computed[i][row] for i in some for row in few]
        expected += literal.flatten().tolist()
    differences["spot"] = _largest_difference(found, expected)
    spot_allowed = scale * coarse_tolerance(matmul, exact, _depth(anatomy), anatomy.d_model)
    for what, difference in differences.items():
        most = spot_allowed if what == "spot" else scale * exact
        if not difference <= most:
            raise Inexact(
                f"the {what} check failed: it differs by {difference:.2e}, and {most:.2e} is allowed; no number "
                "of this sweep can be trusted"
            )
    return Checks(
        positive=differences["positive control"],
        negative=differences["negative control"],
        spot_cells=len(picked),
        spot_difference=differences["spot"],
        tolerance=spot_allowed,
    )


def _largest_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest absolute difference of two lists of numbers; NaN if one of them is, 0 of empty ones."""
    differences = [abs(a - b) for a, b in zip(found, expected, strict=True)]
    return math.nan if any(map(math.isnan, differences)) else max(differences, default=0.0)


def _picked(alive: Sequence[bool], count: int, gen: torch.Generator) -> list[int]:
    """Return random cells: one that was not computed, the others from those that were."""
    order = torch.randperm(len(alive), generator=gen).tolist()
    skipped, computed = [i for i in order if not alive[i]], [i for i in order if alive[i]]
    return (skipped[: min(1, count // 2)] + computed + skipped[1:])[:count]


def control_groups(
    engine: Engine | GenericEngine, cells: Sequence[Cell], alive: Sequence[bool], start: int = 0
) -> Groups:
    """Return the positive control and, where a cell is computed, the negative one: an engine and a cell each.

    Tokens before `start` are the same in both runs, so that everything is the positions from it on.
    """
    between: Any = engine.between  # each engine takes traces of its own kind
    everything = Cell(0, tuple(range(start, engine.base.tokens.shape[1])))
    groups = [(between(engine.source, "resid_pre"), [everything])]
    if any(alive):
        groups.append((between(engine.base, engine.site), [cells[alive.index(True)]]))
    return groups


def _controls(groups: Groups, together: bool) -> Float[Tensor, "control prompt"]:
    """Return the metric after the controls, on the CPU."""
    if together and isinstance(groups[0][0], Engine):
        return run_together(groups, 0).cpu()
    return torch.cat([own.run(cells, first(cells[0])) for own, cells in groups])


def _by_the_literal_loop(
    engine: Engine | GenericEngine | AtOnce,
    base: Prompts,
    source: Prompts,
    cells: Sequence[Cell],
    picked: Sequence[int],
    few: list[int],
    together: bool,
) -> Iterator[tuple[Sequence[int], Float[Tensor, "cell batch"]]]:
    """Yield some of the picked cells and the metric after their patches in the raw model, for the prompts `few`.

    Both unpatched runs of the engine's first prompts are compared with the raw model's.
    """
    anatomy, site, rows = engine.anatomy, engine.site, torch.tensor(few)
    size = SPOT_TOGETHER if together else 1
    parts = [picked[i : i + size] for i in range(0, len(picked), size)]
    # All of it in one pass, which takes the place of the comparison where no cell is picked, too.
    if together and not isinstance(engine, GenericEngine) and engine.prompts[:SPOT_PROMPTS].tolist() == few:
        final = engine.finals(len(few))
        tokens = _tokens(base, few), _tokens(source, few)
        for some in parts or [[]]:
            expected, both = literal_beside(anatomy, *tokens, site, [cells[i] for i in some], engine.metric, rows)
            difference_where_read(engine.anatomy, tokens, final, engine.metric, both)
            yield some, expected
        return
    sources = _compare_with_raw(engine, base, source, [cells[i] for i in picked], few)
    for some in parts:
        own = [cells[i] for i in some]
        yield some, literal_together(anatomy, _tokens(base, few), site, own, sources, engine.metric, rows)


def _tokens(prompts: Prompts, numbers: list[int]) -> Int[Tensor, "row pos"]:
    """Return the tokens of some prompts."""
    return prompts.tokens if numbers == list(range(len(prompts))) else prompts.tokens[numbers]


def _compare_with_raw(
    engine: Engine | GenericEngine | AtOnce,
    base: Prompts,
    source: Prompts,
    cells: Sequence[Cell],
    few: list[int],
) -> dict[int, Tensor]:
    """Compare both unpatched runs of some of the engine's prompts with the raw model.

    Returns the site's activations on the source prompts `few` in the raw model, by layer of the cells.
    """
    anatomy, site, rows = engine.anatomy, engine.site, engine.prompts[:SPOT_PROMPTS].tolist()
    layers = sorted({cell.layer for cell in cells})
    if isinstance(engine, GenericEngine):
        for prompts in (base, source):
            engine.anatomy.check_on(_tokens(prompts, rows))
        return {layer: record(anatomy, _tokens(source, few), site, layer) for layer in layers}
    for prompts, final in zip((base, source), engine.finals(len(rows)).chunk(2), strict=True):
        difference_where_read(engine.anatomy, [_tokens(prompts, rows)], final, engine.metric, None)
    if not layers:
        return {}
    with recording(anatomy, site, layers) as kept:
        anatomy.raw(_tokens(source, few).to(anatomy.device), use_cache=False, logits_to_keep=1)
    return kept


def tolerance_of(anatomy: Anatomy | GenericAnatomy) -> float:
    """Return the largest difference from the literal loop, relative to the largest metric (at least 1)."""
    return tolerance(anatomy.arithmetic, _depth(anatomy), anatomy.d_model, anatomy.device)


def _depth(anatomy: Anatomy | GenericAnatomy) -> int:
    return len(anatomy.layers if isinstance(anatomy, GenericAnatomy) else anatomy.blocks)
