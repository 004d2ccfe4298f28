"""Benchmark: peak memory of capture, patching and the verdict by number of prompts, one process per row."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.support.jobs import Job, finished

if TYPE_CHECKING:
    from interp.models import Run

RUN = "parity-aligned-alibi"
BUDGET = 64
STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class MemoryCase:
    """One row: a part, the number of prompts, and the budget in MiB beyond the model."""

    part: str
    prompts: int
    budget: int = BUDGET

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return f"memory-{self.part}-{self.prompts}"


# A verdict needs at least 24 prompts.
DEFAULT = tuple(
    MemoryCase(part, prompts)
    for part, sizes in {"capture": (10, 100, 1000), "patch": (10, 100, 1000), "verdict": (24, 100, 1000)}.items()
    for prompts in sizes
)


def run_case(case: MemoryCase) -> dict:
    """Return the peak of resident memory above the memory held before, and the latter, in MiB."""
    ((_, found),) = finished([Job(case.name, measured, (case.part, case.prompts, case.budget))], workers=1)
    return {"part": case.part, "prompts": case.prompts, "budget_mib": case.budget, **found}


def measured(part: str, prompts: int, budget: int) -> dict:
    """Run a part once with few prompts, to load all code, and then with all of them; return the peak in MiB."""
    from experiments import load
    from experiments.support.console import silence_libraries
    from interp.support.budget import within

    silence_libraries()
    run, work = load(RUN), PARTS[part]
    with within(budget * 2**20):
        work(run, 24)
        gc.collect()
        before = _resident("VmRSS")
        _forget_peak()
        work(run, prompts)
    return {"peak_mib": round(_resident("VmHWM") - before, 1), "before_mib": round(before, 1)}


def _capture(run: Run, prompts: int) -> None:
    from interp.capturing import reduce
    from interp.reducers import HeadStatistics

    reduce(run.model, [run.sample(prompts, 20, seed=0)], [HeadStatistics()])


def _patch(run: Run, prompts: int) -> None:
    from interp.patching import logit_diff, patch
    from interp.tasks.counterfactual import redraw

    clean = run.sample(prompts, 8, seed=0)
    patch(run.raw, clean, redraw(clean, seed=1), "resid_pre", logit_diff(clean, step=8), spot_cells=1)


def _verdict(run: Run, prompts: int) -> None:
    from probes import battery, verdict

    verdict(battery(run, (8,), seed=0, prompts=prompts))


PARTS: dict[str, Callable[[Run, int], None]] = {"capture": _capture, "patch": _patch, "verdict": _verdict}


def _resident(what: str) -> float:
    """Return VmRSS (memory of this process) or VmHWM (its peak), in MiB."""
    if STATUS.exists():
        line = next(x for x in STATUS.read_text(encoding="ascii").splitlines() if x.startswith(f"{what}:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # without /proc, only the peak since the start
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _forget_peak() -> None:
    """Reset the peak counter (Linux)."""
    if REFS.exists():
        REFS.write_text("5", encoding="ascii")
