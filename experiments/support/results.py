"""Where do results go, and how are they shown?"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table

from experiments.support.names import OUT
from experiments.support.provenance import code_digest, provenance_record, versions_here
from interp.models import Run
from interp.support.writing import LOCK, alone_in, is_full, write_together, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from probes.batteries import Recall
    from probes.evidence import Evidence

T = TypeVar("T")

RESULT_VERSION = 1
MOST_WORKERS = 1024


def result_folder(run: Run, out: Path | None) -> Path:
    """The folder for a run's results: `out`, or `mnemoscope-out/<run>`."""
    return writable_folder(out or OUT / run.name)


def writable_folder(folder: Path) -> Path:
    """Makes a folder and proves that it can be written, so that a bad path is an error before any work.

    Raises `ValueError` when it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # without a name: nothing is left of it, and none is in another's way
            pass
    except OSError as error:
        if is_full(error):
            raise
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


@contextmanager
def work_folder(folder: Path, run: Run, what: str, options: object) -> Iterator[Path]:
    """Where unfinished work on a run is kept, in its folder of results: another one for other options, weights, labels,
    code or versions of the libraries.

    It is removed when the block ends well: only then is nothing lost with it. Raises `ValueError` where another
    process does the same work.
    """
    about = [options, weights_of(run), run.source, run.vocabulary.to_json(), versions_here(), code_digest()]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    with alone_in(folder / f".{what}-{key}") as work:
        yield work
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:  # which goes last, with the folder
                path.unlink()


def kept(path: Path, make: Callable[[], T], to_json: Callable[[T], object], from_json: Callable[[Any], T]) -> T:
    """What an earlier process left at a path of unfinished work; or what `make` gives now, written there whole.

    A file that was damaged since, or that `from_json` does not know, is made anew.
    """
    from interp.models import read_json

    if path.is_file():
        with suppress(ValueError, TypeError, LookupError, AttributeError):
            return from_json(read_json(path))
    found = make()
    write_whole(path, json.dumps(to_json(found)))
    return found


def recalling(work: Path) -> Recall:
    """Keeps each arm of a battery in a folder of unfinished work, and takes from there what an earlier process did."""
    from probes.serialization import evidence_from_json, evidence_to_json

    def recall(name: str, measure: Callable[[], Sequence[Evidence]]) -> Sequence[Evidence]:
        path = work / f"{re.sub('[^0-9A-Za-z]+', '-', name)}.json"
        return kept(path, measure, evidence_to_json, evidence_from_json)

    return recall


def write_result(
    path: Path, run: Run, seed: int, data: dict, indent: int | None = 1, others: Sequence[tuple[Path, str | bytes]] = ()
) -> dict:
    """Writes a result with the run, its weights, seed, versions and command that made it; returns what was written.

    `others` are files that say the same in other ways, a table or a figure; the result is never beside older ones.
    """
    whole = {"version": RESULT_VERSION, "run": run.name, "format": str(run.format), "seed": seed}
    whole |= {"weights": weights_of(run), "provenance": provenance_record(), **data}
    write_together([*others, (path, json.dumps(whole, indent=indent) + "\n")])
    return whole


def save_figure(figure: Figure, path: Path) -> None:
    """Writes an SVG figure, whole or not at all."""
    write_whole(path, as_svg(figure))


def as_svg(figure: Figure) -> str:
    """A figure as the text of its file, the same for the same numbers."""
    import io

    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mnemoscope"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def as_parquet(table: DataFrame, index: bool | None = None) -> bytes:
    """A table as the bytes of its file."""
    import io

    data = io.BytesIO()
    table.to_parquet(data, index=index)
    return data.getvalue()


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
