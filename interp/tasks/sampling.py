"""Draw random prompts of a format."""

from __future__ import annotations

from interp.tasks import addition, parity, recall
from interp.tasks.batch import Batch
from interp.tasks.formats import Format, parse_format
from interp.tasks.layout import generator
from interp.tasks.limits import MOST_POSITIONS, MOST_TOKENS, check_whole, is_whole, shown
from interp.tasks.vocabulary import Vocabulary, default_vocabulary


def sample(
    fmt: str | Format,
    batch_size: int,
    length: int | tuple[int, int],
    seed: int,
    vocabulary: Vocabulary | None = None,
) -> Batch:
    """Return random prompts of one format and one length, with the correct output written in.

    `length` is the number of bits or, for addition, of digits: one number for both operands, or a pair.
    The same arguments give the same prompts. Raises `ValueError` for an unknown format, a length below 1,
    a length that takes more labels than the vocabulary has, or more tokens than `interp.tasks.limits` allows.

    >>> sample("parity-scratchpad", batch_size=2, length=3, seed=0).text(1)
    '>>> 0 1 1 === 0 1 0'
    """
    fmt = parse_format(fmt)
    vocabulary = vocabulary or default_vocabulary()
    check_whole(batch_size, "batch_size", 1, MOST_TOKENS)
    check_length(fmt, length, vocabulary)
    batch_size, length = int(batch_size), _plain(length)
    if batch_size * (positions := _positions(fmt, length, vocabulary)) > MOST_TOKENS:
        raise ValueError(
            f"{batch_size} prompts of {positions} positions are more than {MOST_TOKENS} tokens, the most of one batch"
        )
    gen = generator(seed)
    if fmt.task == "addition":
        pair = length if isinstance(length, tuple) else (length, length)
        return addition.write(addition.draw(fmt, vocabulary, batch_size, pair, gen), fmt, vocabulary)
    assert isinstance(length, int)
    if fmt.task == "recall":
        return recall.write(recall.draw(fmt, vocabulary, batch_size, length, gen), fmt, vocabulary)
    return parity.write(parity.draw(fmt, vocabulary, batch_size, length, gen), fmt, vocabulary)


def check_length(fmt: Format, length: int | tuple[int, int], vocabulary: Vocabulary) -> None:
    """Raise `ValueError` when prompts of this length cannot be written with this vocabulary."""
    lengths = length if isinstance(length, tuple) else (length,)
    if isinstance(length, tuple) and (fmt.task != "addition" or len(length) != 2):
        raise ValueError(f"{fmt} takes one length, a number; got {shown(length)}")
    if all(map(is_whole, lengths)) and min(lengths) < 1:
        raise ValueError(f"a length must be at least 1; got {shown(length)}")
    for one in lengths:
        check_whole(one, "a length", 1, MOST_POSITIONS)
    if (need := _positions(fmt, length, vocabulary)) > MOST_POSITIONS:
        raise ValueError(f"length {length} of {fmt} takes {need} positions; the most of a prompt is {MOST_POSITIONS}")
    if (need := fmt.labels_needed(length)) > len(vocabulary.labels):
        raise ValueError(
            f"length {length} of {fmt} needs {need} different labels in a prompt; "
            f"the vocabulary has {len(vocabulary.labels)}"
        )
    if fmt.labels == "pool" and (meant := vocabulary.pool_symbols.intersection(fmt.structure + fmt.inputs)):
        raise ValueError(f"{min(meant)!r} cannot be a label of {fmt}, where it means something else")
    fixed_labels = dict.fromkeys(fmt.fixed_labels(max(lengths)))
    if missing := [s for s in fixed_labels if s not in vocabulary.ids]:
        raise ValueError(f"length {length} of {fmt} needs the label {missing[0]!r}, which the vocabulary lacks")


def _positions(fmt: Format, length: int | tuple[int, int], vocabulary: Vocabulary) -> int:
    """Return tokens of a prompt, start token included."""
    return sequence_length(fmt, length) + (vocabulary.bos is not None)


def _plain(length: int | tuple[int, int]) -> int | tuple[int, int]:
    """Replace NumPy integers by Python's own."""
    return (int(length[0]), int(length[1])) if isinstance(length, tuple) else int(length)


def sequence_length(fmt: Format, length: int | tuple[int, int]) -> int:
    """Return the number of tokens in a prompt with its output, without a start token.

    >>> sequence_length(parse_format("parity-aligned"), 20)
    82
    """
    length = _plain(length)
    row = fmt.row
    if fmt.task == "addition":
        n, m = length if isinstance(length, tuple) else (length, length)
        places = max(n, m)
        digits = 2 * places if row.padded else n + m
        labels = 0
        if fmt.labels:
            labels = 3 * (n + m) if row.separate else digits + 2 + 2 * (places + 1)
        return digits + labels + 2 * (places + 1) + 4
    assert isinstance(length, int)
    item = 1 + bool(fmt.labels) + fmt.gap
    match row.layout:
        case "interleaved":
            return 1 + 2 * length * item
        case "final":
            return 2 + (length + 1) * item
        case "sides":
            return 2 + 2 * length * item
