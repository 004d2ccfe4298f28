"""A planned sweep: patches of one site at many layers, positions and heads, computed in units of work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.cells import Cell, first, live
from interp.patching.checking import Groups, control_groups, run_checks
from interp.patching.chunks import Chunks, starting_flops
from interp.patching.cost import Sizes, cost_of, sizes_of
from interp.patching.effect import Cost, PatchEffect
from interp.patching.engine import Engine
from interp.patching.generic import GenericEngine, generic_trace
from interp.patching.memory import MemoryPlan, plan_memory
from interp.patching.metric import Metric
from interp.patching.precision import COARSE_CELLS, Matmul, stated_error
from interp.patching.stacks import run_in_stacks
from interp.patching.tracing import trace, trace_together
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
        reads = set(self.metric.positions.tolist())
        differs: Tensor | None = None
        with lock_of(self.anatomy.raw):
            for prompts in self.slices():
                new = self.engine(prompts).differs()
                differs = new if differs is None else differs | new
        assert differs is not None
        by_place = differs.tolist()  # [layer][head][pos]
        return tuple(live(c, self.site, by_place[c.layer][c.head or 0], reads, len(by_place)) for c in self.cells)

    @cached_property
    def units(self) -> tuple[WorkUnit, ...]:
        """The work, unit by unit."""
        buckets = buckets_of(
            self.cells,
            self.alive,
            sizes=self._sizes,
            site=self.site,
            prompts=self._plan.prompts,
            most=self._plan.cells,
            starting=starting_flops(self.anatomy.device.type),
        )
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
        return plan_memory(
            self.anatomy,
            self.site,
            n_prompts=len(self.base),
            n_pos=self.base.n_pos,
            n_reads=len(self.metric.positions),
            budget=self.memory,
            n_tokens=self._n_tokens,
        )

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
        prompts = next(self.slices())
        with lock_of(self.anatomy.raw):
            checks = run_checks(
                self.engine(prompts),
                base=self.base,
                source=self.source,
                cells=self.cells,
                alive=self.alive,
                values=values,
                baselines=(base, source),
                controls=controls,
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
            cost=replace(self.cost, chunk_rows=self._chunks.best * len(prompts), seconds=seconds),
            details={"anatomy": "generic"} if self.anatomy.generic else stated_error(self.matmul, checks),
        )

    @cached_property
    def baselines(self) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """The metric of the unpatched base and source runs."""
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
        rows, numbers = slice(prompts.start, prompts.stop), torch.arange(prompts.start, prompts.stop)
        tokens = [run.tokens[rows] for run in (self.base, self.source)]
        if isinstance(self.anatomy, GenericAnatomy):
            base, source = (generic_trace(self.anatomy, t) for t in tokens)
            return GenericEngine(self.anatomy, base, source, self.site, self.metric, numbers)
        if self._plan.together:
            base, source = trace_together(self.anatomy, *tokens)
        else:
            base, source = (trace(self.anatomy, t) for t in tokens)
        return Engine(self.anatomy, base, source, self.site, self.metric, numbers, self._plan.caches)
