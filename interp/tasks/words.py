"""Which words of a list a tokenizer can have: values of one token, and labels of the same number of tokens each."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from interp.tasks.encoding import answer_id, count_tokens, find_tokenizer, tokenizer_of
from interp.tasks.limits import shown
from interp.tasks.list_forms import ListForm

# Words that an error or a warning names.
MOST_NAMED = 8


def list_words(source: Any, form: ListForm, items: int, is_own: bool) -> tuple[list[str], list[str]]:
    """Return the values and the labels of a list that this tokenizer can have.

    Labels in random order are those of one token or, where they are too few, of the commonest number of tokens. Warns
    of words that are left out of one's own list. Raises `ValueError` for fewer words than items, and for labels in
    their own order whose numbers of tokens differ.
    """
    values = one_token_words(source, form.values, form.space("value"))
    labels = _alike(source, form, items, is_own) if form.labels else []
    for what, words, given, size in (
        ("values", values, form.values, "one token"),
        ("labels", labels, form.labels, "the same number of tokens"),
    ):
        out = [word for word in given if word not in words]
        named = ", ".join(out[:MOST_NAMED]) + ", ..." * (len(out) > MOST_NAMED)
        if given and len(words) < items:
            more = f", without {named}" if out else ""
            raise ValueError(f"{items} items need as many {what} of {size}; {form} has {len(words)}{more}")
        if is_own and out:
            warnings.warn(f"{what} that are not of {size} are left out: {named}", stacklevel=3)
    return values, labels


def one_token_words(source: Any, words: Sequence[str], space: str = " ") -> list[str]:
    """Return the words that are one token each after `space`."""

    def is_one(word: str) -> bool:
        try:
            answer_id(source, space + word)
        except ValueError:
            return False
        return True

    tokenizer_of(source, find_tokenizer(source))
    return [word for word in words if is_one(word)]


def _alike(source: Any, form: ListForm, items: int, is_own: bool) -> list[str]:
    tokenizer = tokenizer_of(source, find_tokenizer(source))
    space = form.space("label")
    sizes = {word: count_tokens(tokenizer, space + word) for word in form.labels}
    sizes |= dict.fromkeys(one_token_words(source, form.labels, space), 1)
    if form.ordered:
        first = form.labels[:items]
        if is_own and (other := next((word for word in first if sizes[word] != sizes[first[0]]), None)):
            raise ValueError(
                f"labels in their order need the same number of tokens each; {shown(first[0])} has {sizes[first[0]]}, "
                f"{shown(other)} {sizes[other]}"
            )
        return list(form.labels)
    many = Counter(sizes.values())
    size = 1 if many[1] >= items else many.most_common(1)[0][0]
    return [word for word, n in sizes.items() if n == size]
