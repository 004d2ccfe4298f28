"""Which heads do what? A table of statistics to sort and to filter, that is a table without script, too."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from interp.views.colours import STOPS, hexed
from interp.views.grid import in_script
from interp.views.still import FAINT, FONT, INK, LETTER
from interp.views.view import View

# Rows of the still picture, and the most kinds of a text for which there is a choice.
STILL_ROWS, MOST_KINDS = 16, 12
CELL_WIDTH, LINE = 74, 19


@dataclass(frozen=True, eq=False)
class _Table:
    """Columns of text, columns of numbers, and rows of both; NaN where nothing was measured."""

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...]

    @property
    def whole(self) -> list[bool]:
        """Which columns hold whole numbers only."""
        return [all(math.isnan(n[k]) or n[k].is_integer() for _, n in self.rows) for k in range(len(self.numbers))]


def head_table(table: Any, sort: str = "", title: str = "Where each head looks") -> View:
    """A row for each head (and role), a column for each statistic, the largest of column `sort` first.

    `table` is a data frame or an iterable of mappings. With columns `statistic` and `value` it is a long table, such
    as `HeadStatistics` gives, and gets a column for each statistic; `layer` and `head` become one name, "L1H4".
    Raises `ValueError` for no rows, for a table without numbers and for an unknown column.

    >>> head_table([{"head": "L0H1", "on labels": 0.9}, {"head": "L0H0", "on labels": 0.1}]).alt
    'Where each head looks. Table of 2 rows, sorted by on labels; first: L0H1 0.900; L0H0 0.100.'
    """
    found = _shaped(table.to_dict("records") if hasattr(table, "to_dict") else list(table))
    sort = sort or found.numbers[0]
    if sort not in found.numbers:
        raise ValueError(f"no column {sort!r}; columns of numbers are {', '.join(found.numbers)}")
    at = found.numbers.index(sort)
    rows = sorted(found.rows, key=lambda row: (math.isnan(row[1][at]), -row[1][at] if row[1][at] == row[1][at] else 0))
    found = _Table(found.texts, found.numbers, tuple(rows))
    said = [f"{' '.join(texts)} {_digits(numbers[at], found.whole[at])}" for texts, numbers in rows[:3]]
    alt = f"{title}. Table of {len(rows)} rows, sorted by {_words(sort)}; first: {'; '.join(said)}."
    return View(title, alt, _still(found, sort, title).encode(), _live(found, sort, title), _bundle())


def _shaped(rows: list) -> _Table:
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
        tuple(texts),
        tuple(numbers),
        tuple(
            (tuple(str(row[k]) for k in texts), tuple(math.nan if row[k] is None else float(row[k]) for k in numbers))
            for row in rows
        ),
    )


def _wide(rows: Iterable[Mapping]) -> list[dict]:
    """One row for all statistics of one head and role."""
    found: dict[tuple, dict] = {}
    statistics = dict.fromkeys(str(row["statistic"]) for row in rows)
    for row in rows:
        keys = {k: v for k, v in row.items() if k not in ("statistic", "value", "n")}
        mine = found.setdefault(tuple(keys.values()), {**keys, **dict.fromkeys(statistics, math.nan)})
        mine[str(row["statistic"])] = row["value"]
    return list(found.values())


def _is_number(value: object) -> bool:
    return not isinstance(value, str | bool) and hasattr(value, "__float__")


def _live(table: _Table, sort: str, title: str) -> str:
    """The table, and controls that are hidden until script runs."""
    choices, whole = "", table.whole
    for k, name in enumerate(table.texts):
        kinds = list(dict.fromkeys(texts[k] for texts, _ in table.rows))
        if 1 < len(kinds) <= MOST_KINDS:
            options = "".join(f"<option>{escape(kind)}</option>" for kind in kinds)
            choices += f'<label>{escape(_words(name))} <select data-column="{k}" autocomplete="off">'
            choices += f'<option value="">all</option>{options}</select></label>'

    def head(name: str, kind: str) -> str:
        order = ' aria-sort="descending"' if name == sort else ""
        return f'<th scope="col" class="{kind}"{order}>{escape(_words(name))}</th>'

    heads = "".join([head(name, "text") for name in table.texts] + [head(name, "number") for name in table.numbers])
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(t)}</th>' if k == 0 else f"<td>{escape(t)}</td>" for k, t in enumerate(texts)
        )
        + "".join(f"<td>{_digits(n, w)}</td>" for n, w in zip(numbers, whole, strict=True))
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
    """The first rows as an SVG; the darker a number's cell, the larger it is in its column's share of the top."""
    rows, whole, names = table.rows[:STILL_ROWS], table.whole, [textwrap.wrap(_words(n), 11) for n in table.numbers]
    texts = [max([len(_words(n)), *(len(t[k]) for t, _ in rows)]) * LETTER + 14 for k, n in enumerate(table.texts)]
    left, top = 12 + sum(texts), 34 + 13 * max(map(len, names))
    width = int(left + CELL_WIDTH * len(names) + 12)
    height = top + LINE * len(rows) + 40
    tops = [max([abs(n[k]) for _, n in table.rows if n[k] == n[k]], default=0) or 1.0 for k in range(len(names))]
    parts = [_text(12, 20, title, "start", 13, "600")]
    for k, name in enumerate(table.texts):
        parts.append(_text(12 + sum(texts[:k]), top - 6, _words(name), "start", 11, "400", FAINT))
    for k, lines in enumerate(names):
        weight = "700" if table.numbers[k] == sort else "400"
        for j, line in enumerate(reversed(lines)):
            x = left + CELL_WIDTH * (k + 1) - 6
            parts.append(_text(x, top - 6 - 13 * j, line, "end", 11, weight, INK if weight == "700" else FAINT))
    for j, (words, numbers) in enumerate(rows):
        y = top + LINE * j
        for k, word in enumerate(words):
            parts.append(_text(12 + sum(texts[:k]), y + 13, word))
        for k, value in enumerate(numbers):
            share = 0.0 if math.isnan(value) else abs(value) / tops[k]
            colour = hexed(STOPS["sequential"][:3], share * 0.8)
            x = left + CELL_WIDTH * k
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{CELL_WIDTH - 1}" height="{LINE - 1}" fill="{colour}"/>')
            parts.append(_text(x + CELL_WIDTH - 6, y + 13, _digits(value, whole[k]), "end"))
    note = f"The {len(rows)} rows of {len(table.rows)} with the largest {_words(sort)}; shades are by column."
    parts.append(_text(12, height - 16, note, "start", 11, "400", FAINT))
    width = max(width, int(len(note) * LETTER) + 24, int(len(title) * 7.4) + 24)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'{FONT} role="img" aria-label="{escape(title, quote=True)}">\n'
        '<rect width="100%" height="100%" rx="6" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(
    x: float, y: float, words: str, anchor: str = "start", size: int = 11, weight: str = "400", colour: str = INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _digits(value: float, whole: bool = False) -> str:
    """Three decimals, so that a column can be compared by eye; none where a column has whole numbers only."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if whole else f"{value:.3f}" if abs(value) < 1e4 else f"{value:.4g}"


@cache
def _bundle() -> str:
    script, style = (Path(__file__).with_name(f"tables.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return script.replace('"STYLE"', in_script(style))
