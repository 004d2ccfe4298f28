"""How a list is written: its text, how one item looks, and the words that fill it. Imports no library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from interp.tasks.limits import shown

DOUBLED = " (doubled braces are literal ones)"
# Literal text, and the placeholder after it, if any.
Parts = list[tuple[str, str | None]]


@dataclass(frozen=True)
class ListForm:
    """A list of any number of items, in a text that asks for one of them.

    `text` has `{list}`, where the items stand. What follows asks for an item: by `{label}`, the label of the item
    asked for, or by `{list}` again, as far as that item's value. `item` is how an item is written, with `{value}` and,
    if items have labels, `{label}`; `between` stands between items. Literal braces are doubled. Each prompt takes some
    of the `values` at random, and some of the `labels`, or with `ordered` the first of them in their order.

    Raises `ValueError` for a text or an item of another shape, and for words that are empty or occur twice.
    """

    text: str
    item: str
    values: tuple[str, ...]
    labels: tuple[str, ...] = ()
    between: str = "\n"
    ordered: bool = False
    name: str = "list"

    def __post_init__(self) -> None:
        places = [name for _, name in _parts("text", self.text) if name]
        if "value" in places:
            raise ValueError("text must not have {value}, which the model writes: end it where the value begins")
        if places not in (["list", "list"], ["list", "label"]):
            raise ValueError(
                "text must have {list} and, once after it, {label}, the label of the item asked for, or {list} again; "
                f"it has {_named(places)}{DOUBLED}"
            )
        if places[1] == "list" and not self.text.endswith("{list}"):
            raise ValueError("text must end with its second {list}, because the model writes what follows")
        inside = [name for _, name in _parts("item", self.item) if name]
        if inside not in (["value"], ["label", "value"], ["value", "label"]):
            raise ValueError(
                f"item must have {{value}} once, and {{label}} at most once; it has {_named(inside)}{DOUBLED}"
            )
        if inside == ["value", "label"] and places[1] == "list":
            raise ValueError("in a list that is repeated, the label must be before the value")
        if "label" in places and "label" not in inside:
            raise ValueError(f"text asks for an item by {{label}}, so item must have {{label}} too{DOUBLED}")
        if ("label" in inside) != bool(self.labels):
            missing = f"item has no {{label}}, so leave labels out{DOUBLED}"
            raise ValueError("labels are missing" if "label" in inside else missing)
        for what, words in (("value", self.values), ("label", self.labels)):
            if twice := [word for word in words if words.count(word) > 1]:
                raise ValueError(f"{what}s must differ; {shown(twice[0])} occurs more than once")
            if bad := [word for word in words if word != word.strip() or not word]:
                raise ValueError(f"a {what} must be text without white space around it; got {shown(bad[0])}")
        if both := [word for word in self.values if word in self.labels]:
            raise ValueError(f"{shown(both[0])} is a value and a label; they must differ")

    def __str__(self) -> str:
        return self.name

    def check_items(self, items: int) -> None:
        """Raise `ValueError` for more items than there are values or labels."""
        for what, words in (("values", self.values), ("labels", self.labels)):
            if words and len(words) < items:
                raise ValueError(f"{items} items need as many {what}; {self} has {len(words)}")

    def template_of(self, items: int, query: int) -> str:
        """Return the template up to where the value of item `query`, from 1, is to be written.

        >>> ListForm("{list}\\n\\n{label} is", "{label} is {value}", ("red", "blue"), ("A", "B")).template_of(2, 1)
        '{label1} is {value1}\\n{label2} is {value2}\\n\\n{label1} is'
        """
        written = [self._item(i) for i in range(1, items + 1)]
        whole = _literal(self.between).join(written)
        again = _literal(self.between).join([*written[: query - 1], self._item(query, to_value=True)])
        text, lists = "", iter((whole, again))
        for literal, name in _parts("text", self.text):
            text += _literal(literal)
            text += next(lists) if name == "list" else f"{{label{query}}}" if name == "label" else ""
        return text.rstrip(" ")

    def space(self, of: str) -> str:
        """Return the space that an item has before its "label" or "value", or ""."""
        before = next(literal for literal, name in _parts("item", self.item) if name == of)
        return " " if before.endswith(" ") else ""

    def to_json(self) -> dict[str, Any]:
        """Return what a file of this list has."""
        words = {"values": list(self.values), "labels": list(self.labels)}
        return {"text": self.text, "item": self.item, **words, "between": self.between, "ordered": self.ordered}

    def _item(self, number: int, to_value: bool = False) -> str:
        """Return the template of one item, or only what is before its value."""
        text = ""
        for literal, name in _parts("item", self.item):
            text += _literal(literal)
            if name == "value" and to_value:
                break
            text += f"{{{name}{number}}}" if name else ""
        return text


def read_list_form(path: Path) -> ListForm:
    """Return the list that a JSON file describes, named after the file; its keys are the fields of `ListForm`.

    Raises `ValueError` with the path for a file that cannot be read, and for what a list cannot have.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
        if not isinstance(found, dict):
            raise ValueError(f"it must be an object with text, item and values; got {shown(found)}")
        known = ("text", "item", "values", "labels", "between", "ordered")
        if wrong := sorted(set(found) - set(known)):
            raise ValueError(f"unknown key {shown(wrong[0])}; keys are {', '.join(known)}")
        if missing := [key for key in known[:3] if key not in found]:
            raise ValueError(f"{missing[0]} is missing")
        for key in ("text", "item", "between"):
            if not isinstance(found.get(key, ""), str):
                raise ValueError(f"{key} must be text; got {shown(found[key])}")
        if not isinstance(found.get("ordered", False), bool):
            raise ValueError(f"ordered must be true or false; got {shown(found['ordered'])}")
        for key in ("values", "labels"):
            found[key] = tuple(_words(key, found.get(key, [])))
        return ListForm(**found, name=path.stem)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no list: it is not UTF-8 text") from None
    except ValueError as error:
        raise ValueError(f"{path} is no list: {error}") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"the key {shown(twice[0])} occurs twice")
    return dict(pairs)


def _words(key: str, words: object) -> Sequence[str]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{key} must be a list of words; got {shown(words)}")
    return words


def _parts(what: str, text: str) -> Parts:
    """Return the literal pieces of a text with their placeholders. Raises `ValueError` for other than plain ones."""
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{what} is no template: {error}") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (name not in ("list", "label", "value") or spec or conversion):
            raise ValueError(f"{what} may have the placeholders {{list}}, {{label}} and {{value}}; got {{{name}}}")
    return [(literal, name) for literal, name, _, _ in parsed]


def _literal(text: str) -> str:
    """Return text as a template has it, with its braces doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def _named(places: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in places) or "no placeholder"
