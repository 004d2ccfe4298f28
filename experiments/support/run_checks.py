"""Checks of the runs and formats that a verb names; they import no library, so that bad input is refused at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.support.console import one_line
from interp.models.names import is_file, source_of
from interp.models.no_task import NoTask
from interp.tasks.formats import known_formats, parse_format

# As in `interp.models.record`, whose import takes seconds.
RECORD = "run.json"
# The largest one that is looked at for its task, in bytes.
LARGEST = 2**24


def check_runs(names: Sequence[str], fmt: str | None = None, task: str | None = None) -> None:
    """Raise `ValueError` for an unknown run and an unknown format; `fmt` and `task` are --format and --task.

    A hub name is not looked up.
    """
    for name in names:
        source_of(name)
    check_format(fmt, task)


def check_apart(names: Sequence[str]) -> None:
    """Raise `ValueError` where two runs have one name, which is also that of their result folder."""
    if len(set(names)) < len(names):
        raise ValueError(f"runs of the same name cannot be told apart: {', '.join(names)}; name each by itself")


def check_posed(names: Sequence[str], fmt: str | None) -> None:
    """Raise `NoTask` for a folder with a model and without a run.json, where --format poses no task either."""
    for folder in (Path(source_of(name)) for name in names if fmt is None):
        record = folder / RECORD
        if is_file(folder / "config.json") and not record.exists() and not record.is_symlink():
            raise NoTask(f"no task is posed to {folder.resolve().name}, which has no {RECORD}")


@contextmanager
def or_else(advice: str) -> Iterator[None]:
    """Add advice to the error of a run without a task that the block raises."""
    try:
        yield
    except NoTask as error:
        raise ValueError(f"{one_line(error)}; or {advice}") from None


def check_format(fmt: str | None, task: str | None = None) -> None:
    """Raise `ValueError` for an unknown format, and for one that is not of --task."""
    if fmt is None:
        if task is not None:
            raise ValueError(f"--task {task} needs --format, such as aligned")
    elif len(wholes := whole_formats(fmt, task)) == 1:
        parse_format(wholes[0])


def whole_formats(fmt: str, task: str | None = None) -> list[str]:
    """Return the names with a task that --format may mean, such as "parity-aligned" and more for "aligned".

    Raises `ValueError` where it names another task than --task.
    """
    tasks = list(dict.fromkeys(known.partition("-")[0] for known in known_formats()))
    if (own := fmt.partition("-")[0]) in tasks:
        if task not in (None, own):
            raise ValueError(f"--format {fmt} is not of --task {task}; leave one of them out")
        return [fmt]
    if task is not None:
        return [f"{task}-{fmt}"]
    return [whole for t in tasks if (whole := f"{t}-{fmt}") in known_formats()] or [fmt]


def task_of(name: str, fmt: str | None, task: str | None = None) -> str | None:
    """Return the task that is posed to a run by --format, --task or its run.json; None where none of them says it."""
    if fmt is not None and len(wholes := whole_formats(fmt, task)) == 1:
        return wholes[0].partition("-")[0]
    path = Path(source_of(name), RECORD)
    try:
        if is_file(path) and path.stat().st_size <= LARGEST:
            return json.loads(path.read_text(encoding="utf-8"))["format"].partition("-")[0]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # a damaged record is an error when it is read
    return None
