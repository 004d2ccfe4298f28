"""Load the runs that a verb names, with the task format that its options mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.models import Run


def load_posed(
    name: str,
    fmt: str | None = None,
    *,
    task: str | None = None,
    longest: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
) -> Run:
    """Load a run and require that it has a task. `fmt` and `task` are the options --format and --task.

    Raises `ValueError` where no task is posed, as `complete_format`, and as `experiments.load`.
    """
    from experiments import load

    run = load(name, complete_format(fmt, task, name), longest, device, dtype)
    run.require_task()
    return run


def complete_format(fmt: str | None, task: str | None, name: str) -> str | None:
    """Return a whole format name, such as "parity-aligned" for "aligned"; None for None.

    The task is that of --task, of the run's own run.json, or the only one that has a format of this name. Raises
    `ValueError` where several tasks have one.
    """
    from experiments.support.run_checks import check_format, whole_formats
    from interp.models.names import source_of
    from interp.models.record import read_record

    if fmt is None:
        check_format(fmt, task)
        return None
    wholes = whole_formats(fmt, task)
    if len(wholes) == 1:
        return wholes[0]
    folder = Path(source_of(name))
    record = read_record(folder) if folder.is_dir() else None
    own = f"{record['format'].partition('-')[0]}-{fmt}" if record else None
    if own not in wholes:
        raise ValueError(f"several tasks have a format {fmt!r}: write {' or '.join(wholes)}, or add --task")
    return own


def widened(run: Run, dtype: str | None) -> Run:
    """Return a run, in float32 where its weights have half precision on a CPU and no dtype was asked for.

    Half precision is slow there, and its rounding is not what is measured.
    """
    import torch

    if dtype is None and run.raw.device.type == "cpu" and run.raw.dtype in (torch.float16, torch.bfloat16):
        run.raw.float()
    return run


def names_apart(places: Sequence[Path]) -> list[str]:
    """Return the last parts of different whole paths, as many as tell all of them apart; each is a relative path.

    >>> names_apart([Path("/x/a/m"), Path("/x/b/m")])
    ['a/m', 'b/m']
    """
    parts = [place.parts[1:] for place in places]  # without the root
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(part) for part in parts]


def renamed(run: Run, name: str) -> Run:
    """Return the run under another name, for folders that have the same last part."""
    other = replace(run, name=name)
    other.__dict__["raw"] = run.raw
    return other
