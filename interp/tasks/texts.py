"""Build prompts from text or token ids."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.tasks.encoding import Bos, Encoded, chosen_bos, encode, find_tokenizer, tokenizer_of
from interp.tasks.inputs import Pair, Prompts, check_tokens, token_text
from interp.tasks.tables import MOST_COLUMNS, token_table

Texts = str | Sequence[str] | Tensor


@overload
def prompts(
    source: Any,
    clean: Texts,
    corrupted: None = None,
    *,
    bos: Bos = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Prompts: ...


@overload
def prompts(
    source: Any,
    clean: Texts,
    corrupted: Texts,
    *,
    bos: Bos = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Pair: ...


def prompts(
    source: Any,
    clean: Texts,
    corrupted: Texts | None = None,
    *,
    bos: Bos = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Prompts | Pair:
    """Return `Prompts` from text or token ids; with `corrupted`, a `Pair` of clean and corrupted prompts.

    Args:
        source: a run, a bridge or a tokenizer, whose tokenizer encodes the text.
        clean: one text, a list of texts, or token ids `[batch pos]` or `[pos]`, which are used as they are.
        corrupted: the same for the corrupted prompts.
        bos: "auto" reads what the tokenizer adds when it encodes; True adds its start token; False leaves it out.
        tokenizer: used instead of the source's.

    Raises `ValueError` if the prompts differ in their number of tokens (the message shows them side by side),
    if there is no tokenizer for text, or if token ids are not integers that the tokenizer has. Warns where clean and
    corrupted have the same tokens, and of words that the tokenizer does not know.
    """
    chosen = chosen_bos(source, bos)
    given = {"clean": clean} if corrupted is None else {"clean": clean, "corrupted": corrupted}
    if bos != "auto" and any(isinstance(texts, Tensor) for texts in given.values()):
        raise ValueError("bos applies to text; a tensor of token ids is used as it is")
    any_tokenizer = find_tokenizer(source, tokenizer)
    encoded = {side: _encoded(source, texts, chosen, any_tokenizer) for side, texts in given.items()}
    counts = {side: len(rows) for side, rows in encoded.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"clean has {counts['clean']} prompts and corrupted {counts['corrupted']}; they must be as many"
        )
    check_lengths(
        {f"{side} {k}": row.ids for side, rows in encoded.items() for k, row in enumerate(rows)}, any_tokenizer
    )
    sides = [build(rows, {}, any_tokenizer, isinstance(given[side], Tensor)) for side, rows in encoded.items()]
    if corrupted is not None and sides[0].tokens.equal(sides[1].tokens):
        warnings.warn("clean and corrupted have the same tokens, so that no patch changes anything", stacklevel=2)
    return sides[0] if corrupted is None else Pair(*sides)


def check_lengths(rows: dict[str, tuple[int, ...]], tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Raise `ValueError` with a table of the tokens unless all rows have as many. Keys are the rows' titles."""
    by_count: dict[int, str] = {}
    for title, ids in rows.items():
        by_count.setdefault(len(ids), title)
    if len(by_count) < 2:
        return
    titles = list(by_count.values())[:MOST_COLUMNS]
    tokens = [[f"<{i}>" if tokenizer is None else token_text(tokenizer, i) for i in rows[t]] for t in titles]
    counts = ", ".join(f"{count} in {title}" for count, title in by_count.items())
    raise ValueError(f"prompts must have the same number of tokens; got {counts}\n{token_table(titles, tokens)}")


def build(
    rows: Sequence[Encoded],
    spans: dict[str, tuple[int, ...]],
    tokenizer: PreTrainedTokenizerBase | None,
    from_ids: bool = False,
) -> Prompts:
    """Return the `Prompts` of encoded rows of one length."""
    starts = {row.n_start > 0 for row in rows}
    if len(starts) > 1:
        raise ValueError("some prompts begin with the start token and some do not")
    bos = None if from_ids and not (tokenizer and tokenizer.bos_token_id is not None) else starts.pop()
    return Prompts(torch.tensor([row.ids for row in rows]), spans=spans, bos=bos, tokenizer=tokenizer)


def _encoded(source: Any, texts: Texts, bos: Bos, tokenizer: PreTrainedTokenizerBase | None) -> list[Encoded]:
    if isinstance(texts, Tensor):
        return _rows_of_ids(texts, tokenizer)
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, Sequence) and not texts:
        raise ValueError("there are no prompts")
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError("prompts must be text, a list of texts, or a tensor of token ids")
    own = tokenizer_of(source, tokenizer)
    return [encode(own, text, bos) for text in texts]


def _rows_of_ids(ids: Tensor, tokenizer: PreTrainedTokenizerBase | None) -> list[Encoded]:
    tokens = ids[None] if ids.ndim == 1 else ids
    check_tokens(tokens)
    if len(tokens) == 0:
        raise ValueError("there are no prompts")
    rows, limit = tokens.tolist(), None if tokenizer is None else len(tokenizer)
    lowest, highest = min(map(min, rows)), max(map(max, rows))
    if lowest < 0 or (limit is not None and highest >= limit):
        bad = lowest if lowest < 0 else highest
        raise ValueError(f"token id {bad} is outside 0 to {'the largest id' if limit is None else limit - 1}")
    start = None if tokenizer is None else tokenizer.bos_token_id
    return [Encoded(tuple(row), (), int(row[0] == start)) for row in rows]
