"""The only place with names, paths and prints: the command line, training, evaluation and shipped runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.models import Run
    from interp.tasks import Format

__all__ = ["load"]


def load(name: str | Path, fmt: str | Format | None = None, longest: int | None = None) -> Run:
    """A run by its name (`<task>-<format>-<family>`), by a folder, or by a hub name ("owner/model").

    `fmt` poses a task to a model that has no `run.json`, such as a pretrained one; its symbols are mapped
    to single tokens of the model's tokenizer, labels for at most `longest` bits. Raises `ValueError` with the
    nearest names for an unknown one. That a run was trained by other versions is a warning.

    >>> load("parity-aligned-alibi").sample(batch_size=1, length=2, seed=0).n_pos
    10
    """
    from experiments.support.names import load_named
    from experiments.support.provenance import say_versions

    run = load_named(name, fmt) if longest is None else load_named(name, fmt, longest)
    if "provenance" in run.record:  # not every folder is this package's
        say_versions(f"{run.name}/run.json", run.record["provenance"])
    return run
