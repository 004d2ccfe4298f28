"""The stages of one run of a sweep, from training to the battery. Each writes one file, in a worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from experiments.commands.train import TrainCommand
    from experiments.support.jobs import Job
    from interp.models import Run
    from interp.tasks import Format

# A stage is done when its file exists. Files are written atomically; training writes its file last.
STAGES = {
    "train": "run.json",
    "evaluate": "evaluation.json",
    "longer": "longer.json",
    "operands": "operands.json",
    "transfer": "transfer.json",
    "battery": "battery.json",
}
# Bits of the stage "longer": past the longest list that is rehearsed (60 pairs), so that the end of rehearsal is not
# taken for the end of generalisation.
LONGER_LENGTHS, LONGER_PROMPTS = (80, 100), 256
# Ending of the hidden folder with the lock of a run. One lock serves all stages, because they need each other.
LOCKED = ".locked"


@dataclass(frozen=True)
class StageOptions:
    """The options of `mnemoscope sweep` that its stages need; see there."""

    prompts: int = 128
    steps: int | None = None
    precision: Literal["no", "bf16"] | None = None
    device: str = "auto"
    dtype: str | None = None
    cuda_graphs: bool = False


@dataclass(frozen=True)
class Trouble:
    """Why a stage was not done here. `another`: another process is doing it. `untrained`: the run is not trained."""

    reason: str
    another: bool = False
    untrained: bool = False


def with_steps(train: TrainCommand, steps: int | None) -> TrainCommand:
    """Return a run of the grid with another number of training steps, if one is given."""
    return train if steps is None else replace(train, steps=steps)


def name_of(train: TrainCommand) -> str:
    """Return the folder name of a run of the grid."""
    return train.recipe().name


def applies(stage: str, name: str) -> bool:
    """Return whether a run has this stage: longer lengths are bits, so addition has none, and parity no operands."""
    task = {"longer": "parity-", "operands": "addition-"}.get(stage, "")
    return name.startswith(task)


def is_trained(folder: Path) -> bool:
    """Return whether the first stage of a run is done, which all others need."""
    return (folder / STAGES["train"]).exists()


def progress_of(job: Job) -> str:
    """Return the name of the job of a stage; for training, with the last step that its metrics have."""
    name, stage = job.name.rsplit(" ", 1)
    if stage != "train":
        return job.name
    from experiments.training.loop import METRICS, work_of
    from experiments.training.metrics_file import last_step

    step = last_step(work_of(job.args[0], name) / METRICS)
    return job.name if step is None else f"{job.name}, step {step}"


def do_stage(out: Path, train: TrainCommand, options: StageOptions, missing: list[str]) -> Trouble | None:
    """Do the first missing stage of a run, under the run's lock; return why it was not done, or None. For a worker."""
    from experiments.support.console import is_out_of_memory, one_line
    from experiments.support.provenance import silence_worker
    from interp.support.writing import AtWork, alone_in, is_full

    silence_worker()
    stage, folder = missing[0], out / name_of(train)
    work: dict[str, Callable[[], Any]] = {
        "train": partial(_train, out, train, options),
        "evaluate": partial(_evaluate, folder, options),
        "longer": partial(_longer, folder, options),
        "operands": partial(_operands, folder, options),
        "transfer": partial(_transfer, folder, options),
        "battery": partial(_battery, folder, options),
    }
    try:
        with alone_in(out / f".{name_of(train)}{LOCKED}"):
            if stage != "train" and not is_trained(folder):
                return Trouble("it is not trained", untrained=True)
            if not (folder / STAGES[stage]).exists():  # another process may have done it since
                work[stage]()
    except AtWork as error:
        return Trouble(one_line(error), another=True)
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if is_full(error) or (isinstance(error, RuntimeError) and not is_out_of_memory(error)):
            raise  # a full disk stops every run; other errors are bugs
        return Trouble(one_line(error))  # the other runs continue
    return None


def remove_locks(out: Path) -> None:
    """Remove the locks that killed commands left. Locks that are held stay, after waiting for orphans to end."""
    import time

    from interp.support.writing import PATIENCE_SECONDS, AtWork, alone_in

    until = time.monotonic() + PATIENCE_SECONDS  # for all locks together
    for folder in out.glob(f".*{LOCKED}"):
        with suppress(AtWork), alone_in(folder, patience=max(0.0, until - time.monotonic())):
            pass


def transfer_formats(own: Format) -> list[str]:
    """Return the formats that a run trained on `own` is evaluated on without training.

    They are the other formats of its task and of the grid whose steps have the usual symbols: no fillers, written
    step by step, and answers in the symbols of the inputs.
    """
    from interp.tasks import known_formats, parse_format

    formats = [fmt for name in known_formats() if (fmt := parse_format(name)).task == own.task and fmt.row.in_grid]
    alike = [fmt for fmt in formats if fmt.row.layout == "sides" and not fmt.gap and fmt.inputs == fmt.outputs]
    return [str(fmt) for fmt in alike if fmt != own]


def _train(out: Path, train: TrainCommand, options: StageOptions) -> None:
    asked = with_steps(train, options.steps)
    device = "cpu" if options.device == "cpu" else "auto"
    asked = replace(asked, out=out, precision=options.precision, device=device, cuda_graphs=options.cuda_graphs)
    asked.trained()


def _load(folder: Path, options: StageOptions, fmt: str | None = None) -> Run:
    from experiments import load

    return load(folder, fmt, device=options.device, dtype=options.dtype)


def _evaluate(folder: Path, options: StageOptions) -> None:
    from experiments.commands.evaluate import EvaluateCommand

    EvaluateCommand((str(folder),)).measure(_load(folder, options), folder)


def _longer(folder: Path, options: StageOptions) -> None:
    """Measure the accuracy at each of `LONGER_LENGTHS`; list the lengths that the vocabulary cannot pose.

    Raises `ValueError` for a run without weights.
    """
    from experiments.commands.evaluate import EvaluateCommand
    from experiments.support.results import write_result

    run, command = _load(folder, options), EvaluateCommand((), prompts=LONGER_PROMPTS)
    lengths, impossible = [], {}
    for length in LONGER_LENGTHS:
        try:
            run.check_length(length)
        except ValueError as error:
            impossible[str(length)] = str(error)
        else:
            lengths.append(length)
    rows = [row.to_json() for length in lengths for row in command.accuracies(run, length)]
    data = {"prompts": command.prompts, "impossible": impossible, "accuracy": rows}
    write_result(folder / STAGES["longer"], run, 0, data)


def _operands(folder: Path, options: StageOptions) -> None:
    """Measure addition of operands of unequal length, and where sums first go wrong.

    A model with aligned labels, padded in training or not, reads the same sums with and without padding.
    """
    from experiments.operands import ALIGNED, PADDED, PROMPTS, operand_errors
    from experiments.support.results import write_result

    run = _load(folder, options)
    posed = (ALIGNED, PADDED) if str(run.format) in (ALIGNED, PADDED) else (str(run.format),)
    rows = [{"posed": name, **row} for name in posed for row in operand_errors(_load(folder, options, name))]
    write_result(folder / STAGES["operands"], run, 0, {"prompts": PROMPTS, "operands": rows})


def _transfer(folder: Path, options: StageOptions) -> None:
    """Measure the accuracy of the same weights on the other formats of their task, with labels forced."""
    from experiments.support.results import write_result
    from experiments.support.verdict_defaults import default_lengths
    from probes.competence import accuracies

    run = _load(folder, options)
    rows = []
    for name in transfer_formats(run.format):
        posed = _load(folder, options, name)  # for its prompts; `run` has the weights
        for length in default_lengths(posed):
            found = accuracies(run.raw, posed.sample(options.prompts, length, seed=length), "forced")
            rows += [{"posed": name, **row.to_json()} for row in found]
    write_result(folder / STAGES["transfer"], run, 0, {"prompts": options.prompts, "accuracy": rows})


def _battery(folder: Path, options: StageOptions) -> None:
    """Measure every arm at a trained length and beyond; a format without labels has only its accuracy measured."""
    from experiments.support.results import resume_arms, work_folder, write_result
    from experiments.support.verdict_defaults import default_lengths
    from probes import battery
    from probes.arms.registry import ARMS
    from probes.serialization import battery_to_json

    run, prompts = _load(folder, options), options.prompts
    with work_folder(folder, run, "battery", [prompts]) as work:
        measured = battery(run, default_lengths(run), seed=0, prompts=prompts, arms=ARMS, recall=resume_arms(work))
        write_result(folder / STAGES["battery"], run, 0, {"battery": battery_to_json(measured)}, indent=None)
