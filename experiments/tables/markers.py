"""Markers in the READMEs, where numbers computed from result files are written into the prose.

A number in a document is followed by a marker, `.971<!--=aligned-60.0-->`: an entry of `NUMBERS` and the index of the
value in it. `python -m experiments.tables` writes the number again; the prose around it is free to change.
"""

from __future__ import annotations

import re
from functools import cache

from experiments.tables.numbers import NUMBERS

MARKER = re.compile(r"(?P<old>[-+]?[\d,]*\.?\d+|-?\?)<!--=(?P<name>[\w-]+)\.(?P<index>\d+)-->")


def printed(value: float, digits: int) -> str:
    """Return a number as the READMEs print it: `.867`, `1.000`, `-.00`."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")


def with_numbers(text: str) -> str:
    """Return a document's text with the number before each marker written again.

    Raises `ValueError` for a marker whose name or index does not exist.
    """

    def written(match: re.Match) -> str:
        name, index = match["name"], int(match["index"])
        if name not in NUMBERS or index >= len(values_of(name)):
            raise ValueError(f"the marker {match[0]} names no number in experiments/tables/numbers.py")
        return f"{values_of(name)[index]}<!--={name}.{index}-->"

    return MARKER.sub(written, text)


@cache
def values_of(name: str) -> tuple[str, ...]:
    """Return the values of an entry as printed."""
    digits, compute = NUMBERS[name]
    return tuple(printed(value, digits) for value in compute())
