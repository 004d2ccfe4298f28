"""Edits of a list: which tokens each arm and its matched control trade or replace (arXiv 2510.06182)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from probes.binding.trials import ALL_BEFORE, ALL_MOVED, BEFORE_LISTED, DEEP_ARMS, Trial

# Arms for models that need the own label and the item before at once.
BOTH, BOTH_LISTED = "label and order", "label and order at list"
ARMS = {
    "label at list": "Does the answer follow the label when two labels of the list are traded?",
    "label at query": "Does the answer follow the label when the query has another item's label?",
    "label at both": "Does a renaming in list and query leave the answer as it is? Expected: 0.",
    "order, value": "Does the answer follow the value before it, when that of another item is put there?",
    "order, label": "Does the answer follow the label before it, when that of another item is put there?",
    "order": "Both: the whole previous item is replaced.",
    "order at list": "Does the answer follow the item before it, when that of another is put there in the list?",
    ALL_BEFORE: "Does the answer follow all items before it, when those of another are put there?",
    BEFORE_LISTED: "The same, when they are traded in the list.",
    BOTH: "Does the answer follow its label and the item before it, when the query has both of another item?",
    BOTH_LISTED: "The same, when both are traded in the list.",
    "position": "Does the answer follow the index, when whole items are traded with the items before them?",
    ALL_MOVED: "The same, when they are traded with all items before them, so that no order moves it.",
    "joint": "Label, order and position together.",
}


@dataclass(frozen=True, eq=False)
class Edit:
    """Tokens of an arm and of its matched control, which differ from the base at the edited positions."""

    tokens: Int[Tensor, "batch pos"]
    control: Int[Tensor, "batch pos"]


class Absent(ValueError):
    """The template has no such label or item, so that an arm does not apply."""


def edit_of(trial: Trial, arm: str) -> Edit:
    """Return the edit of an arm in `ARMS`. Raises `Absent` with the reason where the template does not have it."""
    target, third = trial.target, trial.third
    base = trial.lookups.prompts.tokens
    match arm:
        case "label at list":
            return Edit(
                _traded_labels(trial, base, trial.query, target), _traded_labels(trial, base, *trial.bystanders)
            )
        case "label at query":
            return Edit(_queried(trial, base, target), _queried(trial, base, third))
        case "label at both":
            both = [_queried(trial, _traded_labels(trial, base, trial.query, i), i) for i in (target, third)]
            return Edit(*both)
        case "order, value" | "order, label" | "order":
            parts = ("value", "label") if arm == "order" else (arm.removeprefix("order, "),)
            if arm == "order" and not trial.lookups.query_labels:
                parts = ("value",)
            return Edit(_previous(trial, base, target, parts), _previous(trial, base, third, parts))
        case _ if arm in DEEP_ARMS:
            _require_deep(trial)
            return {ALL_BEFORE: _all_before, BEFORE_LISTED: _before_listed, ALL_MOVED: _all_moved}[arm](trial)
        case "order at list":
            if trial.query - 1 not in trial.lookups.query_values:
                raise Absent("the query shows no item before the one asked for")
            traded = (_traded_items(trial, *pair) for pair in ((trial.query - 1, target - 1), trial.bystanders))
            return Edit(*traded)
        case _ if arm == BOTH:
            return Edit(*(_queried(trial, _before(trial, base, item), item) for item in (target, third)))
        case _ if arm == BOTH_LISTED:
            tokens = _traded_labels(trial, edit_of(trial, "order at list").tokens, trial.query, target)
            return Edit(tokens, _traded_items(trial, *trial.bystanders))
        case "position":
            return Edit(_moved(trial, base), _traded_items(trial, *trial.bystanders))
        case "joint":
            tokens, control = _moved(trial, base), edit_of(trial, "position").control
            if trial.lookups.query_labels and trial.lookups.labels:
                tokens, control = _queried(trial, tokens, target), _queried(trial, control, third)
            if trial.lookups.query_values:
                tokens, control = _before(trial, tokens, target), _before(trial, control, third)
            return Edit(tokens, control)
    raise ValueError(f"unknown arm {arm!r}; arms are {', '.join(ARMS)}")


def answer_traded(trial: Trial) -> Int[Tensor, "batch pos"]:
    """Return the tokens with the values of query and target traded in the list: the answer under every address."""
    base, values = trial.lookups.prompts.tokens, trial.lookups.values
    return _trade(base, base, (values[trial.query],), (values[trial.target],))


def _trade(tokens: Tensor, base: Tensor, first: Sequence[int], second: Sequence[int]) -> Tensor:
    if len(first) != len(second):
        raise Absent("labels of different numbers of tokens cannot be traded")
    new = tokens.clone()
    new[:, list(first)], new[:, list(second)] = base[:, list(second)], base[:, list(first)]
    return new


def _put(trial: Trial, tokens: Tensor, at: Sequence[int], source: Sequence[int]) -> Tensor:
    """Return the tokens with those of the base at `source` put at other positions."""
    if len(at) != len(source):
        raise Absent("labels of different numbers of tokens cannot replace each other")
    new = tokens.clone()
    new[:, list(at)] = trial.lookups.prompts.tokens[:, list(source)]
    return new


def _traded_labels(trial: Trial, tokens: Tensor, first: int, second: int) -> Tensor:
    labels = trial.lookups.labels
    if first not in labels or second not in labels:
        raise Absent("the items have no label of their own")
    return _trade(tokens, trial.lookups.prompts.tokens, labels[first], labels[second])


def _queried(trial: Trial, tokens: Tensor, item: int) -> Tensor:
    if item not in trial.lookups.labels or trial.query not in trial.lookups.query_labels:
        raise Absent("the query has no label of its own")
    return _put(trial, tokens, trial.lookups.query_labels[trial.query], trial.lookups.labels[item])


def _previous(trial: Trial, tokens: Tensor, item: int, parts: Sequence[str]) -> Tensor:
    """Return the tokens with the item before the query replaced by the item before another one."""
    return _shown(trial, tokens, trial.query - 1, item - 1, parts)


def _before(trial: Trial, tokens: Tensor, item: int) -> Tensor:
    """Return the tokens with all that the query shows of the item before it replaced by the item before another one."""
    return _previous(trial, tokens, item, _parts_shown(trial, trial.query - 1))


def _shown(trial: Trial, tokens: Tensor, item: int, source: int, parts: Sequence[str]) -> Tensor:
    """Return the tokens with value or label of an item that the query shows replaced by that of another item."""
    lookups = trial.lookups
    for part in parts:
        if part == "value":
            if item not in lookups.query_values:
                raise Absent("the query shows no item before the one asked for")
            tokens = _put(trial, tokens, (lookups.query_values[item],), (lookups.values[source],))
        else:
            if item not in lookups.query_labels or not lookups.labels:
                raise Absent("the query shows no label before the one asked for")
            tokens = _put(trial, tokens, lookups.query_labels[item], lookups.labels[source])
    return tokens


def _all_before(trial: Trial) -> Edit:
    """Return the query's items replaced by those before the target.

    The control puts the same items there in an order that leads elsewhere: each stands one further back.
    """
    sources = list(range(trial.target - 1, trial.query, -1))  # from the previous item back
    edited = []
    for order in (sources, sources[1:] + sources[:1]):
        tokens = trial.lookups.prompts.tokens
        for item, source in zip(range(trial.query - 1, 0, -1), order, strict=True):
            tokens = _shown(trial, tokens, item, source, _parts_shown(trial, item))
        edited.append(tokens)
    return Edit(*edited)


def _parts_shown(trial: Trial, item: int) -> tuple[str, ...]:
    """Return what the query shows of an item."""
    return ("value", "label") if item in trial.lookups.query_labels and trial.lookups.labels else ("value",)


def _before_listed(trial: Trial) -> Edit:
    """Return the trade of all items before the query with those between it and the target."""
    between = _places(trial, range(trial.query + 1, trial.target))
    base = trial.lookups.prompts.tokens
    return Edit(_trade(base, base, _places(trial, range(1, trial.query)), between), _turned(trial))


def _all_moved(trial: Trial) -> Edit:
    """Return the trade of all items up to the query with the next ones, up to the target."""
    query, target, base = trial.query, trial.target, trial.lookups.prompts.tokens
    places = (_places(trial, items) for items in (range(1, query + 1), range(query + 1, target + 1)))
    return Edit(_trade(base, base, *places), _turned(trial))


def _turned(trial: Trial) -> Tensor:
    """Return the tokens with the order of all items after the query turned; neither it nor an item before it moves."""
    after, base = range(trial.query + 1, trial.lookups.n_items + 1), trial.lookups.prompts.tokens
    tokens = base.clone()
    tokens[:, list(_places(trial, after))] = base[:, list(_places(trial, reversed(after)))]
    return tokens


def _traded_items(trial: Trial, first: int, second: int) -> Tensor:
    """Return the tokens with two whole items of the list traded."""
    base = trial.lookups.prompts.tokens
    return _trade(base, base, _item(trial, first), _item(trial, second))


def _require_deep(trial: Trial) -> None:
    """Raise `Absent` unless the query repeats two or more items, and the target is twice as far down as the query."""
    if not set(range(1, trial.query)) <= set(trial.lookups.query_values) or trial.query < 3:
        raise Absent("the query shows no item before the previous one")
    if not trial.is_deep:
        raise Absent(f"the target must be item {2 * trial.query}")


def _item(trial: Trial, item: int) -> tuple[int, ...]:
    return (*trial.lookups.labels.get(item, ()), trial.lookups.values[item])


def _places(trial: Trial, items: Iterable[int]) -> tuple[int, ...]:
    return tuple(place for item in items for place in _item(trial, item))


def _moved(trial: Trial, tokens: Tensor) -> Tensor:
    """Return the tokens with query and target traded, each together with the item before it.

    The item before stays the item before, so that only the index changes.
    """
    if 1 in (trial.query, trial.target):
        raise Absent("the first item has none before it")
    first, second = ((*_item(trial, i - 1), *_item(trial, i)) for i in (trial.query, trial.target))
    return _trade(tokens, trial.lookups.prompts.tokens, first, second)
