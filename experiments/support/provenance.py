"""Which code, libraries and machine made a result, and are they those of here?"""

from __future__ import annotations

import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "numpy", "accelerate", "transformer-lens")
# Files of other versions that a line names; of more of them it has the number.
NAMED = 3


class OtherVersions(UserWarning):
    """A file was made by other versions than those that read it: its numbers may not be found again."""


# What has been read in the block of `saying_versions`, by the words that say how versions differ.
_read: ContextVar[dict[str, list[str]] | None] = ContextVar("files of other versions", default=None)


def provenance_record(**more: object) -> dict:
    """Versions, date, commit and command; `more` is added as it is. Never a path or a host's name."""
    return {
        "command": " ".join(["mnemoscope", *(Path(a).name if a.startswith("/") else a for a in sys.argv[1:])]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "versions": versions_here(),
        **more,
    }


def versions_here() -> dict[str, str | None]:
    """The versions of Python, of this package and of the libraries whose numbers these are."""
    versions = {"python": platform.python_version(), "mnemoscope": _version("mnemoscope")}
    return versions | {name: _version(name) for name in LIBRARIES}


def other_versions(made: object) -> str:
    """How the versions of a provenance record differ from those of here; "" where they do not.

    Builds of one release (2.13.0+cpu, 2.13.0+cu130) count as one version, and Python's is not compared.

    >>> other_versions({"versions": {"torch": "1.0", ...}})
    'torch 1.0 (here 2.13.0)'
    """
    from interp.tasks.limits import shown  # which imports torch, and the command line's help needs none

    versions = made.get("versions") if isinstance(made, dict) else None
    if not isinstance(versions, dict):
        return "versions that it does not name"
    differ = []
    for name in ("mnemoscope", *LIBRARIES):
        there, here = versions.get(name), _version(name)
        if _release(there) != _release(here):
            differ.append(f"{name} {there if isinstance(there, str) else shown(there)} (here {here})")
    return ", ".join(differ)


def say_versions(where: str, made: object) -> None:
    """Says so where a file was made by other versions: in one line with others inside `saying_versions`, else as a
    warning, `OtherVersions`."""
    if not (words := other_versions(made)):
        return
    if (read := _read.get()) is None:
        warnings.warn(f"{where} was made with {words}", OtherVersions, stacklevel=3)
    elif where not in read.setdefault(words, []):
        read[words].append(where)


@contextmanager
def saying_versions() -> Iterator[None]:
    """When the block ends, one line on standard error says which files that it read were made by other versions."""
    read: dict[str, list[str]] = {}
    token = _read.set(read)
    try:
        yield
    finally:
        _read.reset(token)
        parts = []
        for words, files in read.items():
            more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
            parts.append(f"{', '.join(files[:NAMED])}{more} with {words}")
        if parts:
            print(f"made by other versions: {'; '.join(parts)}", file=sys.stderr)


def _release(found: object) -> object:
    """A version without its build."""
    return found.partition("+")[0] if isinstance(found, str) else found


@cache
def code_digest() -> str:
    """A name for the source of the packages as it is on disk, the same for the same code; with or without git."""
    import hashlib

    root, found = Path(__file__).parent.parent.parent, hashlib.sha256()
    for package in ("interp", "probes", "experiments"):
        for path in sorted((root / package).rglob("*.py")):
            found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this source tree, marked when it has uncommitted changes; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")
