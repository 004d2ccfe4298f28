"""The shipped verdicts on lists and recall: experiments/results/lists, one folder per model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.support.reading import read_result

# The arms that decide the addresses, in the order of tables.
ARMS = ("label at list", "label at query", "order", "position")
LISTS = Path(__file__).parent.parent / "results" / "lists"


def read_list_verdicts(folder: Path = LISTS) -> list[dict[str, Any]]:
    """Return all verdicts on lists and recall in a folder and its subfolders, by path.

    Raises `ValueError` for a file that cannot be read.
    """
    return [read_result(path) for path in sorted(folder.glob("*/verdict-*.json"))]


def interval_text(value: Mapping[str, float]) -> str:
    """Return a stored value with its interval."""
    return f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
