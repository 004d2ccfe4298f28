"""Which activation, moved from one run to another, changes the answer? Exhaustively, checked as it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.bridge import raw_of
from interp.patching.cells import Cell, Place, check_site, chosen, first, heads_at, live, places_of
from interp.patching.checking import run_checks
from interp.patching.chunks import Chunks
from interp.patching.cost import engine_flops, lower_bound_flops, row_bytes, sizes_of
from interp.patching.effect import Cost, PatchEffect
from interp.patching.engine import Engine
from interp.patching.metrics import Metric
from interp.patching.tracing import Trace, trace
from interp.support.budget import allowed
from interp.support.finite import require_finite
from interp.tasks import Batch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel

# Positions that one unit of work starts from at most, and prompts that it holds.
BUCKET, PROMPTS = 8, 32


@dataclass(frozen=True)
class WorkUnit:
    """Patches that are computed together: cells whose positions start in one bucket, for some prompts."""

    number: int
    start: int
    cells: tuple[int, ...]
    prompts: range


@dataclass(frozen=True, eq=False)
class Sweep:
    """A planned sweep: what will be computed and what it will cost, before anything is.

    Get one from `plan`; `run()` computes it, or `compute(unit)` one unit at a time, in any order.
    """

    anatomy: Anatomy
    base: Batch
    source: Batch
    site: str
    metric: Metric
    direction: str
    axes: tuple[str, ...]
    labels: dict[str, tuple[str | int, ...]]
    cells: tuple[Cell, ...]
    memory: int

    @cached_property
    def alive(self) -> tuple[bool, ...]:
        """Which cells can change the metric; the others equal the base exactly and are not computed."""
        n_layers, reads = len(self.anatomy.blocks), set(self.metric.positions.tolist())
        table: dict[tuple[int, int | None], Tensor] = {}
        for prompts in self.slices():
            engine = self.engine(prompts)
            for key in {(c.layer, c.head) for c in self.cells}:
                found = engine.differs(*key)
                table[key] = table[key] | found if key in table else found
        return tuple(live(c, self.site, table[c.layer, c.head], reads, n_layers) for c in self.cells)

    @cached_property
    def units(self) -> tuple[WorkUnit, ...]:
        """The work, unit by unit."""
        order = sorted((i for i, a in enumerate(self.alive) if a), key=lambda i: first(self.cells[i]))
        buckets: list[list[int]] = []
        for i in order:
            if not buckets or first(self.cells[i]) >= first(self.cells[buckets[-1][0]]) + BUCKET:
                buckets.append([])
            buckets[-1].append(i)
        plan = [(p, b) for p in self.slices() for b in buckets]
        return tuple(WorkUnit(k, first(self.cells[b[0]]), tuple(b), p) for k, (p, b) in enumerate(plan))

    @property
    def cost(self) -> Cost:
        """FLOPs of the whole sweep, of the literal loop, and the least that any exact method pays."""
        sizes = sizes_of(self.anatomy, self.base.n_pos, len(self.metric.positions))
        n = len(self.base)
        flops = 2 * n * sizes.forward  # the two unpatched runs
        for unit in self.units:
            cells = [self.cells[i] for i in unit.cells]
            flops += len(unit.prompts) * engine_flops(sizes, cells, self.site, unit.start)
        alive = [c for c, a in zip(self.cells, self.alive, strict=True) if a]
        return Cost(
            patches=len(self.cells),
            skipped=len(self.cells) - len(alive),
            flops=flops,
            loop_flops=(len(self.cells) + 2) * n * sizes.forward,
            lower_bound_flops=n * (2 * sizes.forward + lower_bound_flops(sizes, alive, self.site)),
            chunk_rows=0,
        )

    @property
    def peak_bytes(self) -> int:
        """Memory that the sweep keeps to, beyond the model: two runs' activations and one chunk of rows."""
        prompts = len(next(self.slices()))
        rows = max(prompts, min(self._most_rows(), Chunks.MOST * prompts))
        return self._trace_bytes(prompts) + self._largest_row() * rows

    def run(self, spot_cells: int = 4, seed: int = 0, progress: Callable[[Iterable], Iterable] = iter) -> PatchEffect:
        """Computes every unit; `progress` may wrap the units in a bar."""
        began = time.monotonic()
        values = self.blank()
        for unit in progress(self.units):
            self.put(values, unit, self.compute(unit))
        return self.finish(values, spot_cells, seed, time.monotonic() - began)

    def blank(self) -> Float[Tensor, "cell batch"]:
        """Every cell at the base's metric: right already for those that cannot matter."""
        return self.baselines[0].expand(len(self.cells), -1).clone()

    def put(self, values: Tensor, unit: WorkUnit, found: Float[Tensor, "cell prompt"]) -> None:
        """Writes a unit's results in their place."""
        values[torch.tensor(unit.cells).unsqueeze(1), torch.tensor(list(unit.prompts))] = found

    def compute(self, unit: WorkUnit) -> Float[Tensor, "cell prompt"]:
        """The metric after each patch of a unit."""
        engine = self.engine(unit.prompts)
        sizes = sizes_of(self.anatomy, self.base.n_pos, len(self.metric.positions))
        cells = [self.cells[i] for i in unit.cells]
        found = []
        done = 0
        while done < len(cells):
            size = self._chunks.size()
            began = time.perf_counter()
            part = cells[done : done + size]
            start = first(part[0])  # cells are in order of position: the rest of the bucket can start later
            found.append(engine.run(part, start))
            flops = engine_flops(sizes, part, self.site, start)
            self._chunks.took(size, len(part), flops, time.perf_counter() - began)
            done += len(part)
        return require_finite(torch.cat(found), f"{self.metric.name} of a patched run", unit.prompts.start)

    def finish(self, values: Tensor, spot_cells: int = 4, seed: int = 0, seconds: float = 0.0) -> PatchEffect:
        """The result, after the controls and a random check against the literal loop.

        Raises `RuntimeError` when a check fails: then no number of this sweep can be trusted.
        """
        base, source = self.baselines
        checks = run_checks(self, values, spot_cells, seed)
        shape = tuple(len(self.labels[a]) for a in self.axes)
        cost = replace(self.cost, chunk_rows=self._chunks.best * len(next(self.slices())), seconds=seconds)
        return PatchEffect(
            self.site,
            self.metric.name,
            self.direction,
            self.axes,
            self.labels,
            values.reshape(*shape, len(self.base)),
            base,
            source,
            checks,
            cost,
        )

    @cached_property
    def baselines(self) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """The metric of the unpatched base and source runs."""
        base, source = [], []
        for prompts in self.slices():
            engine = self.engine(prompts)
            base.append(engine.measure_base())
            swapped = self.engine_of(engine.source, engine.base, prompts)
            source.append(swapped.measure_base())
        found = (torch.cat(base), torch.cat(source))
        for values, what in zip(found, ("base", "source"), strict=True):
            require_finite(values, f"{self.metric.name} of the {what} run")
        return found

    @cached_property
    def _chunks(self) -> Chunks:
        return Chunks(max(1, self._most_rows() // len(next(self.slices()))))

    def slices(self) -> Iterator[range]:
        """Prompts that are run together."""
        n = len(self.base)
        fit = min(self.memory / 3 / self._trace_bytes(1), self._most_rows())
        size = max(1, min(PROMPTS, int(fit)))
        return (range(start, min(start + size, n)) for start in range(0, n, size))

    def _trace_bytes(self, prompts: int) -> int:
        """Two traces of some prompts, and the keys and values as attention uses them."""
        d = self.anatomy.n_heads * self.anatomy.d_head
        return 2 * len(self.anatomy.blocks) * self.base.n_pos * 9 * d * prompts * self.anatomy.dtype.itemsize

    def _largest_row(self) -> int:
        return row_bytes(self.anatomy, self.base.n_pos, self.base.n_pos, len(self.metric.positions))

    def _most_rows(self) -> int:
        return max(1, int(self.memory / 2 / self._largest_row()))

    def engine(self, prompts: range) -> Engine:
        """The engine for some prompts; the newest one is kept."""
        cached = self.__dict__.get("_cached_engine")
        if cached is None or cached[0] != prompts:
            rows = slice(prompts.start, prompts.stop)
            base, source = (trace(self.anatomy, b.tokens[rows]) for b in (self.base, self.source))
            cached = (prompts, self.engine_of(base, source, prompts))
            self.__dict__["_cached_engine"] = cached  # the newest slice alone, so that memory stays flat
        return cached[1]

    def engine_of(self, base: Trace, source: Trace, prompts: range, site: str | None = None) -> Engine:
        """An engine between any two runs of some prompts, at this sweep's site or another."""
        numbers = torch.arange(prompts.start, prompts.stop)
        return Engine(self.anatomy, base, source, site or self.site, self.metric, numbers)


def plan(
    model: TransformerBridge | PreTrainedModel,
    clean: Batch,
    corrupted: Batch,
    site: str,
    metric: Metric,
    layers: int | Sequence[int] | None = None,
    positions: Place | Iterable[Place] | None = None,
    heads: int | Sequence[int] | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
    memory: int | None = None,
) -> Sweep:
    """What `patch` would do, without doing it: `plan(...).cost`, `.units`, `.peak_bytes`.

    Takes what `patch` takes and raises what it raises.
    """
    if direction not in ("denoise", "noise"):
        raise ValueError(f"direction must be 'denoise' or 'noise'; got {direction!r}")
    memory = allowed() if memory is None else memory
    if memory < 1:
        raise ValueError(f"memory must be at least 1 byte; got {memory}")
    if clean.tokens.shape != corrupted.tokens.shape or not (
        torch.equal(clean.role, corrupted.role) and torch.equal(clean.step, corrupted.step)
    ):
        raise ValueError("clean and corrupted must have the same number of prompts, roles and steps")
    anatomy = anatomy_of(raw_of(model))
    if not anatomy.causal:
        raise ValueError(
            "this model attends in both directions, and the sweep skips what a causal mask leaves unchanged; "
            "path_patch, knock_out and interchange compute all positions"
        )
    check_site(site, anatomy)
    if int(metric.positions.max()) >= clean.n_pos:
        raise ValueError(f"the metric reads position {int(metric.positions.max())}; prompts have {clean.n_pos}")
    n_heads = heads_at(site, anatomy)
    if heads is not None and not n_heads:
        raise ValueError(f"{site} has no heads; leave `heads` out")
    wanted_layers = chosen("layer", layers, len(anatomy.blocks))
    wanted_heads: list[int | None] = list(chosen("head", heads, n_heads)) if n_heads else [None]
    places = places_of(clean, positions)
    cells = tuple(Cell(la, at, h) for la in wanted_layers for h in wanted_heads for _, at in places)
    axes = ("layer", "head", "pos") if n_heads else ("layer", "pos")
    labels: dict[str, tuple[str | int, ...]] = {"layer": tuple(wanted_layers), "pos": tuple(n for n, _ in places)}
    if n_heads:
        labels["head"] = tuple(h for h in wanted_heads if h is not None)
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    sweep = Sweep(anatomy, base, source, site, metric, direction, axes, labels, cells, memory)
    if sweep.peak_bytes > memory:
        raise ValueError(
            f"one prompt and one patch at a time take {sweep.peak_bytes / 2**20:.1f} MiB beyond the model; "
            f"the budget is {memory / 2**20:.1f} MiB"
        )
    return sweep


def patch(
    model: TransformerBridge | PreTrainedModel,
    clean: Batch,
    corrupted: Batch,
    site: str,
    metric: Metric,
    layers: int | Sequence[int] | None = None,
    positions: Place | Iterable[Place] | None = None,
    heads: int | Sequence[int] | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
    memory: int | None = None,
    spot_cells: int = 4,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> PatchEffect:
    """Patches a site's activations from one run into another, at each layer, position and head asked for.

    Args:
        model: a run's `model` (bridge) or `raw`.
        clean, corrupted: prompts of the same layout, `[batch pos]`.
        site: resid_pre, resid_mid, resid_post, attn_out, mlp_out, q, k, v, z or pattern (TransformerLens's names;
            q and k are before rotation; a pattern is patched by destination row).
        metric: see `interp.patching.metrics`; only the positions that it declares are unembedded.
        layers, heads: all, one or several.
        positions: all; indices, roles or (role, step) pairs, each position one patch; a `Joint` is one patch.
        direction: "denoise" puts clean activations into the corrupted run (is the site sufficient?), "noise"
            corrupted ones into the clean run (is it necessary?).
        memory: bytes that the sweep may use beyond the model; default what `interp.support.budget` allows, a GiB.
        spot_cells: random cells that are recomputed by the literal loop on the raw model; recorded in the result.

    Returns the metric of every patched run for every prompt, `[layer (head) pos batch]`. Differs from the
    literal loop by less than 1e-5 in float32 and 1e-9 in float64, relative to the largest metric.

    Raises `ValueError` for an unknown site, layer, head or place, naming the choices, for batches of different
    layouts, for a model without a causal mask, and for a budget below what one patch takes; `RuntimeError` when
    a check against the literal loop fails.
    """
    sweep = plan(model, clean, corrupted, site, metric, layers, positions, heads, direction, memory)
    return sweep.run(spot_cells, seed, progress)
