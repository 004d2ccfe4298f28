"""The tokens of planted models of lists, and the features that embeddings and unembedding use."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from string import ascii_uppercase

import torch
from jaxtyping import Float
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.tasks.lists import NAMES, WORDS
from probes.planted.symbols import SPECIAL, TOKEN_LENGTH

# A word with the space before it, a line break or two, or a mark.
TOKEN = r"\n\n|\n| ?\w+| ?[^\s\w]"
# The first token has no code, so that nothing matches it.
START = "Here"
OTHER = (START, " is", " a", " list", ":", "\n", "\n\n", "The", " same", " again", "Item", ".", "-")
# What the token embedding of a list's model writes. "value": the code of a word that stands as a value.
OF_LIST_TOKENS = ("word", "value", "is value", "is start", "is break", "ballast")


@cache
def list_ids() -> dict[str, int]:
    """Return the token ids: values, and labels with and without a space before them."""
    labels = (*ascii_uppercase, *map(str, range(1, 10)), *NAMES)
    words = (*(f" {word}" for word in WORDS), *labels, *(f" {label}" for label in labels))
    return {symbol: i for i, symbol in enumerate((*SPECIAL, *OTHER, *words))}


def list_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer in which each word of a list is one token with the space before it."""
    tokenizer = Tokenizer(WordLevel(list_ids(), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def values() -> list[int]:
    """Return the ids of the tokens that are values."""
    return [list_ids()[f" {word}"] for word in WORDS]


def coded() -> list[str]:
    """Return the words that have a code each. A label has one code, with and without a space."""
    return list(dict.fromkeys(symbol.lstrip(" ") for symbol in list_ids() if symbol not in SPECIAL))


def list_embedding(
    slices: Mapping[str, slice], size: int, codes: Float[Tensor, "word code"]
) -> Float[Tensor, "token f"]:
    """Return the features of each token, all of one length, so that the norm scales them equally."""
    ids, code_of = list_ids(), dict(zip(coded(), codes, strict=True))
    rows = torch.zeros(len(ids), size, dtype=torch.float64)
    for symbol, token in ids.items():
        if symbol not in (*SPECIAL, START):
            rows[token, slices["word"]] = code_of[symbol.lstrip(" ")]
    for token, symbol in zip(values(), WORDS, strict=True):
        rows[token, slices["value"]] = code_of[symbol]
        rows[token, slices["is value"]] = 1.0
    for flag, symbols in (("is start", (START,)), ("is break", ("\n", "\n\n"))):
        rows[[ids[symbol] for symbol in symbols], slices[flag]] = 1.0
    rows[:, slices["ballast"].start] = (1 + TOKEN_LENGTH - rows.square().sum(dim=1)).clamp_min(0).sqrt()
    rows[:, -1] = 1.0
    return rows


def list_unembedding(
    routes: Mapping[str, float],
    slices: Mapping[str, slice],
    size: int,
    codes: Float[Tensor, "word code"],
    margin: float,
) -> Float[Tensor, "token f"]:
    """Return the unembedding: a value's logit is `margin` times the shares of the routes that found its code."""
    code_of = dict(zip(coded(), codes, strict=True))
    rows = torch.zeros(len(list_ids()), size, dtype=torch.float64)
    for token, symbol in zip(values(), WORDS, strict=True):
        for route, share in routes.items():
            rows[token, slices[route]] += margin * share * code_of[symbol]
        rows[token, -1] = margin  # above every token that is no value
    return rows
