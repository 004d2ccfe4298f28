"""`mnemoscope sweep`: trains, evaluates and measures every model of the zoo, and gathers what came out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.grid import runs_of
from experiments.support.jobs import Executor, Job, Processes, finished

if TYPE_CHECKING:
    from experiments.commands.train import TrainCommand
    from interp.models import Run

FOLDER = Path("mnemoscope-out") / "zoo"
Precision = Literal["no", "bf16"]
# What the same weights are posed, and at which lengths: in and past the trained range.
POSED = {
    "parity": ("scratchpad", "aligned", "nonaligned", "numeric", "constant", "cyclic"),
    "addition": ("none", "aligned", "zeropad", "nonaligned"),
}


@dataclass(frozen=True)
class SweepCommand:
    """Train, evaluate and judge a grid of models: task x format x family x seed (`experiments/grid.py`).

    What is there is not done again: a run's folder is a trained model, and each of its files a finished stage. What was
    made with other --steps, --precision or --prompts than are asked is an error. So the same command goes on where a
    killed one stopped, and a larger grid takes over what a smaller one has done. Several commands may share --out, on
    several machines too if its disk has locks: what another is at is left to it, and named at the end. Then writes
    results.parquet, a row for each run, length, mode and metric, and verdicts.json, over the seeds.
    """

    groups: tuple[str, ...] = ()
    """Parts of the grid by name, such as confirmatory or gaps; default all but scale, other sizes of model."""
    seeds: tuple[int, ...] = ()
    """Only these seeds; default all of the groups."""
    stages: tuple[str, ...] = ()
    """train, evaluate, transfer, battery; default all. Earlier stages that are missing are not made up for."""
    steps: int | None = None
    """Most optimiser steps of each training, for a trial; default the recipe's."""
    prompts: int = 128
    """Prompts of the battery at each length."""
    precision: Precision | None = None
    """Mixed precision of training; default bf16 on a GPU that has it, else no."""
    workers: int | None = None
    """Processes, one thread each; default 2, or every CPU of a Ray cluster."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or workers of a Ray cluster that is there; its nodes must share --out."""
    gpus: float = 0.0
    """GPUs a worker, with --engine ray; 0.125 puts eight on each."""
    out: Path = FOLDER
    """Folder of the zoo, a folder a run."""
    dry_run: bool = False
    """Only say what is there and what is missing."""

    def run(self) -> int:
        """Does what is missing; status 1 when a run is not finished, here or by another, which is named."""
        from tqdm import tqdm

        from experiments.gathering import TABLE, gather, runs_alike
        from experiments.support.progress import progress_bar
        from experiments.support.results import check_workers, writable_folder

        stages = self._stages()
        runs = runs_of(self.groups, self.seeds)
        if self.prompts < 24:
            raise ValueError(f"--prompts must be at least 24; got {self.prompts}")
        if self.workers is not None:
            check_workers("workers", self.workers)
        for train in runs:
            self._check_done(train)
        missing = {train: self._lacking(name_of(train), stages) for train in runs}
        total, left = len(runs) * len(stages), sum(map(len, missing.values()))
        print(f"{len(runs)} runs, {total - left} of {total} stages are there, {left} to do")
        if self.dry_run:
            for train, lacking in missing.items():
                print(f"{name_of(train)}: {', '.join(lacking) or 'done'}")
            return 0
        out = writable_folder(self.out)
        runs_alike(out)  # before hours of work that could not be gathered
        failed: dict[str, Trouble] = {}
        first = [job for train, lacking in missing.items() if (job := self._job(train, lacking))]

        def follow(job: Job, error: Trouble | None) -> Iterable[Job]:
            train, lacking = job.args[1], job.args[-1]
            if error is not None:
                failed[name_of(train)] = error
                return ()
            following = self._job(train, lacking[1:])
            return () if following is None else (following,)

        with progress_bar(total=total, initial=total - left, unit="stage") as bar:
            for job, error in finished(first, self._engine(), follow):
                bar.set_description(job.name)
                bar.update()
                if error is not None:
                    tqdm.write(f"{job.name}: {error.words}", file=sys.stderr)
        forget_locks(out)
        table, verdicts = gather(out)
        learned = dict(zip(table["run"], table["learned"], strict=True))
        print(f"{out / TABLE}: {len(table)} rows of {len(learned)} runs")
        print(f"{sum(learned.values())} of {len(learned)} runs learned their trained lengths")
        for name, entry in verdicts.items():
            said = entry["verdict"]["verdict"] if entry["verdict"] else entry["why"]
            print(f"{name}: {entry['learned']} of {entry['of']} learned; {said}")
        failed = {name: e for name, e in failed.items() if not e.another or self._lacking(name, stages)}
        for name, error in failed.items():
            print(
                f"{'LEFT to another process' if error.another else 'NOT finished'}: {name}: {error.words}",
                file=sys.stderr,
            )
        return 1 if failed else 0

    def _check_done(self, train: TrainCommand) -> None:
        """Raises `ValueError` where what is there of a run was made with other options than these."""
        from experiments.gathering import differences
        from experiments.support.reading import read_result
        from interp.models.folder import read_record

        name = name_of(train)
        folder, other = self.out / name, f"choose another --out, or remove what is in {self.out / name}"
        if (folder / STAGES["train"]).exists() and (record := read_record(folder)):
            asked = {**as_asked(train, self.steps).recipe().to_json(), "precision": self.precision}
            there = {**record["recipe"], "precision": record.get("precision") if self.precision else None}
            if words := differences(there, asked):
                raise ValueError(f"{name} is there, trained otherwise than is asked now ({words}); {other}")
        for stage in ("transfer", "battery"):
            if (path := folder / STAGES[stage]).exists():
                found = read_result(path)
                made = found.get("battery", found).get("prompts")
                if made != self.prompts:
                    words = f"--prompts {made}, and --prompts is {self.prompts} now"
                    raise ValueError(f"{path} was made with {words}; {other}")

    def _lacking(self, name: str, stages: tuple[str, ...]) -> list[str]:
        """The stages of a run that are not there."""
        return [s for s in stages if not (self.out / name / STAGES[s]).exists()]

    def _engine(self) -> Executor:
        if self.engine == "local":
            return Processes(self.workers or 2)
        from experiments.support.on_ray import OnRay

        return OnRay(self.workers, self.gpus)

    def _stages(self) -> tuple[str, ...]:
        if unknown := sorted(set(self.stages) - set(STAGES)):
            raise ValueError(f"unknown stages {', '.join(unknown)}; stages are {', '.join(STAGES)}")
        return tuple(s for s in STAGES if not self.stages or s in self.stages)

    def _job(self, train: TrainCommand, lacking: list[str]) -> Job | None:
        """The first of the missing stages of a run."""
        if not lacking:
            return None
        options = {"precision": self.precision, "steps": self.steps, "prompts": self.prompts}
        return Job(f"{name_of(train)} {lacking[0]}", do_stage, (self.out.resolve(), train, options, lacking))


def as_asked(train: TrainCommand, steps: int | None) -> TrainCommand:
    """A run of the grid with --steps, where it is given."""
    return train if steps is None else replace(train, steps=steps)


def name_of(train: TrainCommand) -> str:
    """The folder of a run of the grid."""
    return train.recipe().name


@dataclass(frozen=True)
class Trouble:
    """Why a stage was not done here; `another`: because another process is at it."""

    words: str
    another: bool = False


def do_stage(out: Path, train: TrainCommand, options: dict, lacking: list[str]) -> Trouble | None:
    """Does the first of the stages that a run lacks, alone; what was in the way, or None. Runs in a worker."""
    from experiments.cli import one_line, quiet
    from experiments.support.provenance import OtherVersions
    from interp.support.writing import AtWork, alone_in, is_full

    quiet()
    warnings.simplefilter("ignore", OtherVersions)  # the gathering says it of all runs at once
    done = out / name_of(train) / STAGES[lacking[0]]
    work: dict[str, Callable[[], Any]] = {
        "train": partial(_train, out, train, options),
        "evaluate": partial(_evaluate, out / name_of(train)),
        "transfer": partial(_transfer, out / name_of(train), options["prompts"]),
        "battery": partial(_battery, out / name_of(train), options["prompts"]),
    }
    try:
        with alone_in(out / f".{name_of(train)}{LOCKED}"):
            if not done.exists():  # another may have done it since
                work[lacking[0]]()
    except AtWork as error:
        return Trouble(one_line(error), another=True)
    except (ValueError, OSError) as error:
        if is_full(error):  # and it is so for all runs
            raise
        return Trouble(one_line(error))  # one run's trouble is not the others'
    return None


def forget_locks(out: Path) -> None:
    """Removes the locks that killed commands left; those that are held stay, once orphans have had time to end."""
    import time

    from interp.support.writing import PATIENCE_SECONDS, AtWork, alone_in

    until = time.monotonic() + PATIENCE_SECONDS  # for all together
    for folder in out.glob(f".*{LOCKED}"):
        with suppress(AtWork), alone_in(folder, patience=max(0.0, until - time.monotonic())):
            pass


def _train(out: Path, train: TrainCommand, options: dict) -> None:
    replace(as_asked(train, options["steps"]), out=out, precision=options["precision"]).trained()


def _evaluate(folder: Path) -> None:
    from experiments import load
    from experiments.commands.evaluate import EvaluateCommand

    EvaluateCommand((str(folder),)).measure(load(folder), folder)


def _transfer(folder: Path, prompts: int) -> None:
    """Poses the other formats of the task to the same weights, labels forced."""
    from experiments import load
    from experiments.commands.verdict import default_lengths
    from experiments.support.results import write_result
    from probes.competence import accuracies

    run = load(folder)
    rows = []
    for fmt in POSED[run.format.task]:
        name = f"{run.format.task}-{fmt}"
        if name == str(run.format):
            continue
        posed = load(folder, name)  # for its prompts; the weights are loaded already
        for length in default_lengths(posed):
            found = accuracies(run.raw, posed.sample(prompts, length, seed=length), "forced")
            rows += [{"posed": str(posed.format), **row.to_json()} for row in found]
    write_result(folder / STAGES["transfer"], run, 0, {"prompts": prompts, "accuracy": rows})


def _battery(folder: Path, prompts: int) -> None:
    """Measures every arm at a trained length and past it; a format without labels gets its competence alone."""
    from experiments import load
    from experiments.commands.verdict import default_lengths
    from experiments.support.results import recalling, work_folder, write_result
    from probes import battery
    from probes.batteries import ARMS
    from probes.serialization import battery_to_json

    run: Run = load(folder)
    with work_folder(folder, run, "battery", [prompts]) as work:
        found = battery(run, default_lengths(run), seed=0, prompts=prompts, arms=ARMS, recall=recalling(work))
        write_result(folder / STAGES["battery"], run, 0, {"battery": battery_to_json(found)}, indent=None)


# Beside a run's folder while a stage of it is done, with the lock in it. The same for all stages: they need each other.
LOCKED = ".locked"

# A stage is done when its file is there; files are written whole or not at all, training's last.
STAGES = {
    "train": "run.json",
    "evaluate": "evaluation.json",
    "transfer": "transfer.json",
    "battery": "battery.json",
}
