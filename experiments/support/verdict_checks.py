"""Checks of the options of verdicts and of reports on lists; they import no library.

What they compare with is the same as in `probes`, whose import takes seconds; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from experiments.support.console import one_line
from experiments.support.option_checks import check_seed, check_workers
from experiments.support.run_checks import check_posed, check_runs, task_of
from interp.models.names import is_folder, no_folder
from interp.models.no_task import NoTask

if TYPE_CHECKING:
    from experiments.commands.verdict import VerdictCommand

ARMS = (
    *("M1", "M2", "M3", "M4", "M5", "identity", "content", "M6", "presence", "shares"),
    *("M7", "M8", "M9", "M10", "M11", "M12"),
)
# Fewest prompts per length of parity and addition, and in all of lists; fewest items of a list.
FEWEST_PROMPTS, FEWEST_LIST_PROMPTS, FEWEST_ITEMS = 24, 16, 6
# Shortest lengths: bits, or digits of both operands.
SHORTEST = {"parity": 5, "addition": 6}
BINDING_TASKS = (
    "recall",
    *("list-letters", "list-numerals", "list-random-numerals", "list-names", "list-bullets", "list-no-labels"),
    *("lookup-letters", "lookup-numerals", "lookup-random-numerals", "lookup-names"),
)


def check_verdict(command: VerdictCommand, task: str | None) -> None:
    """Raise `ValueError` for options of a verdict that are wrong whatever the model is; `task`: of a list, or None."""
    if command.model is not None and not is_folder(command.model):
        raise ValueError(no_folder(command.model))
    names = [*command.names, *([str(command.model)] if command.model else [])]
    if task is None and not names:
        raise ValueError("name a run, such as parity-aligned-alibi, or a folder with --model")
    check_seed(command.seed)
    if command.workers is not None:
        check_workers("workers", command.workers)
    if task is not None:
        check_list(task, names, command.items, command.prompts)
        check_runs(names, command.format, "recall" if command.format else None)
    else:
        check_runs(names, command.format, command.task)
        with naming_lists():
            check_posed(names, command.format)
        posed = task_of(names[0], command.format, command.task)
        if posed == "recall":
            check_list_prompts(command.prompts)
        else:
            check_battery_options(posed, command.lengths, command.prompts, command.arms)


@contextmanager
def naming_lists() -> Iterator[None]:
    """Inside the block, the error of a run without a task names those that any language model can be judged on."""
    try:
        yield
    except NoTask as error:
        first, *others = (task for task in BINDING_TASKS if task != "recall")
        tasks = f"or judge any language model with --task {first}, recall, {', '.join(others)}"
        raise ValueError(f"{one_line(error)}; {tasks}") from None


def check_battery_options(task: str | None, lengths: Sequence[int], prompts: int, arms: Collection[str]) -> None:
    """Raise `ValueError` for what no battery of a task takes; None for a task that is not known yet. () is a default.

    The messages are those of `probes.batteries.check_battery`.
    """
    if unknown := sorted(set(arms) - set(ARMS)):
        raise ValueError(f"unknown arms {', '.join(unknown)}; arms are {', '.join(ARMS)}")
    if prompts < FEWEST_PROMPTS:
        raise ValueError(f"at least {FEWEST_PROMPTS} prompts are needed; got {prompts}")
    if len(set(lengths)) < len(lengths):
        raise ValueError(f"name one or more different lengths; got {list(lengths)}")
    least = SHORTEST.get(task or "", min(SHORTEST.values()))
    if (shortest := min(lengths, default=least)) < least:
        raise ValueError(f"a length of at least {least} is needed for the steps of a trial; got {shortest}")


def check_list(task: str, names: Sequence[str], items: int, prompts: int | None = None) -> None:
    """Raise `ValueError` for an unknown list task, for too few items or prompts, and for several runs.

    The messages are those of `probes.binding.trials`.
    """
    check_list_task(task)
    if items < FEWEST_ITEMS:
        raise ValueError(f"the verdict on lists needs at least {FEWEST_ITEMS} items; got {items}")
    if prompts is not None:
        check_list_prompts(prompts)
    if len(names) != 1:
        raise ValueError(f"--task {task} judges one model at a time; got {len(names)}")


def check_list_task(task: str) -> None:
    """Raise `ValueError` unless lists or recall of this name can be judged."""
    if task not in BINDING_TASKS:
        raise ValueError(f"task {task!r} cannot be judged; tasks are parity, addition, {', '.join(BINDING_TASKS)}")


def check_list_prompts(prompts: int) -> None:
    """Raise `ValueError` for too few prompts on a list or on recall."""
    if prompts < FEWEST_LIST_PROMPTS:
        raise ValueError(f"the verdict on lists needs at least {FEWEST_LIST_PROMPTS} prompts; got {prompts}")
