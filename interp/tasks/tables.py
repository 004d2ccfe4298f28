"""Plain-text tables for error messages that compare prompts."""

from __future__ import annotations

from collections.abc import Sequence

# Rows and columns that a message shows.
MOST_ROWS = 12
MOST_COLUMNS = 4


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a header, in aligned columns.

    >>> print(table(["pos", "row 0"], [["0", "a"], ["10", "b"]]))
    pos | row 0
    0   | a
    10  | b
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    text = (" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip(" |") for line in text)


def token_table(titles: Sequence[str], prompts: Sequence[Sequence[str]]) -> str:
    """Return the tokens of prompts side by side, around the first position where they differ."""
    longest = max(map(len, prompts))
    part = next((p for p in range(longest) if len({_cell(tokens, p) for tokens in prompts}) > 1), 0)
    low = max(0, part - 3)
    high = min(longest, low + MOST_ROWS)
    rows = [
        [str(pos), *(_cell(tokens, pos) for tokens in prompts), "<- they differ from here" if pos == part else ""]
        for pos in range(low, high)
    ]
    rows += [["...", *("" for _ in prompts), ""]] if high < longest else []
    rows.append(["count", *(str(len(tokens)) for tokens in prompts), ""])
    return table(["pos", *titles, ""], rows)


def _cell(tokens: Sequence[str], pos: int) -> str:
    return repr(tokens[pos]) if pos < len(tokens) else ""
