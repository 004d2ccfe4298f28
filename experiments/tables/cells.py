"""Markdown of tables, intervals and booleans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(map(str, cells))} |" for cells in rows]
    return "\n".join(lines) + "\n"


def interval(value: float | None, bounds: list[float] | None) -> str:
    """Return a value with its interval; "" if there is none."""
    return "" if value is None or bounds is None else f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def yes(met: bool | None) -> str:
    """Return whether a requirement is met, as a cell; "" for None."""
    return {None: "", True: "yes", False: "**no**"}[met]
