"""`mnemoscope sweep`: train, evaluate and measure every model of the zoo, and gather the results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments.stages import (
    STAGES,
    StageOptions,
    Trouble,
    applies,
    do_stage,
    is_trained,
    name_of,
    progress_of,
    remove_locks,
    with_steps,
)
from experiments.support.console import say, warn
from experiments.support.jobs import Executor, Job, Processes, finished
from experiments.support.options import Device, Dtype, Flag, Folder, Names, Number, Numbers, OptionalNumber

if TYPE_CHECKING:
    from experiments.commands.train import TrainCommand

FOLDER = Path("mnemoscope-out") / "zoo"
# How many runs a line names.
MOST_NAMED = 4
# The type in which training saves weights, and so the one of stages without --dtype.
SAVED = "float32"


@dataclass(frozen=True)
class SweepCommand:
    """Train, evaluate and judge a grid of models: task x format x family x seed (experiments/grid.py).

    A stage whose file exists is not repeated, so the same command resumes a killed one and a larger grid extends a
    smaller one. Results made with other --steps, --precision, --prompts or --dtype are an error. Several commands may
    share the folder of --out, on several machines if the disk has locks; runs locked by another process are skipped and
    listed.
    Writes results.parquet, one row per run, length, mode and metric, and verdicts.json, the verdicts over seeds.
    The exit status is 0 also with runs that did not learn, which are counted, and 1 where a run is not finished.
    """

    groups: Names = ()
    """Groups of the grid, such as confirmatory or gaps. Default: all except those for one question only: scale (the
    model's size), rehearsal (what is rehearsed), replication (seeds 5 to 9), baselines (index hints), pretrained
    (SmolLM2 fine-tuned on every format), pretrained-paper (the same on 10 to 20 bits) and pretrained-second (Gemma 3 on
    two formats)."""
    seeds: Numbers = ()
    """Train only these seeds. Default: all seeds of the groups."""
    formats: Names = ()
    """Train only these formats, such as parity-aligned. Default: all formats of the groups."""
    stages: Names = ()
    """Stages to run: train, evaluate, longer, operands, transfer, battery. Default: all. Later
    stages need trained runs: without the stage train, untrained runs are listed, and the status is 1, or 2 if none is
    trained."""
    steps: OptionalNumber = None
    """Maximum of optimiser steps per training. Default: the recipe's."""
    prompts: Number = 128
    """Prompts at each length of the stages battery and transfer, at least 24."""
    precision: Annotated[Literal["no", "bf16"] | None, tyro.conf.arg(metavar="{no,bf16}", help_behavior_hint="")] = None
    """Mixed precision of training. Default: bf16 on a GPU that supports it, else no."""
    cuda_graphs: Flag = False
    """Train with captured steps on a GPU; see `mnemoscope train --help`. Default: each kernel by itself."""
    device: Device = "auto"
    dtype: Dtype = None
    workers: OptionalNumber = None
    """Number of processes, with one thread each. Default: 2, or every CPU of a Ray cluster."""
    engine: Literal["local", "ray"] = "local"
    """Where workers run: local processes, or an existing Ray cluster whose nodes share --out."""
    gpus: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """GPUs per worker with --engine ray; 0.125 puts eight workers on each GPU."""
    out: Folder = FOLDER
    """Folder of the zoo, with one folder per run."""
    dry_run: Flag = False
    """Print which stages are done and which are missing, and stop. Default: run them."""

    def run(self) -> int:
        """Do the missing stages; return 1 when a run is not finished, here or by another process."""
        stages, runs = self._chosen()
        from experiments.gathering import TABLE, VERDICTS, runs_alike
        from experiments.support.results import check_files, writable_folder

        if self.cuda_graphs and self.engine == "local" and not self.dry_run:  # a cluster's nodes may have GPUs
            from experiments.training.graphs import require_cuda

            require_cuda(self.device)
        check_files([self.out / TABLE, self.out / VERDICTS])
        for train in runs:
            check_files([self.out / name_of(train) / file for file in STAGES.values()])
            self._check_done(train)
        missing = {train: self._missing(name_of(train), stages) for train in runs}
        total = sum(applies(stage, name_of(train)) for train in runs for stage in stages)
        if not total:
            raise ValueError(f"no run of these groups, seeds and formats has the stages {', '.join(stages)}")
        left = sum(map(len, missing.values()))
        self._check_trained(missing)
        say(f"{len(runs)} runs, {total - left} of {total} stages done, {left} to do")
        if self.dry_run:
            for train, names in missing.items():
                say(f"{name_of(train)}: {', '.join(names) or 'done'}")
            return 0
        out = writable_folder(self.out)
        runs_alike(out)  # an error now, not after hours of work that cannot be gathered
        troubles = self._do(missing, total, total - left)
        remove_locks(out)
        gathered = _gather(out)
        troubles = {name: t for name, t in troubles.items() if not t.another or self._missing(name, stages)}
        for name, trouble in troubles.items():
            state = "LEFT to another process" if trouble.another else "NOT finished"
            if not trouble.untrained:
                warn(f"{state}: {name}: {trouble.reason}")
        if untrained := [name for name, trouble in troubles.items() if trouble.untrained]:
            warn(f"NOT finished: {_not_trained(untrained, out)}")
        return 0 if gathered and not troubles else 1

    def _do(self, missing: dict[TrainCommand, list[str]], total: int, done: int) -> dict[str, Trouble]:
        """Run the missing stages of all runs; return what prevented a run from being finished, by run."""
        from tqdm import tqdm

        from experiments.support.progress import progress_bar
        from interp.support.printable import visible

        troubles: dict[str, Trouble] = {}
        first = [job for train, names in missing.items() if (job := self._job(train, names))]

        def follow(job: Job, trouble: Trouble | None) -> Iterable[Job]:
            train, names = job.args[1], job.args[-1]
            if trouble is not None:
                troubles[name_of(train)] = trouble
                return ()
            following = self._job(train, names[1:])
            return () if following is None else (following,)

        with progress_bar(total=total, initial=done, unit="stage") as bar:

            def show(running: list[Job]) -> None:
                bar.set_description(", ".join(map(progress_of, running)))
                bar.update(0)

            for job, trouble in finished(first, self._engine(), follow, show):
                bar.set_description(job.name)
                bar.update()
                if trouble is not None and not trouble.untrained:  # those are named in one line at the end
                    tqdm.write(visible(f"{job.name}: {trouble.reason}"), file=sys.stderr)
        return troubles

    def _chosen(self) -> tuple[tuple[str, ...], list[TrainCommand]]:
        """Return the stages and the runs of these options; imports no library.

        Raises `ValueError` for unknown ones, and for numbers that are too small.
        """
        from experiments.grid import runs_of
        from experiments.support.option_checks import check_engine
        from probes.limits import FEWEST_PROMPTS

        stages = self._stages()
        runs = runs_of(self.groups, self.seeds, self.formats)
        if self.prompts < FEWEST_PROMPTS:
            raise ValueError(f"--prompts must be at least {FEWEST_PROMPTS}; got {self.prompts}")
        check_engine(self.workers, self.engine, self.gpus)
        return stages, runs

    def _check_done(self, train: TrainCommand) -> None:
        """Raise `ValueError` where existing results of a run were made with other options."""
        from experiments.gathering import differences
        from experiments.support.reading import dtype_of, read_result
        from interp.models.record import read_record

        name = name_of(train)
        folder, advice = self.out / name, f"choose another --out, or remove what is in {self.out / name}"
        if (folder / STAGES["train"]).exists() and (record := read_record(folder)):
            wanted = {**with_steps(train, self.steps).recipe().to_json(), "precision": self.precision}
            present = {**record["recipe"], "precision": record.get("precision") if self.precision else None}
            if text := differences(present, wanted):
                raise ValueError(f"{name} exists, trained with other options than now ({text}); {advice}")
        for stage, file in STAGES.items():
            if stage == "train" or not (path := folder / file).exists():
                continue
            result = read_result(path)
            pairs: dict[str, tuple] = {"dtype": (dtype_of(result), self.dtype or SAVED)}
            if stage in ("transfer", "battery"):
                pairs["prompts"] = (result.get("battery", result).get("prompts"), self.prompts)
            for option, (made, now) in pairs.items():
                if made != now and (option, made) != ("dtype", None):  # files of old versions do not name it
                    raise ValueError(f"{path} was made with --{option} {made}, and --{option} is {now} now; {advice}")

    def _check_trained(self, missing: dict[TrainCommand, list[str]]) -> None:
        """Raise `ValueError` where stages are missing and none can be done, because no run is trained."""
        waiting = [name_of(train) for train, names in missing.items() if names]
        if any("train" in names for names in missing.values()) or not waiting:
            return
        if not any(is_trained(self.out / name) for name in waiting):
            raise ValueError(_not_trained(waiting, self.out))

    def _missing(self, name: str, stages: tuple[str, ...]) -> list[str]:
        """Return the stages of a run that are not done."""
        return [s for s in stages if applies(s, name) and not (self.out / name / STAGES[s]).exists()]

    def _engine(self) -> Executor:
        if self.engine == "local":
            return Processes(self.workers or 2)
        from experiments.support.on_ray import OnRay

        return OnRay(self.workers, self.gpus)

    def _stages(self) -> tuple[str, ...]:
        if unknown := sorted(set(self.stages) - set(STAGES)):
            raise ValueError(f"unknown stages {', '.join(unknown)}; stages are {', '.join(STAGES)}")
        return tuple(s for s in STAGES if not self.stages or s in self.stages)

    def _job(self, train: TrainCommand, missing: list[str]) -> Job | None:
        """Return the job of a run's first missing stage."""
        if not missing:
            return None
        options = StageOptions(self.prompts, self.steps, self.precision, self.device, self.dtype, self.cuda_graphs)
        return Job(f"{name_of(train)} {missing[0]}", do_stage, (self.out.resolve(), train, options, missing))


def _not_trained(names: Sequence[str], out: Path) -> str:
    """Return, in one line, which runs are not trained, and what trains them."""
    named = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else "")
    what = f"1 run is not trained in {out}" if len(names) == 1 else f"{len(names)} runs are not trained in {out}"
    return f"{what}, so no other stage can be done ({named}); do the stage train first, or leave --stages out"


def _gather(out: Path) -> bool:
    """Write and print the table and the verdicts of all runs; return False, with nothing written, without any run."""
    from experiments.gathering import TABLE, VERDICTS, gather, runs_alike

    runs = runs_alike(out)
    if not runs:
        warn(f"{out} has no trained run, so {TABLE} and {VERDICTS} are not written")
        return False
    table, verdicts = gather(out, runs)
    learned = {run.name: about["learned"] for run, _, about in runs} | dict(
        zip(table["run"], table["learned"], strict=True)
    )
    say(f"{out / TABLE}: {len(table)} rows of {len(learned)} runs")
    say(f"{sum(learned.values())} of {len(learned)} runs learned their trained lengths")
    for name, entry in verdicts.items():
        outcome = entry["verdict"]["verdict"] if entry["verdict"] else entry["why"]
        say(f"{name}: {entry['learned']} of {entry['of']} learned; {outcome}")
    return True
