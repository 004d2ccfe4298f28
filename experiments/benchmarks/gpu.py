"""Check and time everything that a GPU changes, in a few minutes: `python -m experiments.benchmarks.gpu`.

Rows are written as soon as they are known, each with its device, so that a session that ends early loses little. The
script needs no network. `--tiny` runs the same parts at sizes for a CPU.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro

from experiments import load
from experiments.benchmarks import loops, patching
from experiments.benchmarks.patching import Case
from experiments.benchmarks.scaling import StepCase, device_name, seconds_of, timed_steps
from experiments.support.options import Flag, Folder, Number
from experiments.support.provenance import provenance_record
from experiments.support.results import writable_folder
from interp.models import Run
from interp.patching import logit_diff, patch, plan
from interp.patching.cells import PATCH_SITES
from interp.patching.precision import Matmul
from interp.support.writing import write_whole
from interp.tasks import counterfactual
from probes.arms.registry import ARMS
from probes.batteries import battery

RUN = "parity-aligned-alibi"
# The sweeps of the goals: small ones that launches bound, and large ones that arithmetic bounds.
SWEEPS = (
    Case("alibi", 4, 128, 20, 1, "resid_pre", "redraw"),
    Case("absolute", 12, 768, 20, 1, "resid_pre", "redraw"),
    Case("rotary", 12, 768, 20, 8, "resid_pre", "redraw"),
    Case("alibi", 24, 1024, 20, 8, "resid_pre", "redraw", vocabulary=250_880),
)
SMALLEST = (Case("alibi", 2, 16, 3, 1, "resid_pre", "redraw"),)
COARSE: tuple[Matmul, ...] = ("tf32", "bfloat16")
# Side of the square matrices whose product gives a device's rate.
SIDE = 8192

Part = Callable[[], dict]


@dataclass(frozen=True)
class GpuScript:
    """Check and time everything that a GPU changes; write gpu.json, with one row per part and its device."""

    out: Folder = Path("mnemoscope-out")
    """Folder for gpu.json."""
    seconds: Number = 540
    """Parts that have not begun after so many seconds are left out, and named."""
    rounds: Number = 3
    """Rounds of each timing; medians are reported."""
    tiny: Flag = False
    """Run every part at a size for a CPU. Default: the sizes of the goals."""
    only: Annotated[str, tyro.conf.arg(metavar="TEXT")] = ""
    """Run only the parts whose name contains this text. Default: all."""

    def run(self) -> int:
        """Run the parts one by one; status 1 if one failed."""
        device, began, rows, failed = _device(), time.monotonic(), {}, []
        path = writable_folder(self.out) / "gpu.json"
        made = provenance_record(device=device)
        for name, part in parts(self.tiny, self.rounds).items():
            if self.only not in name:
                continue
            if time.monotonic() - began > self.seconds:
                rows[name] = {"left out": f"{self.seconds} seconds were over"}
            else:
                start = time.monotonic()
                try:
                    rows[name] = part()
                except Exception as error:  # the other parts still tell something
                    rows[name] = {"failed": f"{type(error).__name__}: {error}"}
                    failed.append(name)
                rows[name] |= {"seconds": round(time.monotonic() - start, 2)}
            rows[name] |= {"device": device_name(device)}
            print(f"{name}: {json.dumps(rows[name])[:300]}", flush=True)
            write_whole(path, json.dumps({"provenance": made, "rows": rows}, indent=1) + "\n")
        return int(bool(failed))


def parts(tiny: bool, rounds: int) -> dict[str, Part]:
    """Return the parts by name, in the order of what is missed most if time runs out."""
    found: dict[str, Part] = {
        "smoke": partial(smoke, tiny),
        "rate": partial(rate, 64 if tiny else SIDE),
        "verdict": partial(verdict_seconds, tiny),
    }
    found |= {f"sweep {case.name}": partial(patching.run_case, case, rounds) for case in (SMALLEST if tiny else SWEEPS)}
    ways: list[Matmul] = [way for way in COARSE if way == "bfloat16" or _device() == "cuda"]
    found |= {f"{way} {case.name}": partial(coarse, case, way, rounds) for way in ways for case in _largest(tiny)}
    shapes = [loops.LoopCase("tiny", "bloom", 2, 16, 4, 40, 6)] if tiny else loops.DEFAULT
    found |= {f"loop {case.name}": partial(loops.run_case, case, rounds) for case in shapes}
    sizes = [(1, 16, 2)] if tiny else [(3, 128, 8), (12, 768, 12), (24, 1024, 16)]
    precision = "no" if _device() == "cpu" else "bf16"
    for size in sizes:
        found["training {}x{}x{}".format(*size)] = partial(steps, StepCase(_device(), *size, precision), rounds)
    return found


def smoke(tiny: bool) -> dict:
    """Return the largest difference of each site's patches from the CPU's, relative to the largest value."""
    here, there = (load(RUN, device=device) for device in ("cpu", _device()))
    found = {}
    for site in ("resid_pre", "z") if tiny else PATCH_SITES:
        ours, theirs = (_patched(run, site, 4 if tiny else 20).values for run in (here, there))
        found[site] = float((ours - theirs).abs().max() / ours.abs().max())
    return {"difference": found}


def _patched(run: Run, site: str, length: int) -> Any:
    clean = run.sample(2, length, seed=0)
    return patch(run, clean, counterfactual.redraw(clean, seed=1), site, logit_diff(clean, step=length))


def rate(side: int) -> dict:
    """Return the rate of a product of square matrices, in FLOP/s, by arithmetic."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        x = torch.randn(side, side, device=_device()).to(dtype)
        found[name] = 2 * side**3 / median(seconds_of(lambda x=x: x @ x, _device()) for _ in range(5))
    return {"side": side, "flops_a_second": found}


def coarse(case: Case, matmul: Matmul, rounds: int) -> dict:
    """Return seconds of a sweep with exact and with coarser products, and the measured error of the latter."""
    sweep, metric, clean, corrupted = patching._prepare(case)
    again = partial(plan, sweep.anatomy.raw, clean, corrupted, case.site, metric, positions=_swept(sweep))
    times: dict[Matmul, list[float]] = {"exact": [], matmul: []}
    details: dict = {}
    for _ in range(rounds):
        for way, found in times.items():
            fresh = again(matmul=way)
            found.append(seconds_of(lambda fresh=fresh: details.update(fresh.run().details), _device()))
    return {"ms": {way: 1000 * median(found) for way, found in times.items()}, **details}


def _swept(sweep: Any) -> list[int]:
    return sorted({cell.positions[0] for cell in sweep.cells})


def verdict_seconds(tiny: bool) -> dict:
    """Return seconds of each piece of the battery of a shipped run."""
    length, prompts, arms = (8, 24, ("M5",)) if tiny else (20, 128, tuple(ARMS))
    times: dict[str, float] = {}

    def timed(name: str, measure: Callable[[], Sequence]) -> Sequence:
        began = time.perf_counter()
        evidence = measure()
        times[name] = time.perf_counter() - began
        return evidence

    began = time.perf_counter()
    battery(load(RUN, device=_device()), (length,), 0, prompts, arms=arms, recall=timed)
    return {"pieces": times, "whole": time.perf_counter() - began}


def steps(case: StepCase, rounds: int) -> dict:
    """Return milliseconds per optimiser step of the zoo's recipe."""
    with tempfile.TemporaryDirectory() as folder:
        return timed_steps(case, rounds, 0, folder)


def _largest(tiny: bool) -> tuple[Case, ...]:
    return SMALLEST if tiny else SWEEPS[-2:]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(tyro.cli(GpuScript).run())
