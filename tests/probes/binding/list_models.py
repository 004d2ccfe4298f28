"""A tokenizer in which the words of lists are one token each, and functions that answer by a known address."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.tasks.lists import NAMES, WORDS
from probes.binding import Trial
from tests.small_language_model import word_tokenizer

Answer = Callable[[Trial, Tensor], Tensor]


@cache
def list_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of the words and names of lists, with and without a space before them."""
    texts = tuple(text for word in (*WORDS, *NAMES) for text in (f"{word} {word}", f"\n{word}\n"))
    return word_tokenizer(texts, 1400)


def by_label(trial: Trial, tokens: Tensor) -> Tensor:
    """Return the value after the label that the query ends with."""
    found = trial.lookups
    asked = tokens[:, list(found.query_labels[trial.query])]
    return _where(trial, tokens, [tokens[:, list(found.labels[i])] == asked for i in range(1, found.n_items + 1)])


def by_order(trial: Trial, tokens: Tensor) -> Tensor:
    """Return the value after the list's item whose value is the last one of the query."""
    found = trial.lookups
    last = tokens[:, [found.query_values[trial.query - 1]]]
    never = torch.zeros_like(last, dtype=torch.bool)
    before = [tokens[:, [found.values[i]]] == last for i in range(1, found.n_items)]
    return _where(trial, tokens, [never, *before])


def by_two_before(trial: Trial, tokens: Tensor) -> Tensor:
    """Return the value two items after the list's item whose value is the last but one of the query."""
    found = trial.lookups
    shown = tokens[:, [found.query_values[trial.query - 2]]]
    never = torch.zeros_like(shown, dtype=torch.bool)
    before = [tokens[:, [found.values[i]]] == shown for i in range(1, found.n_items - 1)]
    return _where(trial, tokens, [never, never, *before])


def by_position(trial: Trial, tokens: Tensor) -> Tensor:
    """Return the value at the index of the query."""
    return tokens[:, trial.lookups.values[trial.query]]


def _where(trial: Trial, tokens: Tensor, matches: list[Tensor]) -> Tensor:
    item = torch.stack([match.all(dim=1) for match in matches], dim=1)
    values = tokens[:, list(trial.lookups.values.values())]
    assert (item.sum(dim=1) <= 1).all()
    return torch.where(item, values, 0).sum(dim=1)  # 0 is no value: nothing follows the last item
