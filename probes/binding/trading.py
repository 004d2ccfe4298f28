"""Edits of tokens that arms of lists are made of: trades in the list, and replacements in the query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from probes.binding.trials import Trial


@dataclass(frozen=True, eq=False)
class Edit:
    """Tokens of an arm and of its matched control, which differ from the base at the edited positions."""

    tokens: Int[Tensor, "batch pos"]
    control: Int[Tensor, "batch pos"]


class Absent(ValueError):
    """The template has no such label or item, so that an arm does not apply."""


def traded(tokens: Tensor, base: Tensor, first: Sequence[int], second: Sequence[int]) -> Tensor:
    if len(first) != len(second):
        raise Absent("labels of different numbers of tokens cannot be traded")
    new = tokens.clone()
    new[:, list(first)], new[:, list(second)] = base[:, list(second)], base[:, list(first)]
    return new


def replaced(trial: Trial, tokens: Tensor, at: Sequence[int], source: Sequence[int]) -> Tensor:
    """Return the tokens with those of the base at `source` put at other positions."""
    if len(at) != len(source):
        raise Absent("labels of different numbers of tokens cannot replace each other")
    new = tokens.clone()
    new[:, list(at)] = trial.lookups.prompts.tokens[:, list(source)]
    return new


def traded_labels(trial: Trial, tokens: Tensor, first: int, second: int) -> Tensor:
    labels = trial.lookups.labels
    if first not in labels or second not in labels:
        raise Absent("the items have no label of their own")
    return traded(tokens, trial.lookups.prompts.tokens, labels[first], labels[second])


def label_queried(trial: Trial, tokens: Tensor, item: int) -> Tensor:
    if item not in trial.lookups.labels or trial.query not in trial.lookups.query_labels:
        raise Absent("the query has no label of its own")
    return replaced(trial, tokens, trial.lookups.query_labels[trial.query], trial.lookups.labels[item])


def previous_replaced(trial: Trial, tokens: Tensor, item: int, parts: Sequence[str]) -> Tensor:
    """Return the tokens with the item before the query replaced by the item before another one."""
    return shown_replaced(trial, tokens, trial.query - 1, item - 1, parts)


def all_previous(trial: Trial, tokens: Tensor, item: int) -> Tensor:
    """Return the tokens with all that the query shows of the item before it replaced by the item before another one."""
    return previous_replaced(trial, tokens, item, parts_shown(trial, trial.query - 1))


def shown_replaced(trial: Trial, tokens: Tensor, item: int, source: int, parts: Sequence[str]) -> Tensor:
    """Return the tokens with value or label of an item that the query shows replaced by that of another item."""
    lookups = trial.lookups
    for part in parts:
        if part == "value":
            if item not in lookups.query_values:
                raise Absent("the query shows no item before the one asked for")
            tokens = replaced(trial, tokens, (lookups.query_values[item],), (lookups.values[source],))
        else:
            if item not in lookups.query_labels or not lookups.labels:
                raise Absent("the query shows no label before the one asked for")
            tokens = replaced(trial, tokens, lookups.query_labels[item], lookups.labels[source])
    return tokens


def parts_shown(trial: Trial, item: int) -> tuple[str, ...]:
    """Return what the query shows of an item."""
    return ("value", "label") if item in trial.lookups.query_labels and trial.lookups.labels else ("value",)


def traded_items(trial: Trial, first: int, second: int) -> Tensor:
    """Return the tokens with two whole items of the list traded."""
    base = trial.lookups.prompts.tokens
    return traded(base, base, span_of(trial, first), span_of(trial, second))


def span_of(trial: Trial, item: int) -> tuple[int, ...]:
    return (*trial.lookups.labels.get(item, ()), trial.lookups.values[item])


def places_of(trial: Trial, items: Iterable[int]) -> tuple[int, ...]:
    return tuple(place for item in items for place in span_of(trial, item))


def reordered(trial: Trial, items: Sequence[int]) -> Tensor:
    """Return the tokens with the items of the list in another order: the item that each index gets, from the first."""
    tokens = trial.lookups.prompts.tokens
    for index, item in zip(sorted(items), items, strict=True):
        tokens = replaced(trial, tokens, span_of(trial, index), span_of(trial, item))
    return tokens


def pairs_moved(trial: Trial, tokens: Tensor) -> Tensor:
    """Return the tokens with query and target traded, each together with the item before it.

    The item before stays the item before, so that only the index changes.
    """
    if 1 in (trial.query, trial.target):
        raise Absent("the first item has none before it")
    first, second = ((*span_of(trial, i - 1), *span_of(trial, i)) for i in (trial.query, trial.target))
    return traded(tokens, trial.lookups.prompts.tokens, first, second)
