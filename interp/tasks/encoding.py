"""Encode text as a tokenizer does, with or without its start token."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from interp.support.printable import is_utf8
from interp.tasks.inputs import token_text
from interp.tasks.limits import shown

# "auto": the start token that the tokenizer adds when it encodes, if any. True: always. False: never.
Bos = bool | Literal["auto"]

# Punctuation after which a text goes on with a space.
SPACE_FOLLOWS = ".,:;!?)]}"


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text, the characters `[start, end)` of each token, and how many start tokens precede it."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    n_start: int


def tokenizer_of(source: Any, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer itself, or the attribute `tokenizer` of a run, a bridge or another object.

    Raises `ValueError` if there is none.
    """
    if (own := find_tokenizer(source, tokenizer)) is not None:
        return own
    if why := _why_none(source):
        raise ValueError(f"text needs a tokenizer: {why}")
    raise ValueError(
        f"text needs a tokenizer and {type(source).__name__} has none; pass tokenizer=, a run, or a tensor of token ids"
    )


def find_tokenizer(source: Any, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedTokenizerBase | None:
    """Return what `tokenizer_of` returns, or None if there is no tokenizer."""
    for candidate in (tokenizer, source):
        if isinstance(candidate, PreTrainedTokenizerBase):
            return candidate
    try:
        own = getattr(source, "tokenizer", None)
    except ValueError:  # a run without a tokenizer says so
        return None
    return own if isinstance(own, PreTrainedTokenizerBase) else None


def _why_none(source: Any) -> str:
    """Return why the tokenizer of a run cannot be read; "" where it says nothing."""
    try:
        getattr(source, "tokenizer", None)
    except ValueError as error:
        return str(error)
    return ""


def chosen_bos(source: Any, bos: Bos) -> Bos:
    """Return `bos`, or the source's own choice, such as that of `load(..., bos=False)`, if `bos` is "auto"."""
    check_bos(bos)
    own = getattr(source, "bos", None)
    return own if bos == "auto" and isinstance(own, bool) else bos


def check_bos(bos: object) -> None:
    """Raise `ValueError` unless `bos` is "auto", True or False."""
    if bos != "auto" and not isinstance(bos, bool):
        raise ValueError(f"bos must be 'auto', True or False; got {shown(bos)}")


def start_token(tokenizer: PreTrainedTokenizerBase, bos: Bos = "auto") -> int | None:
    """Return the id of the start token that encoded text begins with, or None.

    Raises `ValueError` if `bos` is True and the tokenizer has no start token, or if it adds several.
    """
    check_bos(bos)
    if bos is False:
        return None
    added = _added_in_front(tokenizer)
    if len(added) > 1:
        names = ", ".join(repr(token_text(tokenizer, i)) for i in added)
        raise ValueError(
            f"this tokenizer adds {len(added)} start tokens, {names}; only one is supported: use bos=False"
        )
    if added:
        return added[0]
    return _bos_id(tokenizer) if bos is True else None


def encode(tokenizer: PreTrainedTokenizerBase, text: str, bos: Bos = "auto", offsets: bool = False) -> Encoded:
    """Encode one text. With `offsets`, a fast tokenizer also gives the characters of each token.

    Tokens that the tokenizer adds at the end are kept with `bos="auto"` and `bos=True`, and left out with `bos=False`.
    Raises `ValueError` for text without tokens, and for text that repeats the start token which is added to it. Warns
    of words that the tokenizer does not know.
    """
    check_bos(bos)
    if not isinstance(text, str):
        raise ValueError(f"a prompt must be text; got {type(text).__name__}")
    if offsets and not tokenizer.is_fast:
        raise ValueError(
            f"spans need a fast tokenizer, which maps tokens to characters; got {type(tokenizer).__name__}"
        )
    bare = _tokens(tokenizer, text, special=False, offsets=offsets)
    if not bare.ids:
        raise ValueError(f"{shown(text)} has no tokens")
    if tokenizer.unk_token_id in bare.ids and (unknown := str(tokenizer.unk_token)) not in text:
        words = [word for word in text.split() if tokenizer.unk_token_id in _tokens(tokenizer, word, special=False).ids]
        named = f": {', '.join(map(repr, words[:3]))}" if words else ""
        warnings.warn(f"this tokenizer does not know words of {shown(text)}{named}; it reads {unknown}", stacklevel=4)
    if bos is False:
        return bare
    encoded = _tokens(tokenizer, text, special=True, offsets=offsets)
    n_start = _start_of(encoded.ids, bare.ids)
    if n_start == 0 and bos is True and bare.ids[0] != _bos_id(tokenizer):
        return Encoded((_bos_id(tokenizer), *encoded.ids), ((0, 0), *encoded.offsets) if offsets else (), 1)
    if n_start and bare.ids[0] == encoded.ids[0]:
        name = token_text(tokenizer, bare.ids[0])
        raise ValueError(f"{shown(text)} begins with {name!r}, which the tokenizer adds; remove it or use bos=False")
    return Encoded(encoded.ids, encoded.offsets, n_start or int(bare.ids[0] == tokenizer.bos_token_id))


def count_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return how many tokens a text is, without those that the tokenizer adds."""
    return len(_tokens(tokenizer, text, special=False).ids)


def answer_id(source: Any, text: str) -> int:
    """Return the id of the one token that `text` is, such as " Mary".

    `source` is a tokenizer, or anything with one. Raises `ValueError` that shows the tokens if there are several.
    """
    tokenizer = tokenizer_of(source)
    if not isinstance(text, str) or not text:
        raise ValueError(f"an answer must be text; got {shown(text)}")
    ids = _tokens(tokenizer, text, special=False).ids
    if len(ids) != 1 and text.startswith(" "):
        # SentencePiece puts a space of its own before the text.
        without = _tokens(tokenizer, text[1:], special=False).ids
        ids = without if len(without) == 1 and token_text(tokenizer, without[0]) == text else ids
    if len(ids) != 1:
        tokens = ", ".join(repr(token_text(tokenizer, i)) for i in ids)
        raise ValueError(f"answer {text!r} is {len(ids)} tokens: {tokens}{_one_token_hint(tokenizer, text, ids)}")
    if ids[0] == tokenizer.unk_token_id:
        raise ValueError(f"answer {text!r} is unknown to this tokenizer")
    return ids[0]


def spaced_answer(source: Any, text: str, answer: str) -> str | None:
    """Return an answer with a leading space where a text goes on with that rather than with the answer as it is given.

    That is: the text ends with a word or with punctuation that a space follows, and the answer is a word. None
    elsewhere, and where the two forms are not two different single tokens. `source`: as for `answer_id`.
    """
    end, begin = text[-1:], answer[:1]
    if not begin.isalnum() or not (end.isalnum() or (end and end in SPACE_FOLLOWS)):
        return None
    spaced = f" {answer}"
    try:
        return spaced if answer_id(source, spaced) != answer_id(source, answer) else None
    except ValueError:
        return None


def _one_token_hint(tokenizer: PreTrainedTokenizerBase, text: str, ids: Sequence[int]) -> str:
    """Return what to pass instead: the answer with its leading space if that is one token, else the first token."""
    spaced = f" {text}"
    if not text.startswith(" ") and len(_tokens(tokenizer, spaced, special=False).ids) == 1:
        return f"; with its leading space, {spaced!r}, it is one"
    return f"; to use the first, pass {token_text(tokenizer, ids[0])!r} or its id {ids[0]}" if ids else ""


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, special: bool, offsets: bool = False) -> Encoded:
    if not is_utf8(text):
        raise ValueError(f"{shown(text)} is not UTF-8 text: it has half of a surrogate pair")
    encoded: Any = tokenizer(
        text, add_special_tokens=special, truncation=False, padding=False, return_offsets_mapping=offsets
    )
    pairs = encoded["offset_mapping"] if offsets else ()
    return Encoded(tuple(encoded["input_ids"]), tuple((int(a), int(b)) for a, b in pairs), 0)


def _start_of(encoded: Sequence[int], bare: Sequence[int]) -> int:
    """Return where the bare tokens begin in the encoded ones."""
    for start in range(len(encoded) - len(bare) + 1):
        if tuple(encoded[start : start + len(bare)]) == tuple(bare):
            return start
    raise ValueError("this tokenizer changes the text's own tokens when it adds special tokens; use bos=False")


def _added_in_front(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    encoded, bare = (_tokens(tokenizer, "a", special).ids for special in (True, False))
    return encoded[: _start_of(encoded, bare)]


def _bos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    token = tokenizer.bos_token_id
    if not isinstance(token, int):
        raise ValueError("bos=True needs a start token, and this tokenizer has none")
    return token
