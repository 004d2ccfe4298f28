"""Compute the units of a sweep in several processes: one thread each on a CPU, one GPU each where there are several.

The processes are this machine's or those of a Ray cluster. Each plans the same sweep and writes each unit into the work
folder, as one process does, so an interrupted sweep resumes with any number of processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.support.jobs import Executor, Job, Processes, finished

if TYPE_CHECKING:
    from experiments.commands.patch import PatchCommand
    from interp.patching import Sweep
    from interp.patching.units import WorkUnit

# Jobs per process: units differ in size, and the last ones should end together.
JOBS_EACH = 4


def unit_file(work: Path, unit: WorkUnit) -> Path:
    """Return the file of a unit's values in a work folder."""
    return work / f"{unit.name}.safetensors"


def compute_elsewhere(command: PatchCommand, sweep: Sweep, work: Path) -> Iterable[int]:
    """Compute the units that are not in the work folder in `command.workers` processes; yield how many a job had.

    Raises `ValueError` with `--engine ray` where Ray or the cluster is missing.
    """
    from interp.support.writing import read_digested

    missing = [unit for unit in sweep.units if read_digested(unit_file(work, unit)) is None]
    # Ray gives each worker its own GPUs; local processes take the machine's in turn.
    by_number = sweep.anatomy.device.type == "cuda" and command.engine == "local"
    place = work.resolve()
    jobs = [
        Job(f"units from {some[0].number}", units_of, (command, by_number, place, [(u.number, u.name) for u in some]))
        for some in _parts(missing, JOBS_EACH * command.workers)
    ]
    for job, _ in finished(jobs, _executor(command)) if jobs else ():
        yield len(job.args[-1])


def _executor(command: PatchCommand) -> Executor:
    if command.engine == "local":
        return Processes(command.workers)
    from experiments.support.on_ray import OnRay

    return OnRay(command.workers, command.gpus)


def units_of(command: PatchCommand, by_number: bool, work: Path, units: list[tuple[int, str]]) -> None:
    """Compute and write units by number, in a worker. A unit that this process would split otherwise is left out.

    `by_number`: the worker takes a GPU by its own number among this machine's workers.
    """
    from safetensors.torch import save

    from interp.support.writing import write_digested

    sweep = _sweep(command, by_number)
    for number, name in units:
        unit = sweep.units[number] if number < len(sweep.units) else None
        if unit is not None and unit.name == name:
            write_digested(unit_file(work, unit), save({"values": sweep.compute(unit).contiguous()}))


@cache
def _sweep(command: PatchCommand, by_number: bool) -> Sweep:
    """Plan the sweep, once per process, on this process's GPU where there are several."""
    import torch

    from experiments.support.provenance import silence_worker

    silence_worker()
    if by_number and command.device in ("auto", "cuda"):
        (number,) = multiprocessing.current_process()._identity  # processes are numbered from 1
        command = replace(command, device=f"cuda:{(number - 1) % torch.cuda.device_count()}")
    return command.planned()[1]


def _parts(units: list[WorkUnit], count: int) -> list[list[WorkUnit]]:
    """Return the units in at most `count` runs of neighbours, which share their prompts' unpatched runs."""
    size = max(1, -(-len(units) // count))
    return [units[i : i + size] for i in range(0, len(units), size)]
