"""The training loop: turn a recipe into a run, resumable after an interruption."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel

from experiments.support.console import warn
from experiments.support.interrupting import held_signals
from experiments.support.progress import progress_bar
from experiments.support.provenance import provenance_record, warn_versions
from experiments.training.checkpoint import Pace, load_checkpoint, save_checkpoint
from experiments.training.claiming import claim, what_differs
from experiments.training.gradients import compiled, optimizer_of, require_compile, schedule, take_step, use_attention
from experiments.training.graphs import CapturedSteps, require_graphs
from experiments.training.lora import adapter_weights, round_adapters
from experiments.training.metrics_file import add_line, digest_of, forget_after
from experiments.training.recipe import Pretrained, Recipe, TrainingPart, parts
from experiments.training.state import Beginning, accuracies_of, beginning, check_batches, outcome_of
from interp.models import save_run
from interp.models.adapters import adapter_entry, save_adapter_run
from interp.models.record import read_record
from interp.support.writing import alone_in, empty_work
from interp.tasks import Batch, Vocabulary, parse_format

CHECK_EVERY = 100
CHECK_EVERY_PRETRAINED = 25
SAVE_EVERY_SECONDS = 60
METRICS = "metrics.jsonl"
# Kernels that run.json does not name.
USUAL_KERNELS = {"attention": "eager", "compile": False, "cuda_graphs": False}


@dataclass(frozen=True)
class Trained:
    """A trained run: its folder, whether it learned, its step accuracy at the longest trained length, and its steps."""

    folder: Path
    competent: bool
    step_accuracy: float
    steps: int


def train_run(
    recipe: Recipe,
    out: Path,
    precision: str = "no",
    save_every: float = SAVE_EVERY_SECONDS,
    cpu: bool = False,
    attention: str = "eager",
    compile: bool = False,
    cuda_graphs: bool = False,
) -> Trained:
    """Train a recipe into `out/<recipe.name>`, resuming where an earlier, killed call stopped.

    On a CPU with the same number of threads the weights are bit-identical, interrupted or not. Ctrl-C ends the training
    after the current step, which is saved; a process that is killed loses what came after its last checkpoint, of which
    there is one at the first check and then at most one every `save_every` seconds. A finished run of this recipe and
    these kernels is returned as it is. `cpu` leaves GPUs unused. `attention` is as in `use_attention`; `compile` trains
    with kernels of `torch.compile` (see `compiled`), `cuda_graphs` repeats captured steps on a GPU (see `graphs`).
    Raises `ValueError` when the folder holds another run, or a half-trained run of another recipe, and when another
    process is training it.
    """
    final, work = out / recipe.name, work_of(out, recipe.name)
    asked = {"attention": attention, "compile": compile, "cuda_graphs": cuda_graphs}
    kernels = {name: value for name, value in asked.items() if value != USUAL_KERNELS[name]}
    if final.exists():
        return _finished(final, work, recipe, precision, kernels)
    with ExitStack() as until_done:
        return _train(recipe, final, work, precision, save_every, cpu, kernels, until_done)


def work_of(out: Path, name: str) -> Path:
    """Return the folder of a run that is being trained."""
    return out / f"{name}.training"


def _train(
    recipe: Recipe,
    final: Path,
    work: Path,
    precision: str,
    save_every: float,
    cpu: bool,
    kernels: dict[str, Any],
    until_done: ExitStack,
) -> Trained:
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
    begun = beginning(recipe)
    model, vocabulary = begun.model, begun.vocabulary
    usual: str = model.config._attn_implementation  # type: ignore[assignment]
    if "attention" in kernels:
        use_attention(model, kernels["attention"])
    if "compile" in kernels:
        require_compile(accelerator.device)
    if "cuda_graphs" in kernels:
        require_graphs(accelerator.device, accelerator.num_processes, recipe)
    checks = check_batches(recipe, vocabulary)
    parts_of = partial(parts, recipe, process=accelerator.process_index, vocabulary=vocabulary)
    on_cuda = accelerator.device.type == "cuda"
    optimizer = optimizer_of(model, recipe, capturable=on_cuda and "cuda_graphs" in kernels)
    if accelerator.is_main_process:
        until_done.enter_context(alone_in(work))  # only now: a recipe that cannot be built leaves nothing behind
        if final.exists():
            raise ValueError(f"{final} has just been trained by another process")
        claim(work, recipe, precision, accelerator.num_processes, kernels)
    accelerator.wait_for_everyone()
    state = load_checkpoint(work, model, optimizer) or {"step": 0, "accuracy": {}}
    state.setdefault("cooldown_from", max(0, recipe.steps - recipe.cooldown))
    state.setdefault("seconds", 0.0)
    sums: dict[str, list[Any]] = state.pop("losses", {})
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    take = _taking(accelerator, compiled(wrapped) if "compile" in kernels else wrapped, optimizer, recipe, kernels)
    metrics, step = work / METRICS, state["step"]
    if accelerator.is_main_process:
        forget_after(metrics, step, state.get("metrics"))
        if step:
            warn(f"{recipe.name}: resuming after step {step}")
    pace, before, began = Pace(save_every), state["seconds"], time.monotonic()
    bar = progress_bar(
        total=recipe.steps, initial=step, desc=recipe.name, unit="step", shown=accelerator.is_main_process
    )

    def check() -> None:
        """Measure the accuracies, and write a line with them and the losses since the last one."""
        rate = recipe.lr * schedule(recipe, state["cooldown_from"], step - 1)
        _check(accelerator, wrapped, checks, recipe, step, state)
        bar.set_postfix({k: f"{v:.3f}" for k, v in state["accuracy"].items()})
        if accelerator.is_main_process:
            add_line(metrics, step, rate, sums, state)
        sums.clear()

    with held_signals() as held:
        while step < min(recipe.steps, state["cooldown_from"] + recipe.cooldown):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * schedule(recipe, state["cooldown_from"], step)
            losses = take(step, parts_of(step))
            step += 1
            bar.update()
            for name, loss in losses.items():
                sums.setdefault(name, []).append(loss)
            state["seconds"] = before + time.monotonic() - began
            if checked := is_check(recipe, step):
                check()
            stops = held.number is not None
            if accelerator.is_main_process and (stops or (checked and pace.is_due())):
                raw_optimizer: Any = getattr(optimizer, "optimizer", optimizer)
                kept = {k: v for k, v in state.items() if k != "step"} | {"metrics": digest_of(metrics.read_bytes())}
                kept["losses"] = {name: [float(loss) for loss in several] for name, several in sums.items()}
                with pace.writing():
                    save_checkpoint(work, step, accelerator.unwrap_model(wrapped), raw_optimizer, kept)
            held.obey()
        if not is_check(recipe, step):  # the cool-down has ended between two checks
            check()
    bar.close()
    trained: Any = accelerator.unwrap_model(wrapped)
    use_attention(trained, usual)
    if begun.adapter:
        round_adapters(trained)
    outcome = outcome_of(trained, checks["task"], state["accuracy"], step)
    if accelerator.is_main_process:
        record = _record(recipe, vocabulary, outcome, precision, accelerator, state["seconds"])
        record |= kernels
        _save(final, recipe, begun, record, trained.cpu().float().eval(), {METRICS: metrics.read_bytes()})
        empty_work(work)
    accelerator.wait_for_everyone()
    return Trained(final, outcome["competent"], outcome["step_accuracy"], step)


def _taking(
    accelerator: Accelerator, model: Any, optimizer: Any, recipe: Recipe, kernels: dict[str, Any]
) -> Callable[[int, list[TrainingPart]], Mapping[str, Any]]:
    """Return what does one optimiser step and returns the loss of each part."""
    if "cuda_graphs" not in kernels:
        return partial(take_step, accelerator, model, optimizer, recipe)
    steps = CapturedSteps(model, optimizer.optimizer, recipe, accelerator.device)
    return lambda step, batches: steps.take(optimizer.param_groups[0]["lr"], batches)


def is_check(recipe: Recipe, step: int) -> bool:
    """Return whether a step ends with a check; a pretrained model learns a task in a tenth of the steps."""
    every = min(CHECK_EVERY, CHECK_EVERY_PRETRAINED) if isinstance(recipe.model, Pretrained) else CHECK_EVERY
    return step % every == 0 or step == recipe.steps


def _save(
    final: Path, recipe: Recipe, begun: Beginning, record: dict, trained: PreTrainedModel, beside: dict[str, bytes]
) -> None:
    """Write the run: all weights with a tokenizer, or the adapters with the name and digest of their base."""
    if begun.adapter is None:
        save_run(final, trained, begun.tokenizer, record, beside)
        return
    assert isinstance(recipe.model, Pretrained)
    settings = {**begun.adapter, "base_model_name_or_path": recipe.model.source}
    record = {**record, "adapter": adapter_entry(recipe.model.source)}
    save_adapter_run(final, adapter_weights(trained), settings, record, beside)


def _check(
    accelerator: Accelerator, wrapped: Any, checks: dict[str, Batch], recipe: Recipe, step: int, state: dict
) -> None:
    """Measure the accuracy, and start the cool-down once the model is competent at the longest lengths."""
    # One process decides for all: two that round differently would stop at different steps.
    (state["accuracy"],) = broadcast_object_list([accuracies_of(accelerator.unwrap_model(wrapped), checks)])
    ramped = step >= max(recipe.ramp, recipe.rehearsal_ramp if recipe.rehearsal else 0)
    competent = all(a >= recipe.competent for a in state["accuracy"].values())
    if ramped and competent:  # a cool-down that has begun is never delayed
        state["cooldown_from"] = min(step, state["cooldown_from"])


def _record(
    recipe: Recipe, vocabulary: Vocabulary, outcome: dict, precision: str, accelerator: Accelerator, seconds: float
) -> dict:
    """Return what run.json holds."""
    return {
        "format": str(parse_format(recipe.format)),
        "vocabulary": vocabulary.to_json(),
        "recipe": recipe.to_json(),
        "outcome": outcome,
        "precision": precision,
        "processes": accelerator.num_processes,
        "training_seconds": round(seconds, 1),
        "provenance": provenance_record(device=str(accelerator.device)),
    }


def _finished(final: Path, work: Path, recipe: Recipe, precision: str, kernels: dict[str, Any]) -> Trained:
    """Return the run that an earlier call trained; that call may have been killed before it cleaned up."""
    record = read_record(final) or {}
    warn_versions(f"{final.name}/run.json", record.get("provenance"))
    made_by = {name: record[name] for name in USUAL_KERNELS if name in record}
    present = {**record.get("recipe", {}), "precision": record.get("precision"), **made_by}
    asked = {**json.loads(json.dumps(recipe.to_json())), "precision": precision, **kernels}
    if present != asked:
        differ = what_differs(present, asked)
        raise ValueError(f"{final} exists, trained by another recipe ({differ}); remove it, or choose another --out")
    shutil.rmtree(work, ignore_errors=True)
    outcome = record["outcome"]
    return Trained(final, outcome["competent"], outcome["step_accuracy"], outcome["steps"])
