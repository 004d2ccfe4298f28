"""Folders of results, resumable work, and the files that hold results."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from experiments.support.console import warn
from experiments.support.option_checks import file_in
from experiments.support.other_tokens import stand_ins
from experiments.support.provenance import code_digest, provenance_record, versions_here
from interp.models.names import OUT
from interp.support.digests import digest_of
from interp.support.writing import (
    AtWork,
    alone_in,
    empty_work,
    is_full,
    read_digested,
    write_digested,
    write_together,
    write_whole,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from interp.models import Run
    from probes.batteries import Recall
    from probes.evidence import Evidence

T = TypeVar("T")

RESULT_VERSION = 1


def result_folder(run: Run, out: Path | None, files: Sequence[str] = ()) -> Path:
    """Return the folder for a run's results, `out` or `mnemoscope-out/<run>`, checked to be writable.

    `files` are the names that will be written. Raises `ValueError` where one of them is a folder.
    """
    folder = writable_folder(usual_folder(run, out))
    check_files([folder / name for name in files])
    return folder


def usual_folder(run: Run, out: Path | None = None) -> Path:
    """Return the folder for a run's results, unchecked: `out` or `mnemoscope-out/<run>`."""
    return out or OUT / run.name


def check_files(paths: Sequence[Path]) -> None:
    """Raise `ValueError` before any work where a folder has the name of a result file."""
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} is a folder, and a result file of that name is to be written; move it")


def writable_folder(folder: Path) -> Path:
    """Check that a folder can be written to, or made, so that a bad path is an error before any work.

    Nothing is made: a command that fails later leaves no empty folder, and writing a file makes its folder. Raises
    `ValueError` when it cannot be written, and `OSError` where the disk is full.
    """
    if (file := file_in(folder)) is not None:
        raise ValueError(f"{folder} must be a folder; {file} is a file")
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):  # has no name: it leaves nothing behind and cannot clash
            pass
    except OSError as error:
        if is_full(error):
            raise
        raise ValueError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists. Raises `OSError` for a name that no folder can have."""
    for part in (folder, *folder.parents):
        with suppress(FileNotFoundError):
            part.lstat()
            return part
    return Path(folder.anchor or ".")


def json_target(json: str | None, run: Run, out: Path | None, files: Sequence[str]) -> Path | None:
    """Return the file that `--json FILE` names, checked before any work; None without one and for standard output.

    Raises `ValueError` for one of the `files` in `result_folder`, which it would replace.
    """
    if json in (None, "-"):
        return None
    target = Path(str(json))
    if target.resolve() in {(usual_folder(run, out) / name).resolve() for name in files}:
        raise ValueError(f"--json {json} is a file that this command writes itself; name another")
    check_files([target])
    writable_folder(target.parent)
    return target


def weights_of(run: Run) -> str:
    """Return a digest of a run's weights; results hold it, so that they can be matched to the weights."""
    digest = hashlib.sha256()
    for name, values in sorted(run.raw.named_parameters()):
        digest.update(name.encode() + values.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def device_and_dtype(run: Run) -> dict[str, str]:
    """Return the device and the precision that a run's model has, as results record them."""
    return {"device": str(run.raw.device), "dtype": str(run.raw.dtype).removeprefix("torch.")}


@contextmanager
def work_folder(folder: Path, run: Run, verb: str, options: object) -> Iterator[Path]:
    """Yield the hidden folder in `folder` that keeps unfinished work of a verb on a run.

    Other options, weights, labels, devices, code or library versions have a folder of their own. It is removed when
    the block ends without an error, with a `ValueError`, which the same command would meet again, or when it is empty.
    Folders of other code or versions, which cannot be resumed, are removed at the start. Raises `AtWork`, a
    `ValueError`, where another process does the same work.
    """
    vocabulary = None if run.vocabulary is None else run.vocabulary.to_json()
    about = [options, weights_of(run), run.source, vocabulary, device_and_dtype(run)]
    code = digest_of([versions_here(), code_digest()])[:8]
    for other in folder.glob(f".{verb}-*"):
        if not other.name.endswith(code):
            with suppress(AtWork, OSError), alone_in(other, patience=0):
                empty_work(other)
    with alone_in(folder / f".{verb}-{digest_of(about)[:12]}-{code}") as work:
        try:
            yield work
        except ValueError:
            empty_work(work)
            raise
        empty_work(work)


def load_or_make(path: Path, make: Callable[[], T], to_json: Callable[[T], object], from_json: Callable[[Any], T]) -> T:
    """Return a piece of unfinished work from its file, or make it and write the file.

    A file that is damaged, or that `from_json` does not accept, is made again.
    """
    if (kept := read_digested(path)) is not None:
        with suppress(ValueError, TypeError, LookupError, AttributeError):
            return from_json(json.loads(kept))
    made = make()
    write_digested(path, json.dumps(to_json(made)))
    return made


def resume_arms(work: Path) -> Recall:
    """Return the `recall` of a battery that keeps the evidence of each arm in a work folder."""
    from probes.serialization import evidence_from_json, evidence_to_json

    def recall(name: str, measure: Callable[[], Sequence[Evidence]]) -> Sequence[Evidence]:
        path = work / f"{re.sub('[^0-9A-Za-z]+', '-', name)}.json"
        return load_or_make(path, measure, evidence_to_json, evidence_from_json)

    return recall


def write_result(
    path: Path, run: Run, seed: int, data: dict, indent: int | None = 1, others: Sequence[tuple[Path, str | bytes]] = ()
) -> dict:
    """Write a result with the run, weights, seed, versions, device and command that made it; return what was written.

    Where other tokens stand for symbols of the task, "stand_ins" has them. `others` are files with the same numbers in
    other forms, a table or a figure. They are written together: the result is never beside older ones. Raises
    `ValueError` where a folder has the name of one of the files.
    """
    check_files([path, *(other for other, _ in others)])
    posed = None if run.format is None else str(run.format)
    result = {"version": RESULT_VERSION, "run": run.name, "format": posed, "seed": seed}
    if not run.record and (tokens := stand_ins(run)):
        result["stand_ins"] = tokens
    result |= {"weights": weights_of(run), "provenance": provenance_record(**device_and_dtype(run)), **data}
    write_together([*others, (path, json.dumps(result, indent=indent) + "\n")])
    return result


def save_figure(figure: Figure, path: Path, option: str = "--out") -> None:
    """Write an SVG figure as `replace_whole` does."""
    replace_whole(path, as_svg(figure), option)


def replace_whole(path: Path, content: str, option: str = "--out") -> None:
    """Write a page, a figure or a copy, atomically. Warn in one line where it replaces different content.

    `option` is the one that names another place; "" for none.
    """
    with suppress(OSError):  # what cannot be read may still be replaced
        if path.is_file() and path.read_bytes() != content.encode():
            warn(f"replacing {path}: its content differs" + (f"; another {option} keeps both" if option else ""))
    write_whole(path, content)


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG text; the same numbers give the same text."""
    from interp.views.figures import svg_of

    return svg_of(figure)


def as_parquet(table: DataFrame, index: bool | None = None) -> bytes:
    """Return a table as the bytes of a parquet file."""
    import io

    data = io.BytesIO()
    table.to_parquet(data, index=index)
    return data.getvalue()
