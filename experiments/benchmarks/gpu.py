"""Check and time everything that a GPU changes, in a few minutes: `python -m experiments.benchmarks.gpu`.

Rows are written as soon as they are known, each with its device, so that a session that ends early loses little. The
script needs no network. `--tiny` runs the same parts at sizes for a CPU.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import tyro

from experiments import load
from experiments.benchmarks import loops, patching
from experiments.benchmarks.gpu_goals import SIDE, SMALLEST, SWEEPS, Part, device, rate, timed_sweep
from experiments.benchmarks.gpu_training import training_parts
from experiments.benchmarks.patching import Case
from experiments.benchmarks.scaling import device_name, seconds_of
from experiments.support.console import one_line, warn
from experiments.support.options import Flag, Folder, Number, OptionalText
from experiments.support.provenance import provenance_record
from experiments.support.reading import read_rows
from experiments.support.results import writable_folder
from interp.models import Run
from interp.patching import logit_diff, patch, plan
from interp.patching.cells import PATCH_SITES
from interp.patching.precision import Matmul
from interp.support.writing import write_whole
from interp.tasks import counterfactual
from probes.arms.registry import ARMS, DECIDING
from probes.batteries import battery

RUN = "parity-aligned-alibi"
COARSE: tuple[Matmul, ...] = ("tf32", "bfloat16")
# Seconds per length that verdicts should take: of a shipped run with all arms, of a 24 x 1024 model with those that
# decide.
GOAL_SHIPPED, GOAL_LARGE = 5, 20


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
    large: OptionalText = None
    """A trained 24 x 1024 run whose verdict is timed, too: a folder. Default: none."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = ()
    """Run only the parts whose names contain one of these texts; rows of other parts stay in gpu.json. Default: all
    parts."""

    def run(self) -> int:
        """Run the parts one by one; status 1 if one failed. Raises `ValueError` where no part has one of the texts."""
        began, failed = time.monotonic(), []
        found = parts(self.tiny, self.rounds, self.large)
        chosen = {n: part for n, part in found.items() if not self.only or any(text in n for text in self.only)}
        if not chosen:
            raise ValueError(f"no part contains {' or '.join(map(repr, self.only))}; parts are {', '.join(found)}")
        path = writable_folder(self.out) / "gpu.json"
        rows = read_rows(path) if self.only and path.exists() else {}
        made = provenance_record(device=device())
        for name, part in chosen.items():
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
            rows[name] |= {"device": device_name(device())}
            print(f"{name}: {json.dumps(rows[name])[:300]}", flush=True)
            write_whole(path, json.dumps({"provenance": made, "rows": rows}, indent=1) + "\n")
        return int(bool(failed))


def parts(tiny: bool, rounds: int, large: str | None = None) -> dict[str, Part]:
    """Return the parts by name, in the order of what is missed most if time runs out."""
    side = 64 if tiny else SIDE
    found: dict[str, Part] = {"smoke": partial(smoke, tiny), "rate": partial(rate, side)}
    for case, goal in (SMALLEST if tiny else SWEEPS).items():
        found[f"sweep {case.name}"] = partial(timed_sweep, case, goal, side, rounds)
    training = training_parts(device(), tiny, rounds)
    found |= {name: part for name, part in training.items() if "compile" not in name}
    shape = (8, 24, ("M5",)) if tiny else (20, 128, tuple(ARMS))
    found["verdict shipped"] = partial(verdict_seconds, RUN, *shape, GOAL_SHIPPED)
    if large is not None:
        shape = (8, 24, ("M5",)) if tiny else (20, 48, DECIDING)
        found["verdict large"] = partial(verdict_seconds, large, *shape, GOAL_LARGE)
    ways: list[Matmul] = [way for way in COARSE if way == "bfloat16" or device() == "cuda"]
    found |= {f"{way} {case.name}": partial(coarse, case, way, rounds) for way in ways for case in _largest(tiny)}
    shapes = [loops.LoopCase("tiny", "bloom", 2, 16, 4, 40, 6)] if tiny else loops.DEFAULT
    found |= {f"loop {case.name}": partial(loops.run_case, case, rounds) for case in shapes}
    return found | {name: part for name, part in training.items() if "compile" in name}  # it compiles for minutes


def smoke(tiny: bool) -> dict:
    """Return the largest difference of each site's patches from the CPU's, relative to the largest value."""
    here, there = (load(RUN, device=name) for name in ("cpu", device()))
    found = {}
    for site in ("resid_pre", "z") if tiny else PATCH_SITES:
        ours, theirs = (_patched(run, site, 4 if tiny else 20).values for run in (here, there))
        found[site] = float((ours - theirs).abs().max() / ours.abs().max())
    return {"difference": found}


def _patched(run: Run, site: str, length: int) -> Any:
    clean = run.sample(2, length, seed=0)
    return patch(run, clean, counterfactual.redraw(clean, seed=1), site, logit_diff(clean, step=length))


def coarse(case: Case, matmul: Matmul, rounds: int) -> dict:
    """Return seconds of a sweep with exact and with coarser products, and the measured error of the latter."""
    sweep, metric, clean, corrupted = patching._prepare(case)
    again = partial(plan, sweep.anatomy.raw, clean, corrupted, case.site, metric, positions=_swept(sweep))
    times: dict[Matmul, list[float]] = {"exact": [], matmul: []}
    details: dict = {}
    for _ in range(rounds):
        for way, found in times.items():
            fresh = again(matmul=way)
            found.append(seconds_of(lambda fresh=fresh: details.update(fresh.run().details), device()))
    return {"ms": {way: 1000 * median(found) for way, found in times.items()}, **details}


def _swept(sweep: Any) -> list[int]:
    return sorted({cell.positions[0] for cell in sweep.cells})


def verdict_seconds(source: str, length: int, prompts: int, arms: Collection[str], goal: float) -> dict:
    """Return seconds of each piece of the battery of a run."""
    run = load(source, device=device())
    times: dict[str, float] = {}

    def timed(name: str, measure: Callable[[], Sequence]) -> Sequence:
        began = time.perf_counter()
        evidence = measure()
        times[name] = time.perf_counter() - began
        return evidence

    began = time.perf_counter()
    (measured,) = battery(run, (length,), 0, prompts, arms=arms, competence=None, recall=timed).measured
    refused = {} if measured.refusal is None else {"refused": measured.refusal}
    return {"pieces": times, "whole": time.perf_counter() - began, "goal": {"whole": goal}, **refused}


def _largest(tiny: bool) -> list[Case]:
    return list(SMALLEST if tiny else SWEEPS)[-2:]


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(GpuScript).run())
    except (OSError, ValueError) as error:
        warn(one_line(error))
        sys.exit(2)
