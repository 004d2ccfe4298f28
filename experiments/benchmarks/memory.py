"""Does the peak of memory grow with the number of prompts? Capture, patching, the verdict, each in a process alone."""

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
    """One row: what is done, to how many prompts, within how many MiB beyond the model."""

    part: str
    prompts: int
    budget: int = BUDGET

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"memory-{self.part}-{self.prompts}"


# A verdict needs 24 prompts.
DEFAULT = tuple(
    MemoryCase(part, prompts)
    for part, sizes in {"capture": (10, 100, 1000), "patch": (10, 100, 1000), "verdict": (24, 100, 1000)}.items()
    for prompts in sizes
)


def run_case(case: MemoryCase) -> dict:
    """Peak of resident memory above that before the work, in MiB, and the resident memory before it."""
    ((_, found),) = finished([Job(case.name, measured, (case.part, case.prompts, case.budget))], workers=1)
    return {"part": case.part, "prompts": case.prompts, "budget_mib": case.budget, **found}


def measured(part: str, prompts: int, budget: int) -> dict:
    """Does a part once with few prompts, so that all code and tables are there, then with all; in a process alone."""
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
    """MiB: VmRSS is what this process has, VmHWM the most that it had."""
    if STATUS.exists():
        line = next(x for x in STATUS.read_text(encoding="ascii").splitlines() if x.startswith(f"{what}:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # only the peak is known, from the beginning on
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _forget_peak() -> None:
    """Linux counts the peak anew from here."""
    if REFS.exists():
        REFS.write_text("5", encoding="ascii")
