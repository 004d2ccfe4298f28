"""Which code, libraries and machine made a result?"""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "numpy", "accelerate", "transformer-lens")


def provenance_record(**more: object) -> dict:
    """Versions, date, commit and command; `more` is added as it is. Never a path or a host's name."""
    versions = {"python": platform.python_version(), "mnemoscope": _version("mnemoscope")}
    versions |= {name: _version(name) for name in LIBRARIES}
    return {
        "command": " ".join(["mnemoscope", *(Path(a).name if a.startswith("/") else a for a in sys.argv[1:])]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "versions": versions,
        **more,
    }


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
