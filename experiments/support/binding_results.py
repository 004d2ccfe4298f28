"""`mnemoscope verdict` on lists and recall: measure, decide, print and write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.support.own_lists import ListTask, check_fillers, list_options, list_task
from experiments.support.verdict_checks import check_list
from experiments.support.verdict_defaults import PROMPTS
from probes.limits import BINDING_TASKS

if TYPE_CHECKING:
    from experiments.commands.verdict import VerdictCommand
    from experiments.support.kept_groups import KeptGroups
    from experiments.support.list_pieces import ListSource, ListWork
    from interp.models import Run
    from probes.binding import Binding, BindingVerdict, Trial


def binding_task_of(command: VerdictCommand) -> ListTask | None:
    """Return the list of a command line, "recall", or None where it is parity or addition (without a library).

    Raises `ValueError` for a task that cannot be judged, and for options that do not apply to lists.
    """
    is_recall = (command.format or "").partition("-")[0] == "recall"
    task = command.task or ("recall" if is_recall else None)
    if task in (None, "parity", "addition"):
        if given := [name for name in ("items", "fillers") if getattr(command, name) != getattr(type(command), name)]:
            raise ValueError(f"--{given[0]} is for lists; add --task, one of {', '.join(BINDING_TASKS)}")
        return None
    posed = list_task(str(task))
    if posed != "recall" and command.format is not None:
        raise ValueError(f"--task {task} has no formats; leave --format out")
    check_list_options(command, posed)
    return posed


def check_list_options(command: VerdictCommand, task: ListTask) -> None:
    """Raise `ValueError` for options that do not apply to a list or to recall."""
    given = [name for name in ("lengths", "arms") if getattr(command, name)] + ["forced"] * command.forced
    if given:
        instead = "--items and --fillers" if isinstance(task, str) and task != "recall" else "--items"
        raise ValueError(f"--{given[0]} does not apply to --task {task}; use {instead}")
    if command.fillers < 0:
        raise ValueError(f"--fillers must be 0 or more; got {command.fillers}")
    check_fillers(task, command.fillers)


def judge_lists(command: VerdictCommand, task: ListTask) -> int:
    """Judge the named model on a list, write verdict-<task>-<items>.json and print the first screen.

    A finished result of the same weights and options is printed instead, unless `command.fresh`. The options are those
    that `check_verdict` lets through.
    """
    from experiments.reporting.error_text import how_sure_of_list
    from experiments.support.console import say, warn
    from experiments.support.finished import take_finished, warn_measured
    from experiments.support.finished_verdicts import finished_list_verdict
    from experiments.support.list_pieces import ListSource
    from experiments.support.reading import LIST_CALIBRATION, read_calibration
    from experiments.support.results import json_target, replace_whole, result_folder
    from experiments.support.verdict_text import columns_of_output, more_prompts, say_how_sure
    from probes.binding.text import summary

    check_list_options(command, task)  # here also for a run of recall, whose task no option names
    names = [*command.names, *([str(command.model)] if command.model else [])]
    prompts = PROMPTS if command.prompts is None else command.prompts
    check_list(task, names, command.items, prompts)
    source = ListSource.of(names[0], task, prompts, command)
    run = source.load()
    file = file_of(task, command.items)
    copy = json_target(command.json, run, command.out, (file,))
    options = list_options(task, command.items, prompts, command.fillers)
    stored, reasons = None, {}
    if not command.fresh:
        stored, reasons = finished_list_verdict(run, options, file, command.seed, command.out)
    if stored is not None:
        target = None if command.out is None else result_folder(run, command.out, (file,)) / file
        path, verdict, written = take_finished(stored, target, reasons), stored.found, stored.data
    else:
        trials = source.trials(run)
        path = result_folder(run, command.out, (file,)) / file
        warn_measured(path, reasons, command.fresh)
        if not isinstance(task, str):
            warn(f"the first prompt: {trials[0].lookups.prompts.text()!r}")
        verdict, written = _judged(command, run, source, trials, options, path)
    if copy is not None:
        replace_whole(copy, json.dumps(written, indent=1) + "\n", "--json")
    if command.json == "-":
        print(json.dumps(written))
        return 0
    for line in summary(verdict, columns_of_output(), command.evidence, more_prompts(prompts)):
        say(line)
    say_how_sure(how_sure_of_list(written, read_calibration(LIST_CALIBRATION)), columns_of_output())
    say(path)
    return 0


def _judged(
    command: VerdictCommand, run: Run, source: ListSource, trials: list[Trial], options: dict, path: Path
) -> tuple[BindingVerdict, dict]:
    """Measure, decide and write; return the verdict, and what its file holds."""
    from experiments.support.kept_groups import KeptGroups
    from experiments.support.list_pieces import ListWork
    from experiments.support.progress import progress_bar
    from experiments.support.results import work_folder, write_result
    from probes.binding import binding_verdict

    asked = [options, command.seed, str(run.format)]
    with (
        work_folder(path.parent, run, "verdict", asked) as work,
        progress_bar(total=0, unit="step") as bar,
    ):
        kept, step = KeptGroups(work), shown_on(bar, len(trials))
        todo = ListWork(run, source, trials, source.prompts, work, step)
        measured = measured_list(todo, kept, command.workers)
        verdict = binding_verdict(run.name, measured)
        own = {} if isinstance(source.task, str) else {"list": source.task.to_json()}
        data = {"options": options, **own, **verdict.to_json(), "cost": kept.cost}
        return verdict, write_result(path, run, command.seed, data)


def measured_list(work: ListWork, kept: KeptGroups, workers: int | None = None) -> Binding:
    """Measure the arms of a list, in several processes where that is faster."""
    from probes.binding import measure_binding

    source = work.source
    with work.shared(workers) as prepare:
        return measure_binding(
            work.run, work.trials, str(source.task), source.seed, work.step, work.prompts, kept, prepare
        )


def shown_on(bar: Any, n_trials: int, title: str = "") -> Callable[[str], None]:
    """Return a function that shows each step on a progress bar.

    The bar grows by the steps of a verdict that is measured, and by those of arms that the first ones leave open.
    """
    from probes.binding.measuring import ACCURACY, MORE

    steps = {ACCURACY: 1 + n_trials, MORE: n_trials}

    def step(what: str) -> None:
        bar.total += steps.pop(MORE if what.endswith(MORE) else what, 0)
        bar.set_description(f"{title}{what}")
        bar.update()

    return step


def file_of(task: ListTask, items: int) -> str:
    """Return the name of the file of a verdict on a list."""
    return f"verdict-{task}-{items}.json"
