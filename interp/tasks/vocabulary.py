"""Vocabularies: the token id of each symbol of a task, and the default tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from interp.tasks.format_table import RECALL_START, RECALL_VALUES
from interp.tasks.inputs import token_text
from interp.tasks.limits import LARGEST_TOKEN, is_whole, shown

# Longest length that the default vocabulary is made for. It has twice as many labels, so that none is untrained at
# the longest test length (probes/README.md, Recipes).
LONGEST = 64
POOL_SIZE = 2 * LONGEST
HELD_OUT_SIZE = 64
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Symbols of the tasks and the token id of each.

    `labels` are the pool that prompts draw from; `held_out` are labels that no prompt of parity or addition
    contains unless a counterfactual puts them there (recall uses them). Both hold symbols, such as "M17".
    `bos` is the start token that every prompt begins with, or None.
    """

    ids: dict[str, int]
    labels: tuple[str, ...]
    held_out: tuple[str, ...] = field(default=())
    bos: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.ids, dict) or not all(isinstance(s, str) for s in self.ids):
            raise ValueError(f"ids must be a dictionary from symbols to token ids; got {shown(self.ids)}")
        if not all(is_whole(i) and 0 <= i <= LARGEST_TOKEN for i in self.ids.values()):
            raise ValueError(f"token ids of a vocabulary must be integers from 0 to {LARGEST_TOKEN}")
        if self.bos is not None and not (is_whole(self.bos) and 0 <= self.bos <= LARGEST_TOKEN):
            raise ValueError(f"bos must be a token id or None; got {shown(self.bos)}")
        if self.bos in self.ids.values():
            raise ValueError(f"token id {self.bos} is both the start token and a symbol of the task")
        for name in ("labels", "held_out"):
            labels = getattr(self, name)
            if not isinstance(labels, tuple) or not all(isinstance(s, str) for s in labels):
                raise ValueError(f"{name} must be a tuple of symbols; got {shown(labels)}")
        seen: dict[int, str] = {}
        for symbol, token in self.ids.items():
            if token in seen:
                raise ValueError(f"symbols {seen[token]!r} and {symbol!r} share token id {token}")
            seen[token] = symbol
        if missing := [s for s in self.labels + self.held_out if s not in self.ids]:
            raise ValueError(f"labels without a token: {shown(', '.join(missing[:5]))[1:-1]}")
        if repeated := {s for s, n in Counter(self.labels + self.held_out).items() if n > 1}:
            raise ValueError(f"label {shown(min(repeated))} occurs more than once; a prompt's labels must differ")

    def __getitem__(self, symbol: str) -> int:
        if symbol not in self.ids:
            reason = "it was fitted to another format, or the symbol is not in default_vocabulary"
            raise ValueError(f"this vocabulary has no symbol {symbol!r}: {reason}")
        return self.ids[symbol]

    def tokens(self, symbols: Iterable[str]) -> Int[Tensor, " symbol"]:
        """Return the token ids of several symbols."""
        return torch.tensor([self[s] for s in symbols], dtype=torch.long)

    def symbol(self, token: int) -> str:
        """Return the symbol of a token id: `<bos>` for the start token, `<id>` for a token of no symbol."""
        if token == self.bos:
            return "<bos>"
        return self._symbols.get(token, f"<{token}>")

    @cached_property
    def _symbols(self) -> dict[int, str]:
        return {token: symbol for symbol, token in self.ids.items()}

    @cached_property
    def pool_symbols(self) -> frozenset[str]:
        """Every label, held out or not."""
        return frozenset(self.labels + self.held_out)

    @cached_property
    def pool(self) -> Int[Tensor, " label"]:
        """Token ids of the label pool."""
        return self.tokens(self.labels)

    @cached_property
    def held_out_pool(self) -> Int[Tensor, " label"]:
        """Token ids of the held-out labels."""
        return self.tokens(self.held_out)

    def stand_ins(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
        """Return the text of the token that a model reads for each symbol which its tokenizer writes otherwise."""
        texts = {symbol: token_text(tokenizer, token) for symbol, token in self.ids.items()}
        return {symbol: text for symbol, text in texts.items() if text.strip() != symbol}

    def to_json(self) -> dict:
        """Return a plain dictionary that `from_json` reads. A vocabulary without start token has no key "bos"."""
        data = {"ids": self.ids, "labels": list(self.labels), "held_out": list(self.held_out)}
        return data if self.bos is None else data | {"bos": self.bos}

    @classmethod
    def from_json(cls, data: dict) -> Vocabulary:
        """Return the vocabulary that `to_json` wrote."""
        labels = [data[name] for name in ("labels", "held_out")]
        if not all(isinstance(names, list) for names in labels):
            raise ValueError("labels and held_out of a vocabulary must be lists")
        return cls(data["ids"], *map(tuple, labels), bos=data.get("bos"))


# Symbols of formats that were added after the first models were trained. Append only: token ids of shipped runs depend
# on the order of all symbols.
LATER_SYMBOLS: tuple[str, ...] = ()


@cache
def default_vocabulary() -> Vocabulary:
    """Return every symbol of every format, one token each, in the order of `default_tokenizer`."""
    labels = tuple(f"M{i + 1}" for i in range(POOL_SIZE + HELD_OUT_SIZE))
    numbers = tuple(str(i) for i in range(POOL_SIZE + 1))
    cycle = tuple(f"c{i + 1}" for i in range(LONGEST))
    fixed = (">>>", "===", "###", "+", "#", "_", "[0]", "[1]", "a", "b", RECALL_START)
    symbols = SPECIAL + fixed + RECALL_VALUES + numbers + cycle + labels + LATER_SYMBOLS
    return Vocabulary({s: i for i, s in enumerate(symbols)}, labels[:POOL_SIZE], labels[POOL_SIZE:])


def default_tokenizer() -> PreTrainedTokenizerFast:
    """Return a Hugging Face fast tokenizer whose tokens are the symbols themselves, separated by spaces.

    pad, bos, eos and unk are given explicitly: TransformerLens otherwise adds ids of its own.
    """
    backend = Tokenizer(WordLevel(default_vocabulary().ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)
