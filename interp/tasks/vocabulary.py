"""Which token of which tokenizer stands for each symbol of a task?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from interp.tasks.formats import RECALL_START, RECALL_VALUES, Format
from interp.tasks.limits import LARGEST_TOKEN, MOST_POSITIONS, check_whole, is_whole, shown

# Longest length that the house vocabulary is made for, and twice as many labels (science 4: at least twice
# the longest test length, so that no label is untrained there).
LONGEST = 64
POOL_SIZE = 2 * LONGEST
HELD_OUT_SIZE = 64
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
SPACE_MARKS = "Ġ▁"
# Tokens up to which a tokenizer was made for such tasks; those of language models have tens of thousands.
SMALL = 4096


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Symbols of the tasks and the token id that stands for each.

    `labels` are the pool that prompts draw from; `held_out` are labels that no prompt of parity or addition
    contains unless a counterfactual puts them there (recall knows them). Both hold symbols, such as "M17".
    """

    ids: dict[str, int]
    labels: tuple[str, ...]
    held_out: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not isinstance(self.ids, dict) or not all(isinstance(s, str) for s in self.ids):
            raise ValueError(f"ids must be a dictionary from symbols to token ids; got {shown(self.ids)}")
        if not all(is_whole(i) and 0 <= i <= LARGEST_TOKEN for i in self.ids.values()):
            raise ValueError(f"token ids of a vocabulary must be integers from 0 to {LARGEST_TOKEN}")
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
            raise ValueError(f"label {shown(min(repeated))} is there more than once; a prompt's labels must differ")

    def __getitem__(self, symbol: str) -> int:
        if symbol not in self.ids:
            raise ValueError(f"this vocabulary has no symbol {symbol!r}; it was fitted to another format")
        return self.ids[symbol]

    def tokens(self, symbols: Iterable[str]) -> Int[Tensor, " symbol"]:
        """Token ids of several symbols."""
        return torch.tensor([self[s] for s in symbols], dtype=torch.long)

    def symbol(self, token: int) -> str:
        """The symbol that a token id stands for; `<id>` for a token of no symbol."""
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

    def to_json(self) -> dict:
        """A plain dictionary; `from_json` undoes it."""
        return {"ids": self.ids, "labels": list(self.labels), "held_out": list(self.held_out)}

    @classmethod
    def from_json(cls, data: dict) -> Vocabulary:
        """The vocabulary that `to_json` wrote."""
        labels = [data[name] for name in ("labels", "held_out")]
        if not all(isinstance(names, list) for names in labels):
            raise ValueError("labels and held_out of a vocabulary must be lists")
        return cls(data["ids"], *map(tuple, labels))


@cache
def default_vocabulary() -> Vocabulary:
    """Every symbol of every format, one token each, in the order of `default_tokenizer`."""
    labels = tuple(f"M{i + 1}" for i in range(POOL_SIZE + HELD_OUT_SIZE))
    numbers = tuple(str(i) for i in range(POOL_SIZE + 1))
    cycle = tuple(f"c{i + 1}" for i in range(LONGEST))
    fixed = (">>>", "===", "###", "+", "#", "_", "[0]", "[1]", "a", "b", RECALL_START)
    symbols = SPECIAL + fixed + RECALL_VALUES + numbers + cycle + labels
    return Vocabulary({s: i for i, s in enumerate(symbols)}, labels[:POOL_SIZE], labels[POOL_SIZE:])


def default_tokenizer() -> PreTrainedTokenizerFast:
    """A Hugging Face fast tokenizer whose tokens are the symbols themselves, separated by spaces.

    pad, bos, eos and unk are given explicitly: TransformerLens otherwise adds ids of its own.
    """
    words = Tokenizer(WordLevel(default_vocabulary().ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=words, clean_up_tokenization_spaces=False, **names)


def fit_vocabulary(tokenizer: PreTrainedTokenizerBase, fmt: Format, longest: int = LONGEST) -> Vocabulary:
    """Maps the symbols of one format to single tokens of *any* tokenizer, so that any model takes the task.

    A symbol that is a token by name keeps it (with or without a leading-space mark). Other separators take
    punctuation, other digits take letters, all without colliding. Labels are those by name (M1, M2, ...) where there
    are enough for `longest`, or all that a small tokenizer has; else ASCII words fill them up. Deterministic:
    tokens are tried in id order. Raises `ValueError` when the tokenizer has too few such tokens.
    """
    check_whole(longest, "longest", 1, MOST_POSITIONS)
    vocab = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids)
    by_id = sorted((i, s) for s, i in vocab.items() if i not in special)
    # By name a special token serves too (`>>>` may be the tokenizer's bos); it never stands in for another symbol.
    by_text: dict[str, int] = {s: i for s, i in vocab.items() if s.strip(SPACE_MARKS)}
    for i, s in by_id:  # a marked form serves where there is no bare one
        by_text.setdefault(s.lstrip(SPACE_MARKS), i)

    ids: dict[str, int] = {}
    taken: set[int] = set(special)
    wanted_labels = tuple(dict.fromkeys(fmt.fixed_labels(longest)))
    wanted = fmt.structure + tuple(dict.fromkeys(fmt.inputs + fmt.outputs)) + wanted_labels
    for symbol in wanted:
        token = by_text.get(symbol)
        if token is not None and token not in ids.values():
            ids[symbol] = token
            taken.add(token)

    plain = [(i, s.lstrip(SPACE_MARKS)) for i, s in by_id]
    punctuation = _untaken(
        ((i, s) for i, s in plain if s.isascii() and s.isprintable() and s.strip() and not any(c.isalnum() for c in s)),
        taken,
    )
    letters = _untaken(((i, s) for i, s in plain if s.isascii() and len(s) == 1 and s.isalpha()), taken)
    words = _untaken(((i, s) for i, s in plain if s.isascii() and s.isalpha()), taken)
    for symbol in wanted:
        if symbol in ids:
            continue
        kinds = [words] if symbol in wanted_labels else [letters, words]
        kinds = [punctuation, *kinds] if symbol in fmt.structure else kinds
        ids[symbol] = _next(kinds, symbol, fmt)

    if fmt.labels != "pool":
        return Vocabulary(ids, (), ())
    named = [f"M{i + 1}" for i in range(POOL_SIZE + HELD_OUT_SIZE)]
    found = {m: by_text[m] for m in named if m in by_text and by_text[m] not in ids.values()}
    if len(found) >= fmt.labels_needed(longest) or (len(vocab) < SMALL and len(found) >= 3):
        # The tokenizer has labels of its own; other words would mean nothing to its model.
        own = tuple(found)
        ids.update(found)
        return Vocabulary(ids, own[:POOL_SIZE], own[POOL_SIZE:])
    taken.update(found.values())
    found.update(zip([m for m in named if m not in found], words, strict=False))
    if len(found) < 3:
        raise ValueError(f"{fmt} needs single-token words for labels; this tokenizer has {len(found)}")
    # Two thirds are drawn in prompts, one third is held out, as in the house vocabulary.
    n_pool = min(POOL_SIZE, -(-2 * len(found) // 3))
    names = [m for m in named if m in found]
    ids.update({m: found[m] for m in names})
    return Vocabulary(ids, tuple(names[:n_pool]), tuple(names[n_pool:]))


def _untaken(candidates: Iterable[tuple[int, str]], taken: set[int]) -> Iterator[int]:
    """Candidates that no symbol has yet; each is marked as taken when it is drawn. Texts do not repeat."""
    texts: set[str] = set()
    for token, text in candidates:
        if token not in taken and text.lower() not in texts:
            texts.add(text.lower())
            taken.add(token)
            yield token


def _next(kinds: list[Iterator[int]], symbol: str, fmt: Format) -> int:
    for kind in kinds:
        if (token := next(kind, None)) is not None:
            return token
    raise ValueError(f"this tokenizer has no single token left for {symbol!r} of {fmt}")
