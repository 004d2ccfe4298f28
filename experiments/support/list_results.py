"""The shipped verdicts on lists and recall: experiments/results/lists, one folder per model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.support.reading import read_result
from probes.binding.trials import ALL_MOVED

# The arms of tables, in their order. The last one is `position_arm` where that was measured.
ARMS = ("label at list", "label at query", "order", "position")
LISTS = Path(__file__).parent.parent / "results" / "lists"


def read_list_verdicts(folder: Path = LISTS) -> list[dict[str, Any]]:
    """Return all verdicts on lists and recall in a folder and its subfolders, by path.

    Raises `ValueError` for a file that cannot be read.
    """
    return [read_result(path) for path in sorted(folder.glob("*/verdict-*.json"))]


def position_arm(shares: Mapping[str, Any]) -> str:
    """Return the arm of a stored verdict that decides on the position; older ones have the trade of two items only."""
    return ALL_MOVED if ALL_MOVED in shares else "position"


def interval_text(value: Mapping[str, float]) -> str:
    """Return a stored value with its interval."""
    return f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
