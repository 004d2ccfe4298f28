"""Record which code, libraries and device made a result, and warn where a file was made by other versions."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from experiments.support.console import silence_libraries, warn

LIBRARIES = ("torch", "transformers", "numpy", "accelerate", "transformer-lens")
# Options whose values are texts, which are recorded whole. Absolute paths elsewhere become their last part.
TEXTS = ("--clean", "--corrupted", "--answer", "--other", "--prompt")
# Most files of other versions that one line names; it counts the rest.
MOST_NAMED = 3


class OtherVersions(UserWarning):
    """A file was made by other versions than those that read it: its numbers may not be reproducible."""


def silence_worker() -> None:
    """Silence a worker process: the libraries, and `OtherVersions`, which the process that sends the work reports."""
    silence_libraries()
    warnings.simplefilter("ignore", OtherVersions)


# Files read in the block of `reporting_versions`, by the text that says how their versions differ.
_read: ContextVar[dict[str, list[str]] | None] = ContextVar("files of other versions", default=None)


def provenance_record(**more: object) -> dict:
    """Return versions, date, commit and command, and `more` unchanged.

    It holds no host name, and absolute paths only inside texts that a model read.
    """
    return {
        "command": shlex.join(["mnemoscope", *_without_paths(sys.argv[1:])]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "versions": versions_here(),
        **more,
    }


def _without_paths(arguments: Sequence[str]) -> list[str]:
    """Return a command line whose absolute paths are their last part, also in --out=PATH; values of `TEXTS` stay.

    >>> _without_paths(["patch", "/home/a/m", "--answer", "/etc holds", "--out=/home/a/b"])
    ['patch', 'm', '--answer', '/etc holds', '--out=b']
    """
    words, option = [], ""
    for word in arguments:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            words.append(option + equals + (value if option in TEXTS else _last_part(value)))
            option = "" if equals else option
        else:
            words.append(word if option in TEXTS else _last_part(word))
            option = "" if option == "--prompt" else option  # one text; a run's name may follow
    return words


def _last_part(word: str) -> str:
    return (Path(word).name or word) if word.startswith("/") or Path(word).is_absolute() else word


def versions_here() -> dict[str, str | None]:
    """Return the versions of Python, this package and the libraries that compute the numbers."""
    versions = {"python": platform.python_version(), "mnemoscope": version_of("mnemoscope")}
    return versions | {name: version_of(name) for name in LIBRARIES}


def other_versions(made: object) -> str:
    """Return how the versions of a provenance record differ from the installed ones; "" where they do not.

    Builds of one release (2.13.0+cpu, 2.13.0+cu130) count as one version. Python's version is not compared.

    >>> other_versions({"versions": {"torch": "1.0", ...}})
    'torch 1.0 (here 2.13.0)'
    """
    from interp.tasks.limits import shown  # imports torch, which --help does not need

    versions = made.get("versions") if isinstance(made, dict) else None
    if not isinstance(versions, dict):
        return "unknown versions"
    differ = []
    for name in ("mnemoscope", *LIBRARIES):
        theirs, ours = versions.get(name), version_of(name)
        if _release(theirs) != _release(ours):
            differ.append(f"{name} {theirs if isinstance(theirs, str) else shown(theirs)} (here {ours})")
    return ", ".join(differ)


def warn_versions(file: str, made: object) -> None:
    """Report a file that was made by other versions.

    Inside `reporting_versions` all such files share one line; elsewhere each is a warning, `OtherVersions`.
    """
    if not (difference := other_versions(made)):
        return
    if (read := _read.get()) is None:
        warnings.warn(f"{file} was made with {difference}", OtherVersions, stacklevel=3)
    elif file not in read.setdefault(difference, []):
        read[difference].append(file)


@contextmanager
def reporting_versions() -> Iterator[None]:
    """When the block ends, print one line on standard error that names the files made by other versions."""
    read: dict[str, list[str]] = {}
    token = _read.set(read)
    try:
        yield
    finally:
        _read.reset(token)
        parts = []
        for difference, files in read.items():
            more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
            parts.append(f"{', '.join(files[:MOST_NAMED])}{more} with {difference}")
        if parts:
            warn(f"made by other versions: {'; '.join(parts)}")


def _release(version: object) -> object:
    """Return a version without its build."""
    return version.partition("+")[0] if isinstance(version, str) else version


@cache
def code_digest() -> str:
    """Return a digest of the source of all packages on disk; git is not needed."""
    import hashlib

    root, digest = Path(__file__).parent.parent.parent, hashlib.sha256()
    for package in ("interp", "probes", "experiments"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def version_of(name: str) -> str | None:
    """Return the version of an installed distribution; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of this source tree, with "+" where tracked files are changed; None outside a checkout."""
    # Without this option `git status` writes .git/index.lock, which can make a user's own git command fail.
    git = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent)]
    status = ["status", "--porcelain", "--untracked-files=no"]
    try:
        head, changes = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "--short", "HEAD"], status)
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")
