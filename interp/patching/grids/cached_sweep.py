"""A sweep whose source activations come from a cache instead of a run on clean prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.cells import Cell, first
from interp.patching.checking import tolerance_of
from interp.patching.editing import difference_from_raw
from interp.patching.engine import Engine
from interp.patching.memory import MemoryPlan
from interp.patching.reference import literal_together
from interp.patching.sweep import Sweep
from interp.patching.tracing import Trace, trace
from interp.sites import Site
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.support.locks import lock_of

# Cells that are recomputed by the literal loop, and prompts of each.
SPOT_CELLS, SPOT_PROMPTS = 4, 4


@dataclass(frozen=True, eq=False, kw_only=True)
class CachedSweep(Sweep):
    """A sweep whose source is made from the base run by `source_of(base run, prompts)`.

    engines: the newest engine of the base run, by prompts; sweeps of one model, prompts and metric share it.
    whole_batch: whether all prompts are run together, as a callable metric needs.
    """

    source_of: Callable[[Trace, range], Trace]
    engines: dict[range, Engine]
    whole_batch: bool

    def values(self) -> Float[Tensor, "cell batch"]:
        """Return the metric after each patch."""
        values = self.blank()
        for unit in self.units:
            self.put(values, unit, self.compute(unit))
        return values

    @cached_property
    def baselines(self) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """The metric of the unpatched base run, twice: a cache has no run of its own."""
        base = []
        with lock_of(self.anatomy.raw):
            for prompts in self.slices():
                engine = self.engine(prompts)
                assert isinstance(engine, Engine)
                base.append(engine.measure(engine.base))
                del engine  # freed before the next one is built
        values = require_finite(torch.cat(base), f"{self.metric.name} of the corrupted run")
        return values, values

    @cached_property
    def _at_once(self) -> None:
        """Never: the source is not a run of prompts."""

    @cached_property
    def _plan(self) -> MemoryPlan:
        plan, n = super()._plan, len(self.base)
        if not self.whole_batch:
            return plan
        return replace(plan, prompts=n, cells=max(1, (self.memory - n * plan.trace) // (n * plan.row)))

    def _build_engine(self, prompts: range) -> Engine:
        engine = self.engines.get(prompts)
        if engine is None:
            assert isinstance(self.anatomy, Anatomy)
            self.engines.clear()  # freed before the next one is built
            numbers = torch.arange(prompts.start, prompts.stop)
            base = trace(self.anatomy, self.base.tokens[prompts.start : prompts.stop])
            engine = Engine(self.anatomy, base, base, self.site, self.metric, numbers, self._plan.caches)
            self.engines[prompts] = engine
        return engine.between(self.source_of(engine.base, prompts), self.site)


def check_cells(
    sweep: CachedSweep,
    values: Float[Tensor, "cell batch"],
    literal_site: Site,
    literal_source: Callable[[int], Tensor],
    seed: int = 0,
) -> None:
    """Check a sweep: a control that patches the base run into itself, and random cells against the literal loop.

    `literal_source(layer)` is the value of `literal_site` that the loop patches in, for all prompts.
    Raises `RuntimeError` where a check fails: then no number of the sweep can be trusted.
    """
    anatomy, n = sweep.anatomy, len(sweep.base)
    assert isinstance(anatomy, Anatomy)
    engine = sweep.engine(next(sweep.slices()))
    assert isinstance(engine, Engine)
    base = sweep.baselines[0]
    allowed = tolerance_of(anatomy) * max(1.0, float(base.abs().max()), float(values.abs().max()))
    rows = engine.prompts[:SPOT_PROMPTS]
    difference_from_raw(anatomy, sweep.base.tokens[rows], engine.base.final[: len(rows)], sweep.metric)
    differences = {"negative control": 0.0, "spot": 0.0}
    alive = [number for number, is_alive in enumerate(sweep.alive) if is_alive]
    if alive:
        cell = sweep.cells[alive[0]]
        unchanged = engine.between(engine.base, sweep.site).run([cell], first(cell))[0]
        differences["negative control"] = float((unchanged - base[engine.prompts]).abs().max())
    gen = torch.Generator().manual_seed(seed)
    rows = torch.arange(n)
    if not sweep.whole_batch:
        rows = torch.randperm(n, generator=gen)[:SPOT_PROMPTS].sort().values
    order = torch.randperm(len(sweep.cells), generator=gen).tolist()
    order.sort(key=lambda number: not sweep.alive[number])
    checked = [*order[: SPOT_CELLS - 1], order[-1]]  # the last one is a skipped cell, if there are any
    expected = _literal(sweep, [sweep.cells[number] for number in checked], literal_site, literal_source, rows)
    differences["spot"] = float((values[checked][:, rows] - expected).abs().max())
    for what, difference in differences.items():
        if not difference <= allowed:
            raise RuntimeError(
                f"the {what} check failed: it differs by {difference:.2e}, and {allowed:.2e} is allowed; no number "
                "of this grid can be trusted"
            )


def _literal(
    sweep: CachedSweep, cells: Sequence[Cell], site: Site, source: Callable[[int], Tensor], rows: Tensor
) -> Float[Tensor, "cell row"]:
    """Return the metric of cells by the literal loop, as many cells in one pass as the memory budget allows."""
    anatomy = sweep.anatomy
    assert isinstance(anatomy, Anatomy)
    sources = {cell.layer: source(cell.layer)[rows.to(anatomy.device)] for cell in cells}
    floats = len(rows) * (
        sweep.base.n_pos * 8 * anatomy.d_model + len(sweep.metric.positions) * anatomy.raw.config.vocab_size
    )
    together = max(1, numbers(1 / 4, anatomy.device) // floats)
    tokens = sweep.base.tokens[rows]
    return torch.cat(
        [
            literal_together(anatomy, tokens, site, cells[i : i + together], sources, sweep.metric, rows)
            for i in range(0, len(cells), together)
        ]
    )
