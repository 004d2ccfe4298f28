"""Natural lists as templates: "A. apple", "1. apple", "- apple", repeated in order or asked for one item.

A template has the placeholders `{label1}`, `{value1}`, ... in its list. A second occurrence of one is part of the
query. Any text of this shape, filled by `template`, becomes `Lookups` by `lookups`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from interp.tasks.inputs import Prompts
from interp.tasks.limits import shown
from interp.tasks.list_forms import ListForm
from interp.tasks.templates import template
from interp.tasks.words import list_words

# fmt: off
WORDS = (
    "apple", "bread", "chair", "table", "water", "house", "river", "stone", "green", "horse", "tiger", "paper",
    "glass", "light", "music", "sugar", "money", "snake", "truck", "train", "plane", "cloud", "grass", "shirt",
    "knife", "spoon", "plate", "clock", "phone", "radio", "ocean", "beach", "island", "forest", "garden",
    "bridge", "castle", "market", "school", "window", "door", "book", "bird", "fish", "tree", "milk", "salt",
    "gold", "iron", "silver", "cotton", "wool", "rice", "corn", "bean", "soup", "cake", "wine", "beer", "coffee",
    "tea", "ring", "crown", "drum", "ball", "box", "key",
)
# fmt: on
# fmt: off
NAMES = (
    "Mary", "John", "Tom", "Anna", "Paul", "Lisa", "Mark", "Sarah", "James", "Peter", "Alice", "David", "Susan",
    "Kate", "Mike", "Jane", "Robert", "Emma",
)
# fmt: on
LABEL_KINDS = ("letters", "numerals", "random-numerals", "names", "bullets", "no-labels")
# What is before an item's value, without the space; labels of the other kinds are followed by a full stop.
LINES = {"names": "{label}:", "bullets": "-", "no-labels": ""}
LISTS = tuple(f"list-{kind}" for kind in LABEL_KINDS) + tuple(f"lookup-{kind}" for kind in LABEL_KINDS[:4])
FILLER = " ..."


@dataclass(frozen=True, eq=False)
class Lookups:
    """Prompts that end where the value of item `query` is to be written.

    Positions are by item, from 1. `labels` and `values` are those of the list, `query_labels` and `query_values`
    those after it. An item without a label, or that is not repeated, is missing.
    """

    prompts: Prompts
    query: int
    labels: Mapping[int, tuple[int, ...]]
    values: Mapping[int, int]
    query_labels: Mapping[int, tuple[int, ...]]
    query_values: Mapping[int, int]

    @property
    def n_items(self) -> int:
        """Items in the list."""
        return len(self.values)

    def answer(self, item: int) -> Int[Tensor, " batch"]:
        """Return the token id of an item's value in each prompt."""
        return self.prompts.tokens[:, self.values[item]]


def list_template(task: str, items: int, query: int, fillers: int = 0) -> str:
    """Return the text of a task in `LISTS` up to where the value of item `query` is to be written.

    >>> list_template("lookup-letters", 2, 1)
    'Here is a list:\\nItem {label1} is {value1}\\nItem {label2} is {value2}\\n\\nItem {label1} is'
    """
    return list_form(task, items, fillers).template_of(items, query)


def list_form(task: str | ListForm, items: int, fillers: int = 0) -> ListForm:
    """Return how the lists of a task in `LISTS` are written, and their words, for a number of items.

    A list of one's own is returned as it is. Raises `ValueError` for an unknown task, and for fillers in a list of
    one's own, whose item has them in its text.
    """
    if not isinstance(task, str):
        if fillers:
            raise ValueError(f"{task} has its fillers in its item; leave fillers out")
        return task
    check_list_task(task)
    form, kind = task.split("-", 1)
    # In a lookup, list and query have the label in the same words, so that it is the same token in both.
    line = "Item {label} is" if form == "lookup" else LINES.get(kind, "{label}.")
    line = (line + FILLER * fillers).lstrip(" ")
    asked = line if form == "lookup" else "The same list again:\n{list}"
    labels, ordered = _labels(kind, items)
    text, item = f"Here is a list:\n{{list}}\n\n{asked}", f"{line} {{value}}".lstrip(" ")
    return ListForm(text, item, WORDS, labels, ordered=ordered, name=task)


def sample_lists(
    source: Any, task: str | ListForm, batch: int, items: int, query: int, seed: int, fillers: int = 0
) -> Lookups:
    """Return random prompts of a task in `LISTS`, or of a list of one's own, in the tokens of the source's tokenizer.

    Raises `ValueError` as `list_form`, where too few words are left (see `list_words`), and where a label or a value
    has another number of tokens in some prompt.
    """
    if not 1 <= query <= items or fillers < 0:
        raise ValueError(f"query must be from 1 to {items} and fillers at least 0; got {query} and {fillers}")
    form = list_form(task, items, fillers)
    values, labels = list_words(source, form, items, is_own=form is task)
    rng, rows = Random(seed), []
    for _ in range(batch):
        row = {f"value{i}": word for i, word in enumerate(rng.sample(values, items), 1)}
        chosen = labels[:items] if form.ordered or not labels else rng.sample(labels, items)
        rows.append(row | {f"label{i}": label for i, label in enumerate(chosen, 1)})
    first, *others = template(form.template_of(items, query), rows, source, group=True)
    if others:
        raise ValueError(
            f"{form} has words of other numbers of tokens where they stand than alone; put a space or a line break "
            "before each label and value, or leave out words that the tokenizer joins with their neighbours"
        )
    return lookups(first, query)


def lookups(prompts: Prompts, query: int) -> Lookups:
    """Return prompts of a template with `{value1}`, `{value2}`, ... and maybe `{label1}`, ... as `Lookups`.

    The first occurrence of a placeholder is the item of the list, the second is in the query. Raises `ValueError`
    where a value is not one token, the list has fewer than two, or the text ends with the label of another item than
    `query` or with the value that it asks for. Warns where the text ends in white space that the values begin with.

    >>> rows = [{"label1": "x", "label2": "y", "value1": "red", "value2": "blue"}]
    >>> lookups(template("{label1}={value1} {label2}={value2} {label1}=", rows, run), query=1)
    """
    places = _places(prompts)
    found: dict[tuple[str, int], dict[int, tuple[int, ...]]] = {(n, k): {} for n in ("label", "value") for k in (0, 1)}
    for place in places:
        if place.occurrence < 2:
            found[place.kind, place.occurrence][place.item] = place.positions
    values = {i: p for k in (0, 1) for i, p in found["value", k].items()}
    if long := [i for i, positions in values.items() if len(positions) != 1]:
        raise ValueError(f"a value must be one token; value{long[0]} has {len(values[long[0]])}")
    if len(found["value", 0]) < 2 or query not in found["value", 0]:
        listed = ", ".join(f"value{item}" for item in sorted(found["value", 0])) or "no value"
        raise ValueError(f"a list needs value1, value2, ..., and value{query} for query {query}; it has {listed}")
    _check_query(places, query)
    first = {i: p[0] for i, p in sorted(found["value", 0].items())}
    again = {i: p[0] for i, p in sorted(found["value", 1].items())}
    lists = Lookups(prompts, query, found["label", 0], first, found["label", 1], again)
    if space := _doubled_space(lists):
        warnings.warn(
            f"the text ends in white space ({space[0]!r}) and its answers begin with a space ({space[1]!r}), so the "
            "model reads two; end the text before the white space",
            stacklevel=2,
        )
    return lists


class _Place(NamedTuple):
    """The positions of a placeholder such as `{label2}` at one occurrence, from 0."""

    kind: str
    item: int
    occurrence: int
    positions: tuple[int, ...]


def _places(prompts: Prompts) -> list[_Place]:
    """Return each occurrence of each label and value of a template."""
    places = []
    for name, positions in prompts.spans.items():
        plain, _, occurrence = name.partition(".")
        kind, number = plain.rstrip("0123456789"), plain[len(plain.rstrip("0123456789")) :]
        is_union = not occurrence and f"{name}.0" in prompts.spans
        if kind in ("label", "value") and number and not is_union:
            places.append(_Place(kind, int(number), int(occurrence or 0), positions))
    return places


def _check_query(places: Sequence[_Place], query: int) -> None:
    """Raise `ValueError` where the query's last placeholder says that another item is asked for than `query`."""
    last = max(places, key=lambda place: place.positions[-1])
    item = last.item
    if last.occurrence and last.kind == "label" and item != query:
        raise ValueError(
            f"the text ends with label{item} and so asks for item {item}; query must be {item}; got {query}"
        )
    if last.occurrence and last.kind == "value" and item == query:
        raise ValueError(f"the text ends with value{query}, the answer of query {query}; it must end before the answer")


def _doubled_space(found: Lookups) -> tuple[str, str] | None:
    """Return the last token and an answer where both have the space between them, unlike in the list; else None."""
    symbols, at = found.prompts.symbols(), found.values[found.query]
    answers = map(found.prompts.symbol, found.answer(found.query).unique().tolist())
    spaced = next((answer for answer in answers if answer[:1].isspace()), None)
    before = symbols[at - 1] if at else ""
    return (symbols[-1], spaced) if spaced and symbols[-1][-1:].isspace() and not before[-1:].isspace() else None


def check_list_task(task: str) -> None:
    """Raise `ValueError` unless `task` is in `LISTS`."""
    if task not in LISTS:
        raise ValueError(f"unknown list task {shown(task)}; tasks are {', '.join(LISTS)}")


def _labels(kind: str, items: int) -> tuple[tuple[str, ...], bool]:
    """Return the labels of a kind that lists of so many items can have, and whether they are in this order."""
    match kind:
        case "letters":
            return tuple(ascii_uppercase), True
        # Two digits where one does not suffice: labels are traded, so all must have the same number of tokens.
        case "numerals":
            first = 1 if items < 10 else 10
            return tuple(str(i) for i in range(first, first + items)), True
        case "random-numerals":
            return tuple(str(i) for i in (range(10, 100) if items > 9 else range(1, 10))), False
        case "names":
            return NAMES, False
        case _:
            return (), True
