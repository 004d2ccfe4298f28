"""Checks of the options of verdicts and of reports on lists, which import no library, and of runs judged together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from sys import maxsize
from typing import TYPE_CHECKING

from experiments.support.option_checks import check_seed, check_workers
from experiments.support.own_lists import ListTask
from experiments.support.run_checks import check_posed, check_runs, or_else, task_of
from experiments.support.verdict_defaults import PROMPTS
from interp.models.names import is_folder, no_folder
from probes.limits import (
    BINDING_TASKS,
    check_asked,
    check_binding_task,
    check_items,
    check_list_prompts,
    check_shortest,
)

if TYPE_CHECKING:
    from experiments.commands.verdict import VerdictCommand
    from interp.models import Run


def check_verdict(command: VerdictCommand, task: ListTask | None) -> None:
    """Raise `ValueError` for options of a verdict that are wrong whatever the model is; `task`: a list, or None."""
    if command.model is not None and not is_folder(command.model):
        raise ValueError(no_folder(command.model))
    names = [*command.names, *([str(command.model)] if command.model else [])]
    if task is None and not names:
        raise ValueError("name a run, such as parity-aligned-alibi, or a folder with --model")
    check_seed(command.seed)
    if command.workers is not None:
        check_workers("workers", command.workers)
    prompts = PROMPTS if command.prompts is None else command.prompts
    if task is not None:
        check_list(task, names, command.items, prompts)
        check_runs(names, command.format, "recall" if command.format else None)
    else:
        check_runs(names, command.format, command.task)
        with or_else(other_tasks()):
            check_posed(names, command.format)
        posed = task_of(names[0], command.format, command.task)
        if posed == "recall":
            check_list_prompts(prompts)
        else:
            check_asked(command.lengths, prompts, command.arms)
            check_shortest(min(command.lengths, default=maxsize), posed or "parity")


def check_one_configuration(runs: dict[str, Run]) -> None:
    """Raise `ValueError` where runs, by name, differ in more than their seed: in shape, or in recorded recipes."""
    if len(runs) < 2:
        return
    from experiments.gathering import recipe_differences

    only = "models that are judged together may differ only in their seed"
    shapes = {name: shape_of(run) for name, run in runs.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{only}; " + "; ".join(f"{name} is {shape}" for name, shape in shapes.items()))
    trained = [(name, run) for name, run in runs.items() if run.record.get("recipe")]
    for (one, first), (other, second) in pairwise(trained):
        if text := recipe_differences(first.record, second.record):
            raise ValueError(f"{only}; {one} and {other} were trained differently: {text}")


def shape_of(run: Run) -> str:
    """Return what models of one configuration have in common."""
    config = run.raw.config
    shape = f"{config.num_hidden_layers} layers x {config.hidden_size}"
    return f"{config.model_type} ({run.family}) with {shape}, posed {run.format}"


def other_tasks() -> str:
    """Return what judges any language model, for the error of a run without a task."""
    first, *others = (task for task in BINDING_TASKS if task != "recall")
    return f"judge any language model with --task {first}, recall, {', '.join(others)}"


def check_list(task: ListTask, names: Sequence[str], items: int, prompts: int | None = None) -> None:
    """Raise `ValueError` for an unknown list, for too few items or prompts, and for several runs."""
    if isinstance(task, str):
        check_binding_task(task)
    else:
        task.check_items(items)
    check_items(items)
    if prompts is not None:
        check_list_prompts(prompts)
    if len(names) != 1:
        raise ValueError(f"--task {task} judges one model at a time; got {len(names)}")
