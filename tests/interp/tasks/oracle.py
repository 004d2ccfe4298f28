"""An independent reader of prompts, from their text alone. It imports nothing of `interp`.

It reads a prompt token by token, by the literal formats (probes/README.md, Paper and formats), names each position
and recomputes what the output must be.
"""

from __future__ import annotations

import re
from collections.abc import Container
from itertools import pairwise

POOL = range(1, 129)
HELD_OUT = range(129, 193)
EVERY_LABEL = range(1, 193)
RANDOM_LABELS = ("aligned", "nonaligned", "gap", "suffix", "hints")


class Misread(Exception):
    """The text does not have the form of its format."""


class Reader:
    """Reads tokens of a text from the left and records what each is for."""

    def __init__(self, text: str) -> None:
        self.words = text.split(" ")
        self.names: list[str] = []

    @property
    def next(self) -> str:
        return self.words[len(self.names)] if len(self.names) < len(self.words) else "the end"

    def take(self, name: str, allowed: Container[str] | None = None) -> str:
        word = self.next
        if word == "the end" or (allowed is not None and word not in allowed):
            raise Misread(f"token {len(self.names)} is {word!r}, which is no {name}")
        self.names.append(name)
        return word

    def end(self) -> None:
        if self.next != "the end":
            raise Misread(f"{self.next!r} after the end of the prompt")


def complaints(text: str, name: str, pool: Container[int] = POOL) -> list[str]:
    """Return what is wrong with a prompt of the format of that name; nothing for a correct one."""
    try:
        return _read(Reader(text), name, pool)
    except Misread as error:
        return [str(error)]


def names(text: str, name: str) -> list[str]:
    """Return what each position of a prompt is for, such as "output label 25"."""
    reader = Reader(text)
    found = _read(reader, name, POOL)
    assert not found, found
    return reader.names


def _read(reader: Reader, name: str, pool: Container[int]) -> list[str]:
    task, _, kind = name.partition("-")
    match task:
        case "parity" if kind == "interleaved":
            return _interleaved(reader)
        case "parity":
            return _parity(reader, *_split(kind), pool=pool)
        case "addition":
            return _addition(reader, kind, pool)
        case "recall":
            return _recall(reader, kind, EVERY_LABEL)  # recall rehearses the held-out labels too
    raise AssertionError(name)


def _split(kind: str) -> tuple[str, int]:
    letters, digits = re.fullmatch(r"([a-z]+)(\d*)", kind).groups()  # type: ignore[union-attr]
    return letters, int(digits or 8 * (letters == "cyclic"))


def _label_complaints(labels: list[str], pool: Container[int]) -> list[str]:
    found = [f"label {x} is not from the pool" for x in labels if not (x[0] == "M" and int(x[1:]) in pool)]
    return found + [f"label {x} is repeated" for x in set(labels) if labels.count(x) > 1]


def _interleaved(reader: Reader) -> list[str]:
    reader.take("start", [">>>"])
    ones, step, found = 0, 0, []
    while reader.next != "the end":
        step += 1
        ones += int(reader.take(f"input {step}", ["0", "1"]))
        if reader.take(f"output {step}", ["[0]", "[1]"]) != f"[{ones % 2}]":
            found.append(f"parity {step} is wrong")
    return found


def _parity(reader: Reader, kind: str, number: int, pool: Container[int]) -> list[str]:
    labelled = kind not in ("direct", "scratchpad")
    alphabet = "ab" if kind == "numeric" else "01"
    label = re.compile({"numeric": r"\d+", "constant": "#", "cyclic": r"c\d+"}.get(kind, r"M\d+"))

    def item(side: str, step: int) -> tuple[str, int]:
        def take_label() -> str:
            mark = reader.take(f"{side} label {step}")
            if not label.fullmatch(mark):
                raise Misread(f"{mark!r} is no {side} label")
            return mark

        mark = take_label() if labelled and kind != "suffix" else ""
        for _ in range(number if kind == "gap" else 0):
            reader.take(f"filler {step}", ["_"])
        value = alphabet.index(reader.take(f"{side} {step}", alphabet))
        return take_label() if kind == "suffix" else mark, value

    reader.take("start", [">>>"])
    inputs: list[tuple[str, int]] = []
    while reader.next != "===":
        inputs.append(item("input", len(inputs) + 1))
    reader.take("separator")
    n = len(inputs)
    outputs = [item("output", step) for step in range(n if kind == "direct" else 1, n + 1)]
    reader.end()

    parity, running = 0, []
    for _, bit in inputs:
        parity ^= bit
        running.append(parity)
    written = [value for _, value in outputs]
    found = [] if written == running[-len(written) :] else [f"parities are {written}, not {running}"]
    marks, cited = [mark for mark, _ in inputs], [mark for mark, _ in outputs]
    if kind in RANDOM_LABELS:
        found += _label_complaints(marks + cited if kind == "nonaligned" else marks, pool)
        if kind == "hints":
            found += [f"{b} does not follow {a}" for a, b in pairwise(marks) if int(b[1:]) != int(a[1:]) + 1]
    elif labelled:
        right = {"numeric": lambda i: str(i + 1), "constant": lambda i: "#", "cyclic": lambda i: f"c{i % number + 1}"}
        found += [f"label {i + 1} is {mark}" for i, mark in enumerate(marks) if mark != right[kind](i)]
    if labelled and kind != "nonaligned" and marks != cited:
        found.append("output labels are not the input labels in order")
    return found


def _addition(reader: Reader, kind: str, pool: Container[int]) -> list[str]:
    digits = "0123456789"

    def operand(closed_by: str) -> tuple[str, list[str]]:
        """The number as written, and its labels, left to right; the closing label of the operand last."""
        start = len(reader.names)
        end = reader.words.index(closed_by, start) if closed_by in reader.words[start:] else len(reader.words)
        count = end - start
        places = count if kind == "none" else count // 2
        number, marks = "", []
        for place in range(places, 0, -1):
            if kind != "none":
                marks.append(reader.take(f"input label {place}"))
            number += reader.take(f"input {place}", digits)
        if kind in ("aligned", "zeropad"):
            marks.append(reader.take("input label ?"))
        reader.take("separator", [closed_by])
        return number, marks

    reader.take("start", [">>>"])
    first, first_marks = operand("+")
    second, second_marks = operand("===")
    places = max(len(first), len(second))
    reader.names = [x.replace("?", str(places + 1)) for x in reader.names]
    found = []
    if kind == "zeropad":
        if len(first) != len(second) or (places > 1 and first[0] == second[0] == "0"):
            found.append("operands are not padded to the length of the longer")
    else:
        found += [f"{x} begins with 0" for x in (first, second) if len(x) > 1 and x[0] == "0"]

    # The labels that the output must cite before the digit of each place, by place.
    cited: dict[int, list[str]] = {place: [] for place in range(1, places + 2)}
    if kind == "nonaligned":
        for marks in (second_marks, first_marks):
            for place, mark in enumerate(reversed(marks), start=1):
                cited[place].append(mark)
        found += _label_complaints(first_marks + second_marks, pool)
    elif kind != "none":
        longer, shorter = sorted((first_marks, second_marks), key=len, reverse=True)
        for place, mark in enumerate([*reversed(longer[:-1]), longer[-1]], start=1):
            cited[place].append(mark)
        found += _label_complaints(longer, pool)
        if shorter != longer[len(longer) - len(shorter) :]:
            found.append("the operands' labels differ")

    total = str(int(first) + int(second)).zfill(places + 1)
    for side, order in (("output", range(1, places + 2)), ("answer", range(places + 1, 0, -1))):
        for place in order:
            for mark in cited[place]:
                reader.take(f"{side} label {place}", [mark])
            if reader.take(f"{side} {place}", digits) != total[-place]:
                found.append(f"{side} digit {place} is wrong: {first} + {second} = {total}")
        if side == "output":
            reader.take("separator", ["###"])
    reader.end()
    return found


def _recall(reader: Reader, kind: str, pool: Container[int]) -> list[str]:
    values = "cdefghijklmnopqr"
    reader.take("start", ["???"])
    stored: dict[str, str] = {}
    marks, asked, found = [], [], []
    while reader.next != "===":
        step = len(marks) + 1
        marks.append(reader.take(f"input label {step}"))
        stored[marks[-1]] = reader.take(f"input {step}", values)
    reader.take("separator")
    while reader.next != "the end":
        step = len(asked) + 1
        asked.append(reader.take(f"output label {step}", stored))
        if reader.take(f"output {step}", values) != stored[asked[-1]]:
            found.append(f"value {step} is wrong")
    found += _label_complaints(marks, pool)
    if (asked if kind == "ordered" else sorted(asked)) != (marks if kind == "ordered" else sorted(marks)):
        found.append("the labels asked for are not those that are stored")
    return found
