"""Checks of options that need no library, so that bad input is refused at once."""

from __future__ import annotations

from pathlib import Path

from experiments.support.options import FILE, FOLDER, options_of
from interp.models.names import is_file, is_folder
from interp.tasks.limits import shown

MOST_WORKERS = 1024
# Seeds are multiplied by 1000 and added to; this many fit into 32 bits.
MOST_SEEDS = 4_000_000


def check_seed(seed: int) -> None:
    """Raise `ValueError` unless a seed leaves room for the seeds that are derived from it."""
    if not 0 <= seed < MOST_SEEDS:
        raise ValueError(f"seed must be an integer from 0 to {MOST_SEEDS - 1}; got {seed}")


def check_workers(name: str, count: int) -> None:
    """Raise `ValueError` for a number of threads or processes that no machine has; all start at once."""
    if not 1 <= count <= MOST_WORKERS:
        raise ValueError(f"--{name} must be at least 1 and at most {MOST_WORKERS}; got {count}")


def check_positive(command: object, *names: str) -> None:
    """Raise `ValueError` unless the named options of a verb are at least 1."""
    for name in names:
        if (value := getattr(command, name)) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {value}")


def check_least(command: object, *names: str, least: int = 1) -> None:
    """Raise `ValueError` unless every value of the named lists of a verb is at least `least`, and named once."""
    for name in names:
        values = getattr(command, name) or ()
        option, given = f"--{name.replace('_', '-')}", " ".join(map(str, values))
        if min(values, default=least) < least:
            raise ValueError(f"{option} must be at least {least}; got {given}")
        if len(set(values)) < len(values):
            raise ValueError(f"{option} must be different from each other; got {given}")


def check_engine(workers: int | None, engine: str, gpus: float) -> None:
    """Raise `ValueError` for wrong --workers, and for --gpus that is no share, or that the engine does not read."""
    if workers is not None:
        check_workers("workers", workers)
    if not 0 <= gpus < float("inf"):
        raise ValueError(f"--gpus must be 0 or more; got {gpus}")
    if gpus and engine != "ray":
        raise ValueError("--gpus is for --engine ray; leave it out")


def check_html(path: Path | None) -> None:
    """Raise `ValueError` where --out names no HTML file."""
    if path is not None and path.suffix != ".html":
        raise ValueError(f"--out must name an HTML file; got {path}")


def check_paths(command: object) -> None:
    """Raise `ValueError` where an option of a verb that takes a folder names a file, or one that takes a file a folder.

    Standard output (-) is no path.
    """
    for option, (field, config) in options_of(type(command)).items():
        kind, value = config and config.metavar, getattr(command, field.name)
        if value is None or value == "-" or kind not in (FOLDER, *FILE):
            continue
        path = Path(value)
        if kind in FILE and is_folder(path):
            raise ValueError(f"{option} must be a file; {shown(str(path))} is a folder")
        if (file := file_in(path.parent if kind in FILE else path)) is not None:
            beside = file.absolute().parent
            instead = f"; its folder is {beside}" if file == path and (beside / "config.json").is_file() else ""
            wanted = "in a folder" if kind in FILE else "a folder"
            raise ValueError(f"{option} must be {wanted}; {shown(str(file))} is a file{instead}")


def file_in(folder: Path) -> Path | None:
    """Return the file that stands where a path needs a folder: the path itself or a part of it; None for none."""
    return next((part for part in (folder, *folder.parents) if is_file(part)), None)
