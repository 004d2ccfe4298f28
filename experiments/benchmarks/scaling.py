"""What does a training step, and a run of the grid, take on one device? The numbers that more devices multiply."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from experiments.support.jobs import Job, finished

if TYPE_CHECKING:
    from experiments.training.recipe import Recipe

# A grid's run; its stages are timed on the shipped one, of a format that takes every arm.
NAME, SHIPPED_SEED = "parity-aligned-alibi", 1
ZOO_SHAPE = (3, 128, 8)
STAGES = ("evaluate", "transfer", "battery")
# Bytes that a GPU must have for BLOOM-560M's weights, gradients, moments and activations in float32.
ROOM_FOR_BLOOM = 40 * 2**30
PATIENCE_SECONDS = 300.0


# Each process has data of its own; these are their means.
MEANS = ("ms_a_step", "tokens", "flops", "ms_a_check")


@dataclass(frozen=True)
class StepCase:
    """One row: optimiser steps of the zoo's recipe, by some runs at once on one device, a process each.

    `moments` steps spread evenly over the recipe are timed: lengths grow with it.
    """

    device: str
    n_layers: int = 3
    d_model: int = 128
    n_heads: int = 8
    precision: str = "no"
    runs: int = 1
    moments: int = 12
    vocabulary: int | None = None

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.device}-step-{self.n_layers}x{self.d_model}-{_words(self.precision)}-runs{self.runs}"

    @property
    def is_zoo(self) -> bool:
        """Whether the grid's models have this shape."""
        return (self.n_layers, self.d_model, self.n_heads) == ZOO_SHAPE


@dataclass(frozen=True)
class StageCase:
    """One row: what a sweep does with a trained run. It computes on the CPU of the machine that has the device."""

    device: str
    prompts: int = 128

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.device}-stages-{self.prompts}"


def cases_of(device: str) -> tuple[StepCase | StageCase, ...]:
    """What is measured on a device. Raises `ValueError` for one that is not there."""
    import torch

    zoo = [StepCase(device, precision=p) for p in ("no", "bf16")]
    if device == "cpu":
        both = [StepCase(device, precision=p, runs=2) for p in ("no", "bf16")]
        return (*zoo, *both, StepCase(device, 12, 768, 12, moments=2), StageCase(device))
    if not torch.cuda.is_available():
        raise ValueError(f"--device {device}: this machine has no such device; leave it out, or say cpu")
    large = [StepCase(device, 12, 768, 12, precision=p) for p in ("no", "bf16")]
    if torch.cuda.get_device_properties(0).total_memory >= ROOM_FOR_BLOOM:
        large.append(StepCase(device, 24, 1024, 16, "bf16", vocabulary=250_880))
    shared = [StepCase(device, precision="bf16", runs=runs) for runs in (4, 8)]
    return (*zoo, *shared, *large, StageCase(device))


def run_case(case: StepCase | StageCase, rounds: int) -> dict:
    """The row of a case: medians over rounds, in processes of one CPU thread each.

    "busy" is how many processes wanted a CPU as it began (the load average of a minute): times beside other
    work are longer than alone.
    """
    busy = round(os.getloadavg()[0], 1)
    if isinstance(case, StageCase):
        ((_, seconds),) = finished([Job(case.name, timed_stages, (case.prompts,))], workers=1)
        return {"case": asdict(case), "seconds": seconds, "device": device_name("cpu"), "rounds": 1, "busy": busy}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(f"{case.name} {k}", timed_steps, (case, rounds, k, folder)) for k in range(case.runs)]
        found = [row for _, row in finished(jobs, workers=case.runs)]
    over = {name: mean(row[name] for row in found) for name in MEANS if name in found[0]}
    each = {name: case.runs * 1000 * over[name] / over["ms_a_step"] for name in ("tokens", "flops")}
    return {
        "case": asdict(case),
        **found[0],
        **over,
        "tokens_a_second": each["tokens"],
        "flops_a_second": each["flops"],
        "rounds": rounds,
        "busy": busy,
    }


def timed_steps(case: StepCase, rounds: int, process: int, folder: str) -> dict:
    """One process of a case: the recipe's own steps, once to count FLOPs, then timed; all processes begin together."""
    from accelerate import Accelerator
    from torch.utils.flop_counter import FlopCounterMode

    from experiments.support.console import silence_libraries
    from experiments.training.gradients import optimizer_of, take_step
    from experiments.training.loop import CHECK_EVERY
    from experiments.training.recipe import parts
    from experiments.training.state import accuracies_of, check_batches
    from interp.models import ModelConfig, build_model
    from interp.tasks import default_vocabulary

    silence_libraries()
    recipe, vocabulary = recipe_of(case), default_vocabulary()
    accelerator = Accelerator(mixed_precision=case.precision, cpu=case.device == "cpu")
    assert isinstance(recipe.model, ModelConfig), "the zoo's models are trained from scratch"
    model: Any = build_model(recipe.model, case.vocabulary or len(vocabulary.ids), recipe.seed + process)
    model, optimizer = accelerator.prepare(model, optimizer_of(model, recipe))
    data = {step: parts(recipe, step, process) for step in moments_of(recipe.steps, case.moments)}

    def step(at: int) -> None:
        take_step(accelerator, model, optimizer, recipe, at, data[at])

    counter = FlopCounterMode(display=False)
    with counter:
        for at in data:
            step(at)
    together(Path(folder), process, case.runs)
    times: dict[int, list[float]] = {at: [] for at in data}
    for _ in range(rounds):
        for at, found in times.items():
            found.append(1000 * seconds_of(lambda at=at: step(at), case.device))
    tokens = [sum(part.batch.tokens.numel() for part in found) for found in data.values()]
    row = {
        "ms_a_step": mean(median(found) for found in times.values()),
        "tokens": mean(tokens),
        "flops": counter.get_total_flops() / len(data),
        "steps": recipe.steps,
        "device": device_name(case.device),
        "gradient_bytes": sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad),
    }
    if case.is_zoo:  # what the loop does beside its steps
        checks = check_batches(recipe, vocabulary)
        found = [seconds_of(lambda: accuracies_of(model, checks), case.device) for _ in range(rounds)]
        row |= {"ms_a_check": 1000 * median(found), "steps_a_check": CHECK_EVERY}
    return row


def timed_stages(prompts: int) -> dict[str, float]:
    """Seconds of each stage that a sweep does after training, on the shipped run; in a process alone, once."""
    from experiments.commands.train import TrainCommand
    from experiments.stages import StageOptions, do_stage, name_of
    from interp.models.names import SHIPPED

    train, seconds = TrainCommand(NAME, SHIPPED_SEED), {}
    with tempfile.TemporaryDirectory() as out:
        files = shutil.ignore_patterns("evaluation.json", "transfer.json", "battery.json", "*.parquet", "*.svg")
        shutil.copytree(SHIPPED / NAME, Path(out) / name_of(train), ignore=files)
        for stage in STAGES:
            began = time.perf_counter()
            if error := do_stage(Path(out), train, StageOptions(prompts=prompts), [stage]):
                raise ValueError(f"{stage}: {error.reason}")
            seconds[stage] = time.perf_counter() - began
    return seconds


def seconds_of_run(step: dict, stages: dict, steps: float) -> float:
    """A whole run of so many steps from two rows: every step, a check each so many, then the stages."""
    a_check = step["ms_a_check"] / step["steps_a_check"]
    return steps * (step["ms_a_step"] + a_check) / 1000 + sum(stages["seconds"].values())


def recipe_of(case: StepCase) -> Recipe:
    """The grid's recipe, for a model of the case's shape."""
    from experiments.commands.train import TrainCommand

    recipe = TrainCommand(NAME).recipe()
    shape = {"n_layers": case.n_layers, "d_model": case.d_model, "n_heads": case.n_heads}
    return replace(recipe, model=replace(recipe.model, **shape))


def moments_of(steps: int, count: int) -> list[int]:
    """Steps spread evenly over a training: the middles of so many equal parts.

    >>> moments_of(3000, 3)
    [500, 1500, 2500]
    """
    return sorted({(2 * k + 1) * steps // (2 * count) for k in range(count)})


def together(folder: Path, process: int, count: int) -> None:
    """Returns once so many processes have come here. Raises `ValueError` in one that takes the place of a lost one: its
    times would not be those of so many at once."""
    try:
        (folder / str(process)).touch(exist_ok=False)
    except FileExistsError as error:
        raise ValueError(f"process {process} of {count} was lost; is there memory for all?") from error
    until = time.monotonic() + PATIENCE_SECONDS
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > until:
            raise ValueError(f"only {len(list(folder.iterdir()))} of {count} processes began; is there memory for all?")
        time.sleep(0.01)


def seconds_of(work: Callable[[], Any], device: str) -> float:
    """How long some work takes, to the end of what it left a GPU to do."""
    import torch

    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def device_name(device: str) -> str:
    """What a device is called in a table."""
    import torch

    return f"CPU, {os.cpu_count()} cores" if device == "cpu" else torch.cuda.get_device_name()


def _words(precision: str) -> str:
    return "float32" if precision == "no" else precision
