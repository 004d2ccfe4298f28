"""The command line, training, evaluation and shipped runs: the only package that reads names and paths and prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.models import Run
    from interp.tasks import Format

__all__ = ["load"]


def load(
    name: str | Path,
    fmt: str | Format | None = None,
    longest: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
) -> Run:
    """Load a run by its name (`<task>-<format>-<family>`), a folder, or a hub name ("owner/model" or "gpt2").

    `fmt` poses a task to a model without `run.json`, such as a pretrained one. Its symbols are mapped to single tokens
    of the model's tokenizer, with labels for at most `longest` bits; a line on standard error names those that are
    other words. Raises `ValueError` with the nearest names for an unknown name. Warns if the run was trained with other
    library versions.

    >>> load("parity-aligned-alibi").sample(batch_size=1, length=2, seed=0).n_pos
    10
    """
    from multiprocessing import parent_process

    from experiments.support.console import warn
    from experiments.support.other_tokens import stand_ins_text
    from experiments.support.provenance import warn_versions
    from experiments.support.same_name import say_which
    from interp import models

    say_which(name)
    run = models.load(name, fmt, longest=longest, device=device, dtype=dtype)
    if "provenance" in run.record:  # a folder of someone else's has none
        warn_versions(f"{run.name}/run.json", run.record["provenance"])
    if not run.record and parent_process() is None and (text := stand_ins_text(run)):
        warn(text)
    return run
