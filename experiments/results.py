"""Where do results go, and how are they shown?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from experiments.names import OUT
from experiments.provenance import provenance_record
from interp.models import Run, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULT_VERSION = 1
MOST_WORKERS = 1024


def result_folder(run: Run, out: Path | None) -> Path:
    """The folder for a run's results: `out`, or `mnemoscope-out/<run>`."""
    return writable_folder(out or OUT / run.name)


def writable_folder(folder: Path) -> Path:
    """Makes a folder and proves that it can be written, so that a bad path is an error before any work.

    Raises `ValueError` when it cannot.
    """
    probe = folder / ".writable"
    try:
        write_whole(probe, "")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def check_seed(seed: int) -> None:
    """Raises `ValueError` unless a seed leaves room for those that are derived from it (1000 a seed)."""
    if not 0 <= seed < 4_000_000:
        raise ValueError(f"seed must be an integer from 0 to 3999999; got {seed}")


def check_workers(name: str, count: int) -> None:
    """Raises `ValueError` for a number of threads or processes that no machine has; all would be started at once."""
    if not 1 <= count <= MOST_WORKERS:
        raise ValueError(f"--{name} must be at least 1 and at most {MOST_WORKERS}; got {count}")


def weights_of(run: Run) -> str:
    """A name for the weights of a run, the same for the same numbers: a result with it is known to be theirs."""
    found = hashlib.sha256()
    for name, values in sorted(run.raw.named_parameters()):
        found.update(name.encode() + values.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def work_folder(folder: Path, run: Run, what: str, options: object) -> Path:
    """Where unfinished work on a run is kept, in its folder of results: another one for other options or weights."""
    key = hashlib.sha256(json.dumps([options, weights_of(run), run.source]).encode()).hexdigest()[:12]
    work = folder / f".{what}-{key}"
    work.mkdir(exist_ok=True)
    return work


def write_result(path: Path, run: Run, seed: int, data: dict, indent: int | None = 1) -> dict:
    """Writes a result with the run, its weights, seed, versions and command that made it; returns what was written."""
    whole = {"version": RESULT_VERSION, "run": run.name, "format": str(run.format), "seed": seed}
    whole |= {"weights": weights_of(run), "provenance": provenance_record(), **data}
    write_whole(path, json.dumps(whole, indent=indent) + "\n")
    return whole


def save_figure(figure: Figure, path: Path) -> None:
    """Writes an SVG figure, the same bytes for the same numbers, whole or not at all."""
    import io

    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mnemoscope"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    write_whole(path, text.getvalue())


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output; plain text of any width when that is not a terminal."""
    table = Table()
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(title, highlight=False)
    console.print(table)
