"""Run the cells of a unit in stacks of rows whose size is measured or follows from the memory; build their engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.cells import Cell, first
from interp.patching.checking import Groups
from interp.patching.chunks import Chunks
from interp.patching.cost import Sizes, engine_flops
from interp.patching.engine import Engine, run_together
from interp.patching.generic import GenericEngine, generic_trace
from interp.patching.memory import MemoryPlan
from interp.patching.metric import Metric
from interp.patching.precision import Matmul, products
from interp.patching.tracing import trace, trace_together
from interp.tasks import Prompts


def run_in_stacks(
    engine: Engine | GenericEngine,
    cells: Sequence[Cell],
    beside: Groups,
    sizes: Sizes,
    chunks: Chunks,
    matmul: Matmul = "exact",
) -> Float[Tensor, "cell batch"]:
    """Return the metric after each cell's patch, then after those of `beside`, which are rows of the first stack.

    Cells are ordered by position. Nothing waits for the device before the last stack is queued.
    """
    values, others, done = [], [], 0
    while done < len(cells):
        size = chunks.size()
        began = time.perf_counter()
        part = cells[done : done + max(1, size - len(beside))]
        start = first(part[0])  # the rest of the cells can start later
        flops = engine_flops(sizes, part, engine.site, start)
        flops += sum(engine_flops(sizes, own, other.site, start) for other, own in beside)
        with products(matmul, engine.anatomy.device):
            rows = _run(engine, part, beside, start)
        chunks.took(size, len(rows), flops, time.perf_counter() - began)
        values.append(rows[: len(part)])
        if beside:
            others, beside = [rows[len(part) :]], ()
        done += len(part)
    values += others
    return (values[0] if len(values) == 1 else torch.cat(values)).cpu()


def build_engine(
    anatomy: Anatomy | GenericAnatomy,
    base: Prompts,
    source: Prompts,
    site: str,
    metric: Metric,
    prompts: range,
    plan: MemoryPlan,
) -> Engine | GenericEngine:
    """Return the engine of some of the prompts, from the traces of both runs: of one pass where there is room."""
    numbers = torch.arange(prompts.start, prompts.stop)
    tokens = [run.tokens[prompts.start : prompts.stop] for run in (base, source)]
    if isinstance(anatomy, GenericAnatomy):
        one, other = (generic_trace(anatomy, t) for t in tokens)
        return GenericEngine(anatomy, one, other, site, metric, numbers)
    one, other = trace_together(anatomy, *tokens) if plan.together else [trace(anatomy, t) for t in tokens]
    return Engine(anatomy, one, other, site, metric, numbers, plan.caches)


def _run(engine: Any, cells: Sequence[Cell], beside: Groups, start: int) -> Float[Tensor, "cell batch"]:
    """Return the values of one stack, on the device."""
    return run_together([(engine, cells), *beside], start) if beside else engine.queue(cells, start)
