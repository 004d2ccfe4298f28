"""A list of the user's own as the task of a verdict or a report: a .json file instead of a task's name."""

from __future__ import annotations

from pathlib import Path

from interp.support.digests import digest_of
from interp.tasks.list_forms import ListForm, read_list_form
from probes.limits import BINDING_TASKS, check_binding_task

# A task by name, or a list of the user's own. As text, both are the name that files and tables have.
ListTask = str | ListForm


def list_task(named: str) -> ListTask:
    """Return a task of `BINDING_TASKS`, or the list that a .json file describes.

    Raises `ValueError` for another name, and for a file that describes no list or is named as one of these tasks.
    """
    if not named.endswith(".json"):
        check_binding_task(named)
        return named
    form = read_list_form(Path(named))
    if form.name in BINDING_TASKS:
        raise ValueError(f"{named}: {form.name} is the name of a task that mnemoscope has; rename the file")
    return form


def check_fillers(task: ListTask, fillers: int) -> None:
    """Raise `ValueError` for --fillers where the task has none."""
    if fillers and task == "recall":
        raise ValueError("--fillers does not apply to --task recall; use --items")
    if fillers and not isinstance(task, str):
        raise ValueError(f"--fillers does not apply to your own list; write them into the item of {task}.json")


def list_options(task: ListTask, items: int, prompts: int, fillers: int) -> dict[str, object]:
    """Return what decides the numbers of a verdict on a list beside seed and weights; result files hold it.

    A list of the user's own is in it by the digest of its text and words.
    """
    options: dict[str, object] = {"items": items, "prompts": prompts, "fillers": fillers, "task": str(task)}
    if not isinstance(task, str):
        options["list"] = digest_of(task.to_json())[:12]
    return options
