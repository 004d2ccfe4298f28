"""The lines of metrics.jsonl: mean losses since the last line, and current accuracies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.support.writing import naming, write_whole


def add_line(metrics: Path, step: int, lr: float, sums: Mapping[str, Sequence[Any]], state: dict) -> None:
    """Append a line to the metrics: mean losses since the last line, and the current accuracies.

    Losses are numbers, or tensors that a device is still computing.
    """
    line = {"step": step, "lr": lr, **{f"loss_{k}": sum(map(float, v)) / len(v) for k, v in sums.items()}}
    line |= {f"accuracy_{k}": a for k, a in state["accuracy"].items()}
    line["seconds"] = round(state["seconds"], 1)
    with naming(metrics), metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a checkpoint must never be newer than the lines before it


def forget_after(metrics: Path, step: int, digest: str | None) -> None:
    """Drop the lines that a killed process wrote after its last checkpoint.

    Raises `ValueError` where those before it are not the ones that the checkpoint was written with.
    """
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.exists() else []
    complete = [line for line in lines if line.endswith("\n")]
    try:
        kept = [line for line in complete if json.loads(line)["step"] <= step]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{metrics} has a line that is not a record of training: {error!r}") from error
    if digest is not None and digest_of("".join(kept).encode()) != digest:
        raise ValueError(f"{metrics} is damaged: its digest is another; remove {metrics.parent}")
    write_whole(metrics, "".join(kept))


def last_step(metrics: Path) -> int | None:
    """Return the step of the last complete line; None where there is none, or where another process has moved it."""
    try:
        *lines, _ = metrics.read_bytes().split(b"\n")
        return json.loads(lines[-1])["step"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def digest_of(data: bytes) -> str:
    """Return the digest of the file's lines, as a checkpoint holds it."""
    return hashlib.sha256(data).hexdigest()
