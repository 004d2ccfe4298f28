"""The fewest prompts, items and steps of a verdict, its arms and tasks, and their checks. Imports no library."""

from __future__ import annotations

from collections.abc import Collection, Sequence

# Codes of the arms in `probes.arms.registry`, in its order.
ARM_CODES = (
    *("M1", "M2", "M3", "M4", "M5", "identity", "content", "M6", "presence", "shares"),
    *("M7", "M8", "M9", "M10", "M11", "M12"),
)
# Fewest prompts per length of a battery.
FEWEST_PROMPTS = 24
# Fewest bits, and fewest digits of each operand: `probes.trials.addition` needs two places below the step.
SHORTEST, SHORTEST_SUM = 5, 6
# Tasks of `probes.binding`: recall, and the lists of `interp.tasks.lists`.
BINDING_TASKS = (
    "recall",
    *("list-letters", "list-numerals", "list-random-numerals", "list-names", "list-bullets", "list-no-labels"),
    *("lookup-letters", "lookup-numerals", "lookup-random-numerals", "lookup-names"),
)
# Fewest prompts on a list in all. With fewer, the interval of a perfect accuracy reaches below the gate
# (`probes.binding.found.COMPETENCE`).
FEWEST_LIST_PROMPTS = 16
# Fewest items with a query, a target, a third item and two bystanders, and items before the first three.
FEWEST_ITEMS = 6


def shortest_of(task: str) -> int:
    """Return the fewest bits or digits with which a trial has all its steps."""
    return SHORTEST_SUM if task == "addition" else SHORTEST


def check_shortest(length: int | tuple[int, int], task: str = "parity") -> None:
    """Raise `ValueError` for a length that is too short for a trial."""
    least = shortest_of(task)
    if (length if isinstance(length, int) else min(length)) < least:
        raise ValueError(f"a length of at least {least} is needed for the steps of a trial; got {length}")


def check_asked(
    lengths: Sequence[int | tuple[int, int]], prompts: int, arms: Collection[str], known: Collection[str] = ARM_CODES
) -> None:
    """Raise `ValueError` for an unknown arm, for too few prompts, and for a length that is named twice."""
    if unknown := sorted(set(arms) - set(known)):
        raise ValueError(f"unknown arms {', '.join(unknown)}; arms are {', '.join(known)}")
    if prompts < FEWEST_PROMPTS:
        raise ValueError(f"at least {FEWEST_PROMPTS} prompts are needed; got {prompts}")
    if len(set(lengths)) < len(lengths):
        raise ValueError(f"name one or more different lengths; got {list(lengths)}")


def check_binding_task(task: str) -> None:
    """Raise `ValueError` unless lists or recall of this name can be judged."""
    if task not in BINDING_TASKS:
        tasks = f"tasks are parity, addition, {', '.join(BINDING_TASKS)}, or a .json file that describes your own list"
        raise ValueError(f"task {task!r} cannot be judged; {tasks}")


def check_items(items: int) -> None:
    """Raise `ValueError` for too few items of a list or of recall."""
    if items < FEWEST_ITEMS:
        raise ValueError(f"the verdict on lists needs at least {FEWEST_ITEMS} items; got {items}")


def check_list_prompts(prompts: int) -> None:
    """Raise `ValueError` for too few prompts on a list or on recall."""
    if prompts < FEWEST_LIST_PROMPTS:
        raise ValueError(f"the verdict on lists needs at least {FEWEST_LIST_PROMPTS} prompts; got {prompts}")
