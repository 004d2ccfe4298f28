"""Judged cases of planted models, one file each, so that an interrupted calibration goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.support.jobs import Job, finished
from interp.support.digests import digest_of

# Key of a judged case: the digest of its other fields.
DIGEST = "digest"
# A case's file, and the function and arguments that judge it.
CaseJob = tuple[Path, Callable[..., dict], tuple]


def case_file(folder: Path, kind: str, name: str, *settings: int) -> Path:
    """Return the file of a case; its name holds everything that changes the case."""
    from probes.findings import MARGINS

    slug = "".join(c if c.isalnum() else "-" for c in name)
    return folder / "cases" / "-".join((kind, slug, *map(str, settings), f"{MARGINS.version}.json"))


def judge_missing(jobs: Sequence[CaseJob], workers: int) -> list[dict]:
    """Judge the cases that have no file, in processes, and return all cases in the order of the jobs.

    Raises `ValueError` for a file that is damaged or no case.
    """
    from experiments.support.progress import progress_bar
    from experiments.support.provenance import provenance_record
    from interp.support.writing import write_whole

    missing = {path.name: job for job in jobs if not (path := job[0]).exists()}
    with progress_bar(total=len(jobs), initial=len(jobs) - len(missing), unit="case") as bar:
        for job, result in finished((Job(name, work, args) for name, (_, work, args) in missing.items()), workers):
            record = {**result, "provenance": provenance_record()}
            write_whole(missing[job.name][0], json.dumps({**record, DIGEST: digest_of(record)}) + "\n")
            bar.set_description(job.name)
            bar.update()
    return [_read(path) for path, _, _ in jobs]


def _read(path: Path) -> dict:
    """Return a judged case, perhaps of an earlier command."""
    from experiments.support.provenance import warn_versions
    from interp.models import read_json

    case = read_json(path)
    if not isinstance(case, dict):
        raise ValueError(f"{path} is not a judged case; remove it")
    if DIGEST in case and case.pop(DIGEST) != digest_of(case):
        raise ValueError(f"{path} is damaged: its digest is another; remove it")
    warn_versions(f"{path.parent.name}/{path.name}", case.pop("provenance", None))
    return case
