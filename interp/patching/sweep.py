"""A planned sweep: patches of one site at many layers, positions and heads, computed in units of work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.at_once import AtOnce, run_if_small
from interp.patching.cells import Cell, first, which_live
from interp.patching.checking import Groups, control_groups, run_checks
from interp.patching.chunks import Chunks, starting_flops
from interp.patching.cost import Sizes, cost_of, sizes_of
from interp.patching.effect import Cost, PatchEffect
from interp.patching.engine import Engine
from interp.patching.generic import GenericEngine
from interp.patching.memory import MemoryPlan, plan_memory
from interp.patching.metric import Metric
from interp.patching.precision import COARSE_CELLS, Matmul, stated_error
from interp.patching.stacks import build_engine, run_in_stacks
from interp.patching.units import WorkUnit, buckets_of
from interp.support.finite import require_finite
from interp.support.locks import lock_of
from interp.tasks import Prompts


@dataclass(frozen=True, eq=False)
class Sweep:
    """A planned sweep: its cells and its cost, before anything is computed.

    `plan` returns one. `run()` computes it; `compute(unit)` computes one unit, in any order. `memory` is in bytes,
    beyond the model.
    """

    anatomy: Anatomy | GenericAnatomy
    base: Prompts
    source: Prompts
    site: str
    metric: Metric
    direction: str
    axes: tuple[str, ...]
    labels: dict[str, tuple[str | int, ...]]
    cells: tuple[Cell, ...]
    memory: int
    matmul: Matmul = "exact"

    def __repr__(self) -> str:
        return (
            f"Sweep({self.site!r}, {self.direction!r}, {len(self.cells)} patches of {len(self.base)} prompts, "
            f"metric={self.metric.name!r})"
        )

    @cached_property
    def alive(self) -> tuple[bool, ...]:
        """Which cells can change the metric; the others equal the base exactly and are not computed."""
        if self._at_once is not None:
            return self._at_once.alive
        differs: Tensor | None = None
        with lock_of(self.anatomy.raw):
            for prompts in self.slices():
                new = self.engine(prompts).differs()
                differs = new if differs is None else differs | new
        assert differs is not None
        return tuple(which_live(self.cells, self.site, differs.tolist(), self.metric.positions.tolist()))

    @cached_property
    def units(self) -> tuple[WorkUnit, ...]:
        """The work, unit by unit."""
        if self._at_once is not None:
            own = tuple(i for i, alive in enumerate(self.alive) if alive)
            return (WorkUnit(0, 0, own, range(len(self.base))),) if own else ()
        starting, plan = starting_flops(self.anatomy.device.type), self._plan
        buckets = buckets_of(self.cells, self.alive, self._sizes, self.site, plan.prompts, plan.cells, starting)
        pairs = [(p, b) for p in self.slices() for b in buckets]
        return tuple(WorkUnit(k, first(self.cells[b[0]]), tuple(b), p) for k, (p, b) in enumerate(pairs))

    @property
    def cost(self) -> Cost:
        """FLOPs of the whole sweep, of the literal loop, and the least that any exact method pays."""
        return cost_of(self._sizes, self.cells, self.alive, self.units, self.site, len(self.base))

    @cached_property
    def _sizes(self) -> Sizes:
        return sizes_of(self.anatomy, self.base.n_pos, len(self.metric.positions), self._n_tokens)

    @property
    def _n_tokens(self) -> int | None:
        return None if self.metric.tokens is None else len(self.metric.tokens)

    @cached_property
    def _plan(self) -> MemoryPlan:
        n_reads = len(self.metric.positions)
        counts = len(self.base), self.base.n_pos, n_reads  # prompts, positions, positions that are read
        return plan_memory(self.anatomy, self.site, *counts, budget=self.memory, n_tokens=self._n_tokens)

    @property
    def minimum_bytes(self) -> int:
        """The least memory that the sweep can run in: one prompt's traces and one patch of it."""
        return self._plan.minimum

    @property
    def peak_bytes(self) -> int:
        """Memory that the sweep keeps to, beyond the model: two runs' activations and one chunk of rows."""
        return self._plan.peak

    def run(self, spot_cells: int = 4, seed: int = 0, progress: Callable[[Iterable], Iterable] = iter) -> PatchEffect:
        """Compute every unit and check the result; `progress` may wrap the units in a bar."""
        began = time.monotonic()
        if self._at_once is not None:
            deque(progress(self.units), maxlen=0)
            return self.finish(self._at_once.values.clone(), spot_cells, seed, time.monotonic() - began)
        values, controls = self.blank(), None
        for unit in progress(self.units):
            beside = self._controls_beside(unit)
            computed = self.compute(unit, beside)
            if beside:
                computed, controls = computed[: -len(beside)], computed[-len(beside) :]
            self.put(values, unit, computed)
        return self.finish(values, spot_cells, seed, time.monotonic() - began, controls)

    def blank(self) -> Float[Tensor, "cell batch"]:
        """Return the base's metric for every cell: final for cells that cannot matter."""
        return self.baselines[0].expand(len(self.cells), -1).clone()

    def put(self, values: Tensor, unit: WorkUnit, computed: Float[Tensor, "cell prompt"]) -> None:
        """Write a unit's results into `values`."""
        values[torch.tensor(unit.cells), unit.prompts.start : unit.prompts.stop] = computed

    def compute(self, unit: WorkUnit, beside: Groups = ()) -> Float[Tensor, "cell prompt"]:
        """Return the metric after each patch of a unit, then after those of `beside` (see `run_in_stacks`)."""
        if self._at_once is not None:
            return self._at_once.values[list(unit.cells)]
        cells = [self.cells[i] for i in unit.cells]
        with lock_of(self.anatomy.raw):
            engine = self.engine(unit.prompts)
            values = run_in_stacks(engine, cells, beside, self._sizes, self._chunks, self.matmul)
        return require_finite(values, f"{self.metric.name} of a patched run", unit.prompts.start)

    def _controls_beside(self, unit: WorkUnit) -> Groups:
        """Return the controls, one cell each, if they can be rows of this unit: nothing differs before its start."""
        if unit.number or self.matmul != "exact" or not self._plan.together or self.anatomy.generic:
            return ()
        rows = slice(unit.prompts.start, unit.prompts.stop)
        if not torch.equal(*(run.tokens[rows, : unit.start] for run in (self.base, self.source))):
            return ()
        return control_groups(self.engine(unit.prompts), self.cells, self.alive, unit.start)

    def finish(
        self,
        values: Tensor,
        spot_cells: int = 4,
        seed: int = 0,
        seconds: float = 0.0,
        controls: Float[Tensor, "control prompt"] | None = None,
    ) -> PatchEffect:
        """Return the result, after the controls and a random check against the literal loop.

        `controls` is the metric after them (`control_groups`), if it is known.

        Raises `RuntimeError` if a check fails: then no number of this sweep can be trusted.
        """
        base, source = self.baselines
        prompts, at_once = next(self.slices()), self._at_once
        stacked = self._chunks.best if at_once is None else sum(at_once.alive)
        with lock_of(self.anatomy.raw):
            checks = run_checks(
                at_once or self.engine(prompts),
                base=self.base,
                source=self.source,
                cells=self.cells,
                alive=self.alive,
                values=values,
                baselines=(base, source),
                controls=controls if at_once is None else at_once.controls,
                spot_cells=spot_cells if self.matmul == "exact" else max(spot_cells, COARSE_CELLS),
                seed=seed,
                together=self._plan.together,
                matmul=self.matmul,
            )
        shape = tuple(len(self.labels[a]) for a in self.axes)
        return PatchEffect(
            site=self.site,
            metric=self.metric.name,
            direction=self.direction,
            axes=self.axes,
            labels=self.labels,
            values=values.reshape(*shape, len(self.base)),
            base=base,
            source=source,
            checks=checks,
            cost=replace(self.cost, chunk_rows=len(prompts) * stacked, seconds=seconds),
            details={"anatomy": "generic"} if self.anatomy.generic else stated_error(self.matmul, checks),
        )

    @cached_property
    def baselines(self) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """The metric of the unpatched base and source runs."""
        if self._at_once is not None:
            return self._at_once.base, self._at_once.source
        base, source = [], []
        with lock_of(self.anatomy.raw):
            for prompts in self.slices():
                engine: Any = self.engine(prompts)  # each engine measures traces of its own kind
                both = engine.measure_both()
                base.append(both[0])
                source.append(both[1])
                del engine  # freed before the next one is built
        values = (torch.cat(base), torch.cat(source))
        for run, name in zip(values, ("base", "source"), strict=True):
            require_finite(run, f"{self.metric.name} of the {name} run")
        return values

    @cached_property
    def _at_once(self) -> AtOnce | None:
        """All of it, from one pass, where the sweep is so small that this is faster."""
        if self.site != "resid_pre" or self.matmul != "exact" or not isinstance(self.anatomy, Anatomy):
            return None
        given = self.base, self.source, self.metric, self.cells
        with lock_of(self.anatomy.raw):
            return run_if_small(self.anatomy, *given, self._sizes, self._plan, starting_flops(self.anatomy.device.type))

    @cached_property
    def _chunks(self) -> Chunks:
        positions = min(self._plan.prompts, len(self.base)) * self.base.n_pos
        return Chunks(self._plan.cells, self.anatomy.device.type, positions)

    def slices(self) -> Iterator[range]:
        """Return the numbers of the prompts that are run together."""
        n, size = len(self.base), self._plan.prompts
        return (range(start, min(start + size, n)) for start in range(0, n, size))

    def engine(self, prompts: range) -> Engine | GenericEngine:
        """Return the engine for some prompts; the newest one is kept."""
        if self.__dict__.get("_cached_engine", (None,))[0] != prompts:
            self.__dict__.pop("_cached_engine", None)  # freed before the next one is built
            self.__dict__["_cached_engine"] = (prompts, self._build_engine(prompts))
        return self.__dict__["_cached_engine"][1]

    def _build_engine(self, prompts: range) -> Engine | GenericEngine:
        return build_engine(self.anatomy, self.base, self.source, self.site, self.metric, prompts, self._plan)
