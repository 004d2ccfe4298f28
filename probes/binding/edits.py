"""Edits of a list: which tokens each arm and its matched control trade or replace (arXiv 2510.06182)."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from probes.binding.trading import (
    Absent,
    Edit,
    all_previous,
    label_queried,
    pairs_moved,
    parts_shown,
    places_of,
    previous_replaced,
    reordered,
    shown_replaced,
    traded,
    traded_items,
    traded_labels,
)
from probes.binding.trials import (
    ALL_BEFORE,
    ALL_MOVED,
    BEFORE_LISTED,
    BOTH_DEEP,
    DEEP_CHECKS,
    JOINT_DEEP,
    LABEL_DEEP,
    LABEL_MOVED,
    ORDER_MOVED,
    Trial,
)

# Arms of two addresses, for models that need both, or any two of three.
BOTH, BOTH_LISTED = "label and order", "label and order at list"
LABEL_POSITION, ORDER_POSITION = "label and position", "order and position"
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
    LABEL_POSITION: "Does the answer follow its label and the index, when the query has another item's label too?",
    ORDER_POSITION: "Does the answer follow the item before it and the index, when the query shows another's too?",
    LABEL_MOVED: "Label and index, by the trade of all items before.",
    ORDER_MOVED: "All items before and the index, by the trade of all items before.",
    "joint": "Label, order and position together.",
}
# Edits that lead to the item after the query: an address may decide only between items that stand close together.
NEXT = {"own label": "label at query, next item", "position": "position, next item"}


def _lattice(*arms: str) -> dict[frozenset[str], str]:
    """Return the arm that edits each set of addresses, in the order of `SETS`."""
    return dict(zip(SETS, arms, strict=True))


SETS = tuple(
    frozenset(names.split(", "))
    for names in (
        "own label",
        "order",
        "position",
        "own label, order",
        "own label, position",
        "order, position",
        "own label, order, position",
    )
)
# What an address adds is the difference of two arms of one of these. In the second the order is of all items before.
LATTICES = (
    _lattice("label at query", "order", "position", BOTH, LABEL_POSITION, ORDER_POSITION, "joint"),
    _lattice(LABEL_DEEP, ALL_BEFORE, ALL_MOVED, BOTH_DEEP, LABEL_MOVED, ORDER_MOVED, JOINT_DEEP),
)


def edit_of(trial: Trial, arm: str) -> Edit:
    """Return the edit of an arm in `ARMS`. Raises `Absent` with the reason where the template does not have it."""
    target, third = trial.target, trial.third
    base = trial.lookups.prompts.tokens
    match arm:
        case "label at list":
            return Edit(traded_labels(trial, base, trial.query, target), traded_labels(trial, base, *trial.bystanders))
        case "label at query":
            return Edit(label_queried(trial, base, target), label_queried(trial, base, third))
        case "label at both":
            both = [label_queried(trial, traded_labels(trial, base, trial.query, i), i) for i in (target, third)]
            return Edit(*both)
        case "order, value" | "order, label" | "order":
            parts = ("value", "label") if arm == "order" else (arm.removeprefix("order, "),)
            if arm == "order" and not trial.lookups.query_labels:
                parts = ("value",)
            return Edit(previous_replaced(trial, base, target, parts), previous_replaced(trial, base, third, parts))
        case _ if arm in DEEP:
            _require_deep(trial)
            return DEEP[arm](trial)
        case "order at list":
            if trial.query - 1 not in trial.lookups.query_values:
                raise Absent("the query shows no item before the one asked for")
            pairs = ((trial.query - 1, target - 1), trial.bystanders)
            return Edit(*(traded_items(trial, *pair) for pair in pairs))
        case _ if arm == BOTH:
            return _queried_too(trial, _shown_too(trial, Edit(base, base)))
        case _ if arm == BOTH_LISTED:
            tokens = traded_labels(trial, edit_of(trial, "order at list").tokens, trial.query, target)
            return Edit(tokens, traded_items(trial, *trial.bystanders))
        case "position":
            return Edit(pairs_moved(trial, base), traded_items(trial, *trial.bystanders))
        case _ if arm in (LABEL_POSITION, ORDER_POSITION):
            moved = edit_of(trial, "position")
            return _queried_too(trial, moved) if arm == LABEL_POSITION else _shown_too(trial, moved)
        case "joint":
            edit = edit_of(trial, "position")
            if trial.lookups.query_labels and trial.lookups.labels:
                edit = _queried_too(trial, edit)
            return _shown_too(trial, edit) if trial.lookups.query_values else edit
    raise ValueError(f"unknown arm {arm!r}; arms are {', '.join((*ARMS, *DEEP_CHECKS))}")


def next_of(trial: Trial, address: str) -> Int[Tensor, "batch pos"]:
    """Return the tokens with an edit of `NEXT`: the query has the label of the item after it, or that has its index.

    Raises `Absent` with the reason where the template does not have it.
    """
    base, query, items = trial.lookups.prompts.tokens, trial.query, trial.lookups.n_items
    if query == items:
        raise Absent("no item stands after the one asked for")
    if address == "own label":
        return label_queried(trial, base, query + 1)
    if query > 2:  # all items move up by one, and the first comes last: the query's keeps the item before it
        return reordered(trial, [*range(2, items + 1), 1])
    return reordered(trial, [query + 2, query + 1, *range(1, query + 1), *range(query + 3, items + 1)])


def answer_traded(trial: Trial, item: int | None = None) -> Int[Tensor, "batch pos"]:
    """Return the tokens with the values of query and target traded in the list: the answer under every address.

    `item`: another item in place of the target.
    """
    base, values = trial.lookups.prompts.tokens, trial.lookups.values
    return traded(base, base, (values[trial.query],), (values[item or trial.target],))


def _queried_too(trial: Trial, edit: Edit) -> Edit:
    """Return an edit in which the query also has the target's label, and in its control that of the third item."""
    tokens, control = label_queried(trial, edit.tokens, trial.target), label_queried(trial, edit.control, trial.third)
    return Edit(tokens, control)


def _shown_too(trial: Trial, edit: Edit) -> Edit:
    """Return an edit in which the query also shows the item before the target, and in its control the third's."""
    tokens, control = all_previous(trial, edit.tokens, trial.target), all_previous(trial, edit.control, trial.third)
    return Edit(tokens, control)


def _all_before(trial: Trial, edit: Edit | None = None) -> Edit:
    """Return the query's items replaced by those before the target, in the base or in another edit.

    The control puts the same items there in an order that leads elsewhere: each stands one further back.
    """
    sources = list(range(trial.target - 1, trial.query, -1))  # from the previous item back
    base, edited = trial.lookups.prompts.tokens, []
    given = (base, base) if edit is None else (edit.tokens, edit.control)
    for tokens, order in zip(given, (sources, sources[1:] + sources[:1]), strict=True):
        for item, source in zip(range(trial.query - 1, 0, -1), order, strict=True):
            tokens = shown_replaced(trial, tokens, item, source, parts_shown(trial, item))
        edited.append(tokens)
    return Edit(*edited)


def _before_listed(trial: Trial) -> Edit:
    """Return the trade of all items before the query with those between it and the target."""
    between = places_of(trial, range(trial.query + 1, trial.target))
    base = trial.lookups.prompts.tokens
    return Edit(traded(base, base, places_of(trial, range(1, trial.query)), between), _turned(trial))


def _all_moved(trial: Trial) -> Edit:
    """Return the trade of all items up to the query with the next ones, up to the target."""
    query, target, base = trial.query, trial.target, trial.lookups.prompts.tokens
    places = (places_of(trial, items) for items in (range(1, query + 1), range(query + 1, target + 1)))
    return Edit(traded(base, base, *places), _turned(trial))


def _label_deep(trial: Trial) -> Edit:
    base = trial.lookups.prompts.tokens
    return _queried_too(trial, Edit(base, base))


def _both_deep(trial: Trial) -> Edit:
    return _all_before(trial, _label_deep(trial))


def _joint_deep(trial: Trial) -> Edit:
    return _all_before(trial, _label_moved(trial))


def _label_moved(trial: Trial) -> Edit:
    return _queried_too(trial, _all_moved(trial))


def _order_moved(trial: Trial) -> Edit:
    return _all_before(trial, _all_moved(trial))


def _turned(trial: Trial) -> Tensor:
    """Return the tokens with the order of all items after the query turned; neither it nor an item before it moves."""
    after, base = range(trial.query + 1, trial.lookups.n_items + 1), trial.lookups.prompts.tokens
    tokens = base.clone()
    tokens[:, list(places_of(trial, after))] = base[:, list(places_of(trial, reversed(after)))]
    return tokens


def _require_deep(trial: Trial) -> None:
    """Raise `Absent` unless the query repeats two or more items, and the target is twice as far down as the query."""
    if not set(range(1, trial.query)) <= set(trial.lookups.query_values) or trial.query < 3:
        raise Absent("the query shows no item before the previous one")
    if not trial.is_deep:
        raise Absent(f"the target must be item {2 * trial.query}")


DEEP = {
    ALL_BEFORE: _all_before,
    BEFORE_LISTED: _before_listed,
    ALL_MOVED: _all_moved,
    LABEL_MOVED: _label_moved,
    ORDER_MOVED: _order_moved,
    LABEL_DEEP: _label_deep,
    BOTH_DEEP: _both_deep,
    JOINT_DEEP: _joint_deep,
}
