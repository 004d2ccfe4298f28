"""Tables of head statistics, sortable and filterable where script runs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from interp.views.colours import FAINT, INK, STOPS, css_colour
from interp.views.grid import in_script
from interp.views.panel import array_of
from interp.views.svg import LETTER, document, text_element
from interp.views.view import View

# Rows of the still picture, and the most different texts of a column that has a filter.
STILL_ROWS, MOST_KINDS = 16, 12
CELL_WIDTH, LINE = 74, 19


@dataclass(frozen=True, eq=False)
class _Table:
    """Names of the text columns, names of the number columns, and rows of both; NaN for what was not measured."""

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...]

    @property
    def integer(self) -> list[bool]:
        """Which number columns hold integers only."""
        return [all(math.isnan(n[k]) or n[k].is_integer() for _, n in self.rows) for k in range(len(self.numbers))]


def head_table(table: Any, sort: str = "", title: str = "Where each head looks") -> View:
    """Return a table with a row per head (and role) and a column per statistic, the largest of column `sort` first.

    `table` is a data frame, an iterable of mappings, or a mapping from statistics' names to arrays `[layer head]`.
    A table with columns `statistic` and `value`, as `HeadStatistics` gives, gets a column per statistic. `layer` and
    `head` become one name, "L1H4". Raises `ValueError` for no rows, for a table without numbers and for an unknown
    column.

    >>> head_table([{"head": "L0H1", "on labels": 0.9}, {"head": "L0H0", "on labels": 0.1}]).alt
    'Where each head looks. Table of 2 rows, sorted by on labels; first: L0H1 0.900; L0H0 0.100.'
    """
    if isinstance(table, Mapping):
        table = _rows_of(table)
    shaped = _shaped(table.to_dict("records") if hasattr(table, "to_dict") else list(table))
    sort = sort or shaped.numbers[0]
    if sort not in shaped.numbers:
        raise ValueError(f"no column {sort!r}; columns of numbers are {', '.join(shaped.numbers)}")
    at = shaped.numbers.index(sort)
    rows = sorted(shaped.rows, key=lambda row: (math.isnan(row[1][at]), -row[1][at] if row[1][at] == row[1][at] else 0))
    shaped = _Table(shaped.texts, shaped.numbers, tuple(rows))
    top = [f"{' '.join(texts)} {_digits(numbers[at], shaped.integer[at])}" for texts, numbers in rows[:3]]
    alt = f"{title}. Table of {len(rows)} rows, sorted by {_spaced(sort)}; first: {'; '.join(top)}."
    return View(title, alt, _still(shaped, sort, title).encode(), _live(shaped, sort, title), _bundle())


def _rows_of(statistics: Mapping[str, Any]) -> list[dict]:
    """Return a row per head from arrays `[layer head]`."""
    arrays = {str(name): array_of(values) for name, values in statistics.items()}
    shapes = {values.shape for values in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"statistics must be arrays [layer head] of one shape; got {sorted(shapes)}")
    cells = np.ndindex(*next(iter(shapes)))
    return [{"head": f"L{i}H{j}", **{name: float(v[i, j]) for name, v in arrays.items()}} for i, j in cells]


def _shaped(rows: list) -> _Table:
    """Return the rows of mappings as text columns and number columns."""
    if not rows:
        raise ValueError("no rows to show")
    rows = _wide(rows) if {"statistic", "value"} <= set(rows[0]) else [dict(row) for row in rows]
    if {"layer", "head"} <= set(rows[0]):
        rows = [
            {"head": f"L{r['layer']}H{r['head']}", **{k: v for k, v in r.items() if k not in ("layer", "head")}}
            for r in rows
        ]
    keys = list(rows[0])
    if any(list(row) != keys for row in rows):
        raise ValueError(f"rows differ in their columns; the first has {', '.join(keys)}")
    numbers = [k for k in keys if all(v is None or _is_number(v) for v in (row[k] for row in rows))]
    if not numbers:
        raise ValueError(f"no column of numbers among {', '.join(keys)}")
    texts = [k for k in keys if k not in numbers]
    return _Table(
        texts=tuple(texts),
        numbers=tuple(numbers),
        rows=tuple(
            (tuple(str(row[k]) for k in texts), tuple(math.nan if row[k] is None else float(row[k]) for k in numbers))
            for row in rows
        ),
    )


def _wide(rows: Iterable[Mapping]) -> list[dict]:
    """Return one row for all statistics of one head and role."""
    wide: dict[tuple, dict] = {}
    statistics = dict.fromkeys(str(row["statistic"]) for row in rows)
    for row in rows:
        keys = {k: v for k, v in row.items() if k not in ("statistic", "value", "n")}
        shared = wide.setdefault(tuple(keys.values()), {**keys, **dict.fromkeys(statistics, math.nan)})
        shared[str(row["statistic"])] = row["value"]
    return list(wide.values())


def _is_number(value: object) -> bool:
    return not isinstance(value, str | bool) and hasattr(value, "__float__")


def _live(table: _Table, sort: str, title: str) -> str:
    """Return the table, with controls that are hidden until script runs."""
    choices, integer = "", table.integer
    for k, name in enumerate(table.texts):
        kinds = list(dict.fromkeys(texts[k] for texts, _ in table.rows))
        if 1 < len(kinds) <= MOST_KINDS:
            options = "".join(f"<option>{escape(kind)}</option>" for kind in kinds)
            choices += f'<label>{escape(_spaced(name))} <select data-column="{k}" autocomplete="off">'
            choices += f'<option value="">all</option>{options}</select></label>'

    def head(name: str, kind: str) -> str:
        order = ' aria-sort="descending"' if name == sort else ""
        return f'<th scope="col" class="{kind}"{order}>{escape(_spaced(name))}</th>'

    # The name of each cell's column, for pages that stack the cells on a narrow screen.
    labels = [f' data-label="{escape(_spaced(name), quote=True)}"' for name in (*table.texts, *table.numbers)]
    heads = "".join([head(name, "text") for name in table.texts] + [head(name, "number") for name in table.numbers])
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(t)}</th>' if k == 0 else f"<td{labels[k]}>{escape(t)}</td>"
            for k, t in enumerate(texts)
        )
        + "".join(
            f"<td{label}>{_digits(n, i)}</td>"
            for label, n, i in zip(labels[len(texts) :], numbers, integer, strict=True)
        )
        + "</tr>\n"
        for texts, numbers in table.rows
    )
    return (
        f'<div class="mnemo-table" data-ready="false"><div class="controls" hidden>{choices}'
        '<label>find <input type="search" autocomplete="off"></label><span role="status"></span></div>\n'
        f'<div class="frame" tabindex="0" role="region" aria-label="{escape(title, quote=True)}"><table>'
        f"<caption>{escape(title)}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
        "</div><script>window.mnemoTable?.()</script>"
    )


def _still(table: _Table, sort: str, title: str) -> str:
    """Return the first rows as SVG. A number's cell is darker the larger it is within its column."""
    rows, integer = table.rows[:STILL_ROWS], table.integer
    names = [textwrap.wrap(_spaced(name), 11) for name in table.numbers]
    widths = [max([len(_spaced(n)), *(len(t[k]) for t, _ in rows)]) * LETTER + 14 for k, n in enumerate(table.texts)]
    left, top = 12 + sum(widths), 34 + 13 * max(map(len, names))
    height = top + LINE * len(rows) + 40
    most = [max([abs(n[k]) for _, n in table.rows if n[k] == n[k]], default=0) or 1.0 for k in range(len(names))]
    parts = [text_element(12, 20, title, size=13, weight="600")]
    for k, name in enumerate(table.texts):
        parts.append(text_element(12 + sum(widths[:k]), top - 6, _spaced(name), colour=FAINT))
    for k, lines in enumerate(names):
        bold = table.numbers[k] == sort
        for j, line in enumerate(reversed(lines)):
            x, look = left + CELL_WIDTH * (k + 1) - 6, ("700", INK) if bold else ("400", FAINT)
            parts.append(text_element(x, top - 6 - 13 * j, line, "end", weight=look[0], colour=look[1]))
    for j, (texts, numbers) in enumerate(rows):
        y = top + LINE * j
        for k, text in enumerate(texts):
            parts.append(text_element(12 + sum(widths[:k]), y + 13, text))
        for k, value in enumerate(numbers):
            share = 0.0 if math.isnan(value) else abs(value) / most[k]
            colour, x = css_colour(STOPS["sequential"][:3], share * 0.8), left + CELL_WIDTH * k
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{CELL_WIDTH - 1}" height="{LINE - 1}" fill="{colour}"/>')
            parts.append(text_element(x + CELL_WIDTH - 6, y + 13, _digits(value, integer[k]), "end"))
    note = f"The {len(rows)} rows of {len(table.rows)} with the largest {_spaced(sort)}; shades are by column."
    parts.append(text_element(12, height - 16, note, colour=FAINT))
    width = max(int(left + CELL_WIDTH * len(names) + 12), int(len(note) * LETTER) + 24, int(len(title) * 7.4) + 24)
    return document(width, height, title, parts)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _digits(value: float, integer: bool = False) -> str:
    """Return three decimals, so that a column can be compared by eye; none in a column of integers."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if integer else f"{value:.3f}" if abs(value) < 1e4 else f"{value:.4g}"


@cache
def _bundle() -> str:
    script, style = (Path(__file__).with_name(f"tables.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return script.replace('"STYLE"', in_script(style))
