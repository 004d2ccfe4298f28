"""Map the symbols of a format to single tokens of any tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from interp.tasks.encoding import Bos, start_token
from interp.tasks.formats import Format
from interp.tasks.inputs import SPACE_MARKS, token_text
from interp.tasks.limits import MOST_POSITIONS, check_whole
from interp.tasks.vocabulary import HELD_OUT_SIZE, LONGEST, POOL_SIZE, Vocabulary

# Tokenizers below this size were made for such a task; those of language models have tens of thousands of tokens.
SMALL = 4096
# Fewer labels than these cannot be told from a fixed pattern.
FEWEST_LABELS = 3
LABEL_NAMES = tuple(f"M{i + 1}" for i in range(POOL_SIZE + HELD_OUT_SIZE))


def fit_vocabulary(
    tokenizer: PreTrainedTokenizerBase, fmt: Format, longest: int = LONGEST, bos: Bos = "auto"
) -> Vocabulary:
    """Return a vocabulary with a single token of the tokenizer for each symbol of one format.

    Symbols of one group (input values, output values, labels) are all of one kind:

    - by name, such as "0" and "1" or M1, M2, ..., if the tokenizer has them all. A leading space is preferred.
      Labels by name need as many as prompts of `longest` take. A small tokenizer, made for such a task, keeps those
      that it has.
    - else values are single letters, and labels are whole words with a leading space (without one if the tokenizer
      marks no spaces), or else single letters.

    Other fixed symbols, such as `===`, take punctuation if they are no tokens by name. The texts of the tokens, joined,
    can be read in one way only. The result is deterministic: words are tried in the order of their ids.
    `bos` says whether prompts begin with the tokenizer's start token; "auto" does what the tokenizer does.

    Raises `ValueError` that says how many tokens are needed and how many qualify, if there are too few.
    """
    check_whole(longest, "longest", 1, MOST_POSITIONS)
    start = start_token(tokenizer, bos)
    pieces = _Pieces(tokenizer)
    fixed = tuple(dict.fromkeys(fmt.fixed_labels(longest)))
    groups = [fmt.inputs, tuple(s for s in fmt.outputs if s not in fmt.inputs), fixed]
    named = [pieces.by_name(group, pieces.small and not pieces.marked and group is fixed) for group in groups]
    ids = {symbol: token for group in named for symbol, token in group.items()}
    structure = {symbol: pieces.structural(symbol, symbol == fmt.structure[0]) for symbol in fmt.structure}
    ids |= {symbol: token for symbol, token in structure.items() if token is not None and token not in ids.values()}
    own_labels = pieces.own_labels(fmt, longest, set(ids.values()))
    reserved = set(ids.values()) | set(own_labels.values())
    for symbol in fmt.structure:
        if symbol not in ids:
            ids[symbol] = _first(pieces.punctuation + pieces.letters + pieces.words, reserved, symbol, fmt)
            reserved.add(ids[symbol])
    for group, found, what in zip(groups, named, ("input values", "output values", "labels"), strict=True):
        if group and not found:
            kinds = [pieces.words] if group is fixed else [pieces.letters, pieces.words]
            chosen = _of_one_kind(kinds, group, reserved, f"{fmt} needs {len(group)} {what} of one kind", pieces)
            ids |= chosen
            reserved |= set(chosen.values())
    symbols = {symbol: ids[symbol] for symbol in (*fmt.structure, *groups[0], *groups[1], *fixed) if symbol in ids}
    if fmt.labels != "pool":
        return _checked(Vocabulary(symbols, (), (), _if_new(start, symbols)), pieces, fmt)
    if own_labels and (pieces.small or pieces.unambiguous([*symbols.values(), *own_labels.values()])):
        names = tuple(own_labels)
        labels, held_out = names[:POOL_SIZE], names[POOL_SIZE:]
        return Vocabulary(symbols | own_labels, labels, held_out, _if_new(start, symbols))
    chosen = _label_tokens(fmt, longest, pieces, set(symbols.values()))
    # Two thirds are drawn in prompts and one third is held out, as in the default vocabulary.
    n_pool = min(POOL_SIZE, -(-2 * len(chosen) // 3))
    names = LABEL_NAMES[: len(chosen)]
    labels = dict(zip(names, chosen, strict=True))
    vocabulary = Vocabulary(symbols | labels, names[:n_pool], names[n_pool:], _if_new(start, symbols))
    return _checked(vocabulary, pieces, fmt)


class _Pieces:
    """A tokenizer's tokens by kind, in the order of their ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.vocab = tokenizer.get_vocab()
        special = set(tokenizer.all_special_ids)
        ordered = sorted((i, piece) for piece, i in self.vocab.items() if i not in special)
        self.tokens = [(i, piece.lstrip("".join(SPACE_MARKS)), piece.startswith(SPACE_MARKS)) for i, piece in ordered]
        self.marked = any(marked and len(text) > 1 and _is_word(text) for _, text, marked in self.tokens)

    @property
    def small(self) -> bool:
        return len(self.vocab) < SMALL

    def by_name(self, symbols: Sequence[str], partly: bool = False) -> dict[str, int]:
        """Return tokens by name: all with a leading space, or all without. None if one is missing, unless `partly`."""
        forms = [{s: self.vocab.get(mark + s) for s in symbols} for mark in (*SPACE_MARKS, "")]
        mixed = {s: next((form[s] for form in reversed(forms) if form[s] is not None), None) for s in symbols}
        for form in [*forms, mixed]:
            present = {s: i for s, i in form.items() if i is not None}
            if len(present) == len(symbols):
                return present
        present = {s: i for s, i in mixed.items() if i is not None}
        return present if partly and len(present) >= FEWEST_LABELS else {}

    def structural(self, symbol: str, first: bool) -> int | None:
        """Return the token of a fixed symbol: bare at a prompt's start, else with a leading space if it exists."""
        marks = ("", *SPACE_MARKS) if first else (*SPACE_MARKS, "")
        return next((self.vocab[mark + symbol] for mark in marks if mark + symbol in self.vocab), None)

    def own_labels(self, fmt: Format, longest: int, reserved: set[int]) -> dict[str, int]:
        """Labels M1, M2, ... by name, if there are enough of them to be the tokenizer's own."""
        if fmt.labels != "pool":
            return {}
        needed = fmt.labels_needed(longest)
        for marks in (*((mark,) for mark in SPACE_MARKS), ("",), ("", *SPACE_MARKS)):
            found = {}
            for name in LABEL_NAMES:
                tokens = [self.vocab[mark + name] for mark in marks if mark + name in self.vocab]
                found |= {name: tokens[0]} if tokens and tokens[0] not in reserved else {}
            if len(found) >= needed or (self.small and len(found) >= FEWEST_LABELS and len(marks) > 1):
                return found
        return {}

    @cached_property
    def punctuation(self) -> list[int]:
        return _distinct(
            (i, s)
            for i, s, _ in self.tokens
            if s.isascii() and s.isprintable() and s.strip() and not any(c.isalnum() for c in s)
        )

    @cached_property
    def letters(self) -> list[int]:
        """Single letters in alphabetical order, with a leading space if there are as many of them."""
        letters = sorted(
            ((i, s, m) for i, s, m in self.tokens if len(s) == 1 and _is_word(s)), key=lambda x: x[1].lower()
        )
        with_space, bare = (_distinct((i, s) for i, s, m in letters if m == marked) for marked in (True, False))
        return with_space if len(with_space) >= len(bare) else bare

    @cached_property
    def words(self) -> list[int]:
        """Whole words: with a leading space if the tokenizer marks them. Likely prefixes of words come last."""
        words = [(i, s) for i, s, marked in self.tokens if marked == self.marked and len(s) > 1 and _is_word(s)]
        texts = {s for _, s in words}
        # Byte-pair tokenizers have " diffe" beside " different". A piece has no capital form and no plural.
        whole = [(i, s) for i, s in words if len(s) > 3 and {s.lower() + "s", s.capitalize()} <= texts]
        return _distinct([*whole, *words])

    def unambiguous(self, ids: Iterable[int]) -> bool:
        """Return whether joined token texts can be read in one way only."""
        tokens = list(ids)
        if not self.marked and " " in str(self.tokenizer.decode([tokens[0], tokens[0]])):
            return True  # this decoder puts spaces between tokens
        return is_uniquely_decodable([token_text(self.tokenizer, i) for i in tokens])

    def counts(self) -> str:
        kind = "whole words with a leading space" if self.marked else "whole words"
        return f"{len(self.words)} {kind} and {len(self.letters)} single letters"


def is_uniquely_decodable(texts: Sequence[str]) -> bool:
    """Return whether no string is the concatenation of these texts in two ways (Sardinas and Patterson, 1953).

    >>> is_uniquely_decodable(["M9", "M90", "0"]), is_uniquely_decodable([" hook", " hooked", "0"])
    (False, True)
    """
    code = set(texts)
    if len(code) < len(texts) or "" in code:
        return False
    frontier = {w[len(v) :] for v in code for w in code if w != v and w.startswith(v)}
    seen: set[str] = set()
    while frontier:
        if frontier & code:
            return False
        seen |= frontier
        after = {w[len(s) :] for s in frontier for w in code if w.startswith(s)}
        after |= {s[len(w) :] for s in frontier for w in code if s.startswith(w)}
        frontier = after - seen
    return True


def _label_tokens(fmt: Format, longest: int, pieces: _Pieces, reserved: set[int]) -> list[int]:
    """Return tokens of one kind for a pool of labels: words, or single letters if only these are enough."""
    kinds = [[i for i in kind if i not in reserved][: len(LABEL_NAMES)] for kind in (pieces.words, pieces.letters)]
    needed = fmt.labels_needed(longest)
    enough = [kind for kind in kinds if len(kind) >= needed]
    chosen = enough[0] if enough else max(kinds, key=len)
    if len(chosen) < FEWEST_LABELS:
        raise ValueError(
            f"{fmt} needs at least {FEWEST_LABELS} labels of one kind, {needed} for length {longest}; "
            f"this tokenizer has {pieces.counts()}, of which {len(kinds[0])} and {len(kinds[1])} are free"
        )
    return chosen


def _of_one_kind(
    kinds: list[list[int]], symbols: Sequence[str], reserved: set[int], need: str, pieces: _Pieces
) -> dict[str, int]:
    for kind in kinds:
        free = [i for i in kind if i not in reserved]
        if len(free) >= len(symbols):
            return dict(zip(symbols, free, strict=False))
    named = sum(bool(pieces.by_name([symbol])) for symbol in symbols)
    raise ValueError(f"{need}; this tokenizer has {named} of them by name, {pieces.counts()}")


def _first(kind: list[int], reserved: set[int], symbol: str, fmt: Format) -> int:
    for token in kind:
        if token not in reserved:
            return token
    raise ValueError(f"this tokenizer has no single token left for {symbol!r} of {fmt}")


def _checked(vocabulary: Vocabulary, pieces: _Pieces, fmt: Format) -> Vocabulary:
    if not pieces.small and not pieces.unambiguous(vocabulary.ids.values()):
        raise ValueError(
            f"joined tokens of {fmt} could be read in two ways in this tokenizer: it lacks separate tokens"
        )
    return vocabulary


def _if_new(start: int | None, symbols: dict[str, int]) -> int | None:
    """Return the start token, unless a symbol of the task is that very token."""
    return None if start in symbols.values() else start


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalpha()


def _distinct(candidates: Iterable[tuple[int, str]]) -> list[int]:
    """Return tokens whose texts differ in more than case."""
    first: dict[str, int] = {}
    for token, text in candidates:
        first.setdefault(text.lower(), token)
    return list(first.values())
