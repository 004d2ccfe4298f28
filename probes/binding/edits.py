"""Edits of a list: which tokens each arm and its matched control trade or replace (arXiv 2510.06182)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from probes.binding.trials import ALL_MOVED, EARLIER, EARLIER_LISTED, Trial

ARMS = {
    "label at list": "Does the answer follow the label when two labels of the list are traded?",
    "label at query": "Does the answer follow the label when the query has another item's label?",
    "label at both": "Does a renaming in list and query leave the answer as it is? Expected: 0.",
    "order, value": "Does the answer follow the value before it, when that of another item is put there?",
    "order, label": "Does the answer follow the label before it, when that of another item is put there?",
    "order": "Both: the whole previous item is replaced.",
    "order at list": "Does the answer follow the item before it, when that of another is put there in the list?",
    EARLIER: "Does the answer follow the items before the previous one, when those of another are put there?",
    EARLIER_LISTED: "The same, when they are traded in the list.",
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
        case _ if arm == EARLIER:
            return Edit(_earlier(trial, trial.target), _earlier(trial, trial.target + 1))
        case _ if arm == ALL_MOVED:
            return _all_moved(trial)
        case "order at list":
            if trial.query - 1 not in trial.lookups.query_values:
                raise Absent("the query shows no item before the one asked for")
            return _listed(trial, ((trial.query - 1, target - 1),), trial.bystanders)
        case _ if arm == EARLIER_LISTED:
            _require_deep(trial)
            return _listed(trial, [(trial.query - d, target - d) for d in range(2, trial.query)], (target - 1, target))
        case "position":
            return Edit(_moved(trial, base), _trade(base, base, *(_item(trial, i) for i in trial.bystanders)))
        case "joint":
            tokens, control = _moved(trial, base), edit_of(trial, "position").control
            if trial.lookups.query_labels and trial.lookups.labels:
                tokens, control = _queried(trial, tokens, target), _queried(trial, control, third)
            if trial.lookups.query_values:
                parts = ("value", "label") if trial.query - 1 in trial.lookups.query_labels else ("value",)
                tokens = _previous(trial, tokens, target, parts)
                control = _previous(trial, control, third, parts)
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
    lookups, before = trial.lookups, trial.query - 1
    for part in parts:
        if part == "value":
            if before not in lookups.query_values:
                raise Absent("the query shows no item before the one asked for")
            tokens = _put(trial, tokens, (lookups.query_values[before],), (lookups.values[item - 1],))
        else:
            if before not in lookups.query_labels or not lookups.labels:
                raise Absent("the query shows no label before the one asked for")
            tokens = _put(trial, tokens, lookups.query_labels[before], lookups.labels[item - 1])
    return tokens


def _earlier(trial: Trial, item: int) -> Tensor:
    """Return the tokens with the query's items before the previous one replaced by those that stand so before `item`.

    Where `item` is one beyond the target, they are the items before another place, or before none.
    """
    _require_deep(trial)
    lookups, tokens = trial.lookups, trial.lookups.prompts.tokens
    for back in range(2, trial.query):
        shown, source = trial.query - back, item - back
        tokens = _put(trial, tokens, (lookups.query_values[shown],), (lookups.values[source],))
        if shown in lookups.query_labels and lookups.labels:
            tokens = _put(trial, tokens, lookups.query_labels[shown], lookups.labels[source])
    return tokens


def _listed(trial: Trial, pairs: Iterable[tuple[int, int]], control: tuple[int, int]) -> Edit:
    """Return the trade of pairs of whole items in the list, and under the control of one pair."""
    base = trial.lookups.prompts.tokens
    tokens = base
    for first, second in pairs:
        tokens = _trade(tokens, base, _item(trial, first), _item(trial, second))
    return Edit(tokens, _trade(base, base, *(_item(trial, i) for i in control)))


def _all_moved(trial: Trial) -> Edit:
    """Return the trade of all items up to the query with the next ones, up to the target.

    The control turns the order of all items after the query; neither it nor an item before it moves.
    """
    _require_deep(trial)
    query, target, base = trial.query, trial.target, trial.lookups.prompts.tokens

    def places(items: Iterable[int]) -> tuple[int, ...]:
        return tuple(p for i in items for p in _item(trial, i))

    after = range(query + 1, trial.lookups.n_items + 1)
    control = base.clone()
    control[:, list(places(after))] = base[:, list(places(reversed(after)))]
    return Edit(_trade(base, base, places(range(1, query + 1)), places(range(query + 1, target + 1))), control)


def _require_deep(trial: Trial) -> None:
    """Raise `Absent` unless the query repeats two or more items, and the target is twice as far down as the query."""
    if not set(range(1, trial.query)) <= set(trial.lookups.query_values) or trial.query < 3:
        raise Absent("the query shows no item before the previous one")
    if not trial.is_deep:
        raise Absent(f"the target must be item {2 * trial.query}")


def _item(trial: Trial, item: int) -> tuple[int, ...]:
    return (*trial.lookups.labels.get(item, ()), trial.lookups.values[item])


def _moved(trial: Trial, tokens: Tensor) -> Tensor:
    """Return the tokens with query and target traded, each together with the item before it.

    The item before stays the item before, so that only the index changes.
    """
    if 1 in (trial.query, trial.target):
        raise Absent("the first item has none before it")
    first, second = ((*_item(trial, i - 1), *_item(trial, i)) for i in (trial.query, trial.target))
    return _trade(tokens, trial.lookups.prompts.tokens, first, second)
