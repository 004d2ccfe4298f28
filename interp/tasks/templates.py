"""Build prompts from a template, with the token positions that each placeholder covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any, Literal, overload

from transformers import PreTrainedTokenizerBase

from interp.tasks.encoding import Bos, Encoded, chosen_bos, encode, tokenizer_of
from interp.tasks.inputs import Prompts, token_text
from interp.tasks.limits import shown
from interp.tasks.tables import MOST_ROWS, table
from interp.tasks.texts import build

Spans = dict[str, tuple[int, ...]]


@overload
def template(
    text: str,
    rows: Sequence[Mapping[str, str]],
    source: Any = None,
    *,
    bos: Bos = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
    group: Literal[False] = False,
) -> Prompts: ...


@overload
def template(
    text: str,
    rows: Sequence[Mapping[str, str]],
    source: Any = None,
    *,
    bos: Bos = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
    group: Literal[True],
) -> tuple[Prompts, ...]: ...


def template(
    text: str,
    rows: Sequence[Mapping[str, str]],
    source: Any = None,
    *,
    bos: Bos = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
    group: bool = False,
) -> Prompts | tuple[Prompts, ...]:
    """Fill a template such as "{a} and {b} met. {b} left." with each row, and record what each placeholder covers.

    `spans["b"]` has the positions of all occurrences of `{b}`, `spans["b.0"]` and `spans["b.1"]` those of each.
    A placeholder that occurs once has one span, its name.

    Args:
        text: the template; literal braces are doubled.
        rows: one dictionary of texts per prompt.
        source: a run, a bridge or a tokenizer.
        bos: as in `prompts`.
        tokenizer: used instead of the source's; it must be fast, because spans need its offsets.
        group: if True, return one `Prompts` per layout, in the order of the rows, instead of refusing.

    Raises `ValueError` with a table if spans differ in their tokens between rows, or if a token
    covers text both inside and outside a span.
    """
    own = tokenizer_of(source, tokenizer)
    chosen = chosen_bos(source, bos)
    parts = _parts(text)
    _check_rows(parts, rows)
    groups: dict[tuple, list[tuple[int, Encoded]]] = {}
    layouts: list[tuple[int, Spans]] = []
    for k, row in enumerate(rows):
        filled, places = _fill(parts, row)
        encoded = encode(own, filled, chosen, offsets=True)
        spans = _positions(encoded, places, filled, k)
        layouts.append((len(encoded.ids), spans))
        groups.setdefault((len(encoded.ids), tuple(spans.items())), []).append((k, encoded))
    if group:
        return tuple(build([e for _, e in members], dict(key[1]), own) for key, members in groups.items())
    if len(groups) > 1:
        firsts = [members[0] for members in groups.values()]
        _refuse([(k, encoded, layouts[k][1]) for k, encoded in firsts], own)
    return build([e for members in groups.values() for _, e in members], layouts[0][1], own)


def _parts(text: str) -> list[tuple[str, str | None]]:
    """Return the template as pairs of literal text and the placeholder that follows it."""
    try:
        parsed = list(Formatter().parse(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{shown(text)} is not a template: {error}") from None
    names = [name for _, name, _, _ in parsed if name is not None]
    if not names:
        raise ValueError("the template has no placeholder such as {a}")
    for _, name, spec, conversion in parsed:
        if name is not None and (not name.isidentifier() or spec or conversion):
            raise ValueError(f"a placeholder must be a plain name such as {{a}}; got {{{name}}}")
    return [(literal, name) for literal, name, _, _ in parsed]


def _check_rows(parts: list[tuple[str, str | None]], rows: Sequence[Mapping[str, str]]) -> None:
    names = {name for _, name in parts if name is not None}
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ValueError(f"rows must be a list of dictionaries, one per prompt; got {type(rows).__name__}")
    if not rows:
        raise ValueError("rows is empty; give one dictionary per prompt")
    for k, row in enumerate(rows):
        if not isinstance(row, Mapping) or set(row) != names:
            got = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
            raise ValueError(f"row {k} must have the placeholders {', '.join(sorted(names))}; got {got}")
        for name, value in row.items():
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name} of row {k} must be text; got {shown(value)}")


def _fill(parts: list[tuple[str, str | None]], row: Mapping[str, str]) -> tuple[str, list[tuple[str, int, int]]]:
    """Return the filled text, and for each placeholder its name and the characters `[start, end)` that it covers."""
    text, places = "", []
    for literal, name in parts:
        text += literal
        if name is not None:
            places.append((name, len(text), len(text) + len(row[name])))
            text += row[name]
    return text, places


def _positions(encoded: Encoded, places: list[tuple[str, int, int]], text: str, row: int) -> Spans:
    """Return token positions of each placeholder and of each of its occurrences."""
    occurrences: dict[str, list[tuple[int, ...]]] = {}
    for name, start, end in places:
        covered = []
        for pos, (low, high) in enumerate(encoded.offsets):
            if low < end and high > start:
                outside = text[low : max(low, start)] + text[min(high, end) : high]
                if outside.strip():
                    raise ValueError(f"the token {text[low:high]!r} of row {row} covers {name!r} and text outside it")
                covered.append(pos)
        assert covered, f"no token of {name!r}"
        occurrences.setdefault(name, []).append(tuple(covered))
    spans: Spans = {}
    for name, found in occurrences.items():
        spans[name] = tuple(pos for positions in found for pos in positions)
        if len(found) > 1:
            spans.update({f"{name}.{k}": positions for k, positions in enumerate(found)})
    return spans


def _refuse(firsts: list[tuple[int, Encoded, Spans]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ValueError` with a table of the tokens of each span, one row per layout."""
    names = [name for name in firsts[0][2] if "." not in name]

    def tokens(encoded: Encoded, positions: tuple[int, ...]) -> str:
        return " ".join(repr(token_text(tokenizer, encoded.ids[pos])) for pos in positions)

    lines = [
        [str(k), *(tokens(encoded, spans[name]) for name in names), str(len(encoded.ids))]
        for k, encoded, spans in firsts[:MOST_ROWS]
    ]
    raise ValueError(
        "spans must have the same number of tokens in every row; use group=True for one Prompts per layout\n"
        + table(["row", *names, "tokens"], lines)
    )
