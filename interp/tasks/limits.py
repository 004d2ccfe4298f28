"""Size limits and checks of arguments, made before memory is allocated."""

from __future__ import annotations

from numbers import Integral
from operator import index

# Positions of a prompt: more than any model here reads, and few enough to write in a second.
MOST_POSITIONS = 2**17
# Tokens of a batch, prompts times positions: half a GiB of token ids.
MOST_TOKENS = 2**26
# Token ids of a vocabulary: a thousand times the largest tokenizer.
LARGEST_TOKEN = 2**28


def is_whole(value: object) -> bool:
    """Return whether a value is an integer, NumPy's included; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_index(value: object, n: int) -> bool:
    """Return whether a value is an integer from 0 to n - 1; True, False and 1.0 are not."""
    return is_whole(value) and 0 <= index(value) < n  # type: ignore[arg-type]


def check_whole(value: object, what: str, low: int, high: int) -> None:
    """Raise `ValueError` unless a value is an integer from `low` to `high`.

    >>> check_whole(0, "batch_size", 1, 5)
    Traceback (most recent call last):
    ValueError: batch_size must be at least 1; got 0
    """
    if not is_whole(value):
        raise ValueError(f"{what} must be an integer; got {shown(value)}")
    number = index(value)  # type: ignore[arg-type]
    if number < low:
        raise ValueError(f"{what} must be at least {low}; got {shown(value)}")
    if number > high:
        raise ValueError(f"{what} must be at most {high}; got {shown(value)}")


def shown(value: object) -> str:
    """Return a short text of any value, for messages."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4300 digits
        text = f"a {type(value).__name__} of too many digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
