"""One line for arguments that a verb does not take: what was wrong, and what would be right."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from experiments.support.options import FILE, FOLDER, TEXT, field_docs, options_of
from experiments.verbs import VERBS, command_class
from interp.models.names import is_file, is_folder
from interp.support.printable import is_utf8, visible

# Most characters of an argument that a line repeats.
LONGEST_SHOWN = 80
# First character of the metavar of a list that may be empty; its help says what empty means.
MAY_BE_EMPTY = "["
# What a value of each type is called, alone and in a list.
NUMBERS = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers")}


class Option(NamedTuple):
    """What an option or a positional argument takes."""

    name: str
    kind: Any
    """The type of one value; `bool` is a flag. Literals are `Literal`."""
    choices: tuple[str, ...]
    many: bool
    optional: bool
    metavar: str
    required: bool
    help: str

    @property
    def needs_values(self) -> bool:
        """Whether it is a list that must not be empty."""
        return self.many and not self.metavar.startswith(MAY_BE_EMPTY)

    @property
    def wanted(self) -> str:
        """What its value must be; of a text or a path its metavar."""
        if self.choices:
            *first, last = self.choices
            return f"{', '.join(first)} or {last}" if first else last
        return NUMBERS[self.kind][self.many] if self.kind in NUMBERS else self.metavar.split()[0]

    def accepts(self, value: str) -> bool:
        """Return whether a text is a value of its type."""
        if self.optional and value == "None":
            return True
        if self.choices:
            return value in self.choices
        try:
            return self.kind not in NUMBERS or self.kind(value) is not None
        except ValueError:
            return False


class Given(NamedTuple):
    """Arguments that stand together: an option with its values, or without a name one positional argument."""

    name: str
    values: tuple[str, ...]


def why_not_parsed(command: type, args: Sequence[str], said: str) -> str:
    """Return what is wrong with arguments that tyro refused; `said` is what tyro printed."""
    options = _options(command)
    positional = next((o for o in options.values() if not o.name.startswith("--")), None)
    given = list(_given(options, args))
    for name, values in given:
        if not name:
            continue
        if (option := options.get(name)) is None:
            return _unknown_option(command, options, name)
        if not values and not option.many and option.kind is not bool:
            return f"{name} needs a value: {option.wanted}"
        if not values and option.needs_values:
            return _needs_values(option)
        for value in values:
            if not option.accepts(value):
                alone = option.many and positional is not None and not any(not other for other, _ in given)
                hint = f"; {positional.metavar.split()[0]} stands before the options" if positional and alone else ""
                return f"{name} must be {option.wanted}; got {_shown(value)}{hint}"
    if positional is not None and positional.required and not any(not name for name, _ in given):
        return f"{positional.metavar.split()[0]} is missing: {positional.help}"
    return flattened(said) or "the arguments are not understood; --help shows the options"


def why_left_over(command: type, args: Sequence[str], left: Sequence[str]) -> str:
    """Return what is wrong with arguments that a verb does not have, with its nearest option."""
    options = _options(command)
    if (first := next((text for text in left if text.startswith("-")), None)) is not None:
        return _unknown_option(command, options, first.partition("=")[0])
    positional = next((o for o in options.values() if not o.name.startswith("--")), None)
    text = f"unexpected argument {_shown(left[0])}"
    given = list(_given(options, args))
    for before, here in pairwise(given):
        option = options.get(before.name)
        if not here.name and here.values[0] == left[0] and option is not None and not option.many:
            text += f": {option.name} takes {'no' if option.kind is bool else 'one'} value"
            several = positional is not None and positional.many
            return f"{text}, and runs stand before the options" if several else text
    if positional is not None and not positional.many:
        return f"{text}: one {positional.metavar} is taken"
    return f"{text}; --help shows the options"


def why_empty(command: type, args: Sequence[str]) -> str:
    """Return which list option was given without values, where it needs some; "" for none. tyro takes empty lists."""
    options = _options(command)
    named = [(options.get(name), values) for name, values in _given(options, args) if name]
    return next((_needs_values(o) for o, values in named if o is not None and o.needs_values and not values), "")


def why_not_utf8(command: type, args: Sequence[str]) -> str:
    """Return which value is not UTF-8 text, with its option; "" for none. Values that are paths may have any name."""
    options = _options(command)
    positional = next((o for o in options.values() if not o.name.startswith("--")), None)
    for name, values in _given(options, args):
        option = options.get(name) if name else positional
        what, kind = ("an argument", "") if option is None else (option.name.split()[0], option.metavar)
        for value in values:
            is_path = kind in (FOLDER, *FILE) or (not kind.startswith(TEXT) and _is_there(value))
            if not (is_path or is_utf8(value)):
                return f"{what} is not UTF-8 text: {_shown(value)}"
    return ""


def _is_there(path: str) -> bool:
    return is_file(Path(path)) or is_folder(Path(path))


def flattened(box: str) -> str:
    """Return the text of a box of lines, up to its first rule, as one line."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    inside = [line for line in lines if not line.startswith("╭")]
    end = next((k for k, line in enumerate(inside) if re.match("[─╰]", line)), len(inside))
    return " ".join(" ".join(inside[:end]).split())


def _given(options: dict[str, Option], args: Sequence[str]) -> Iterator[Given]:
    """Yield the arguments in groups, as tyro reads them.

    A list takes what follows up to the next option, but leaves the last argument to a positional one that is needed.
    """
    left, only_positional = list(args), False
    needed = any(not o.name.startswith("--") and o.required and not o.many for o in options.values())
    while left:
        text = left.pop(0)
        if only_positional or not _is_option(text):
            needed = False
            yield Given("", (text,))
            continue
        if text == "--":
            only_positional = True
            continue
        key, attached, value = text.partition("=")
        option, values = options.get(key.replace("_", "-")), (value,) if attached else ()
        if option is None:
            yield Given(key, values)
        elif option.kind is bool:
            yield Given(option.name, ())
            if attached:
                yield Given("", values)
        else:
            while left and (option.many or not values) and not _is_option(left[0]):
                if option.many and needed and len(left) == 1:
                    break
                values += (left.pop(0),)
            yield Given(option.name, values)


def _is_option(text: str) -> bool:
    return text == "--" or (re.match("--?[A-Za-z]", text) is not None and not re.fullmatch("-(inf|nan)", text))


def _needs_values(option: Option) -> str:
    return f"{option.name} needs at least one value: {option.wanted}"


def _unknown_option(command: type, options: dict[str, Option], name: str) -> str:
    """Return that a verb has no such option, with the verbs that have it, or else its own nearest option."""
    name = name[:LONGEST_SHOWN].replace("_", "-")
    having = [verb for verb in VERBS if name.startswith("--") and name in options_of(command_class(verb))]
    if having:
        (own,) = [verb for verb in VERBS if command_class(verb) is command]
        *others, last = having
        return f"{own} has no option {name}; " + (
            f"{', '.join(others)} and {last} have it" if others else f"{last} has it"
        )
    near = difflib.get_close_matches(name, [option for option in options if option.startswith("--")], n=1)
    hint = f"did you mean {near[0]}?" if near else "--help shows the options"
    return f"unknown option {visible(name)}; {hint}"


def _options(command: type) -> dict[str, Option]:
    """Return the options of a verb's dataclass by name."""
    hints, docs = get_type_hints(command), field_docs(command)
    found = {}
    for name, (field, config) in options_of(command).items():
        hint, optional = hints[field.name], False
        if get_origin(hint) in (Union, UnionType):
            (hint,) = [part for part in get_args(hint) if part is not NoneType]
            optional = True
        many = get_origin(hint) is tuple
        hint = get_args(hint)[0] if many else hint
        choices = tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()
        found[name] = Option(
            name,
            kind=Literal if choices else hint,
            choices=choices,
            many=many,
            optional=optional,
            metavar=(config and config.metavar) or field.name.upper(),
            required=field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
            help=_first_sentence((config and config.help) or docs.get(field.name, "")),
        )
    return found


def _first_sentence(text: str) -> str:
    sentence = re.split(r"\.\s", " ".join(text.split()) + " ")[0]
    return sentence[:1].lower() + sentence[1:]


def _shown(value: str) -> str:
    return repr(value[:LONGEST_SHOWN])
