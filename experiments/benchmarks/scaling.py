"""Benchmark: milliseconds of an optimiser step, and seconds of the stages after training, on one device."""

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

# The run whose recipe is timed. Its stages are timed on the shipped run, whose format takes every arm.
NAME, SHIPPED_SEED = "parity-aligned-alibi", 1
ZOO_SHAPE = (3, 128, 8)
STAGES = ("evaluate", "transfer", "battery")
# GPU memory for BLOOM-560M's weights, gradients, moments and activations in float32.
ROOM_FOR_BLOOM = 40 * 2**30
PATIENCE_SECONDS = 300.0

# Each process has its own data; these quantities are averaged over processes.
MEANS = ("ms_a_step", "tokens", "flops", "ms_a_check")


@dataclass(frozen=True)
class StepCase:
    """One row: optimiser steps of the zoo's recipe, `runs` at once on one device, one process per run.

    `moments` steps, spread evenly over the recipe, are timed, since prompts grow longer during training. `attention`,
    `compile` and `cuda_graphs` are those of `train_run`; `tokens` per step are the recipe's where None.
    """

    device: str
    n_layers: int = 3
    d_model: int = 128
    n_heads: int = 8
    precision: str = "no"
    runs: int = 1
    moments: int = 12
    vocabulary: int | None = None
    family: str = "alibi"
    tokens: int | None = None
    attention: str = "eager"
    compile: bool = False
    cuda_graphs: bool = False

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return f"{self.device}-step-{self.n_layers}x{self.d_model}-{_words(self.precision)}-runs{self.runs}"

    @property
    def is_zoo(self) -> bool:
        """Return whether the zoo's models have this shape."""
        return (self.n_layers, self.d_model, self.n_heads) == ZOO_SHAPE


@dataclass(frozen=True)
class StageCase:
    """One row: the stages that a sweep runs after training, on the CPU of the machine that has the device."""

    device: str
    prompts: int = 128

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return f"{self.device}-stages-{self.prompts}"


def cases_of(device: str) -> tuple[StepCase | StageCase, ...]:
    """Return the cases measured on a device. Raises `ValueError` for a device that is not there."""
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
    """Return the row of a case: medians over rounds, in processes of one CPU thread each.

    "busy" is the one-minute load average at the start: times measured beside other work are longer.
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
    """Run one process of a case: count the FLOPs of the recipe's steps, then time them when all processes are ready."""
    from accelerate import Accelerator

    from experiments.support.console import silence_libraries
    from experiments.training.gradients import compiled, optimizer_of, take_step, use_attention
    from experiments.training.graphs import CapturedSteps
    from experiments.training.loop import CHECK_EVERY
    from experiments.training.recipe import parts
    from experiments.training.state import accuracies_of, check_batches
    from interp.models import ModelConfig, build_model
    from interp.support.flops import flop_counter
    from interp.tasks import default_vocabulary

    silence_libraries()
    recipe, vocabulary = recipe_of(case), default_vocabulary()
    accelerator = Accelerator(mixed_precision=case.precision, cpu=case.device == "cpu")
    assert isinstance(recipe.model, ModelConfig), "the zoo's models are trained from scratch"
    model: Any = build_model(recipe.model, case.vocabulary or len(vocabulary.ids), recipe.seed + process)
    use_attention(model, case.attention)
    model, optimizer = accelerator.prepare(model, optimizer_of(model, recipe, capturable=case.cuda_graphs))
    data = {step: parts(recipe, step, process) for step in moments_of(recipe.steps, case.moments)}

    stepped = model

    def step(at: int) -> None:
        take_step(accelerator, stepped, optimizer, recipe, at, data[at])

    counter = flop_counter()
    with counter:
        for at in data:
            step(at)
    if case.compile:
        stepped = compiled(model)
    if case.cuda_graphs:
        captured = CapturedSteps(stepped, optimizer.optimizer, recipe, accelerator.device)

        def step(at: int) -> None:
            captured.take(recipe.lr, data[at])

    if case.compile or case.cuda_graphs:
        for at in data:  # compiles for all lengths, and captures all shapes
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
    if case.is_zoo:  # the loop's competence checks
        checks = check_batches(recipe, vocabulary)
        found = [seconds_of(lambda: accuracies_of(model, checks), case.device) for _ in range(rounds)]
        row |= {"ms_a_check": 1000 * median(found), "steps_a_check": CHECK_EVERY}
    return row


def timed_stages(prompts: int) -> dict[str, float]:
    """Return the seconds of each stage that a sweep runs after training, measured once on the shipped run."""
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


def recipe_of(case: StepCase) -> Recipe:
    """Return the zoo's recipe for a model of the case's shape."""
    from experiments.commands.train import TrainCommand

    recipe = TrainCommand(NAME).recipe()
    fields = ("family", "n_layers", "d_model", "n_heads")
    model = replace(recipe.model, **{name: getattr(case, name) for name in fields})
    return replace(recipe, model=model, tokens=case.tokens or recipe.tokens)


def moments_of(steps: int, count: int) -> list[int]:
    """Return steps spread evenly over a training: the middles of `count` equal parts.

    >>> moments_of(3000, 3)
    [500, 1500, 2500]
    """
    return sorted({(2 * k + 1) * steps // (2 * count) for k in range(count)})


def together(folder: Path, process: int, count: int) -> None:
    """Return once `count` processes have called this.

    Raises `ValueError` in a process that replaces a lost one, whose times would be of fewer runs at once, and where not
    all processes start within 5 minutes.
    """
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
    """Return the seconds that `work` takes, including the work it queued on a GPU."""
    import torch

    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def device_name(device: str) -> str:
    """Return the name of a device in tables."""
    import torch

    return f"CPU, {os.cpu_count()} cores" if device == "cpu" else torch.cuda.get_device_name()


def _words(precision: str) -> str:
    return "float32" if precision == "no" else precision
