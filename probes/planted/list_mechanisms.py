"""Mechanisms by which a planted model finds the item of a list, and what is true of each by construction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from probes.planted.codes import gap, place_code
from probes.planted.parts import ONE, Form, Head, Match, Mechanism, Move, Neuron, Offset, any_key, table
from probes.planted.pieces import Parts

# Codes that a value has of what stands before it in the list, and that the end of the query has of the same.
BEHIND = ("own label", "value before", "label before", "value two before")


@dataclass(frozen=True)
class ListSetting:
    """The setting that a mechanism is built for.

    `behind`: how many tokens before a value each of `BEHIND` stands; the query ends one token before the value that is
    to be written. `distance`: from a value in the list to the end of its query. `indexed`: the place of each item by
    the code of its label (GPT-2: the position; otherwise the number of values so far).
    """

    architecture: str
    share: float
    sharpness: float
    frequencies: Float[Tensor, " pair"]
    offset_sharpness: float
    behind: Mapping[str, int]
    distance: int
    indexed: tuple[tuple[Float[Tensor, " code"], int], ...]

    @property
    def place_sharpness(self) -> float:
        """The sharpness of a match of places."""
        return self.sharpness / gap(self.frequencies)


def seen(s: ListSetting, *names: str) -> Parts:
    """Return heads that copy a code from before a value to the value, and from before the query's end to it."""
    return tuple(
        Head(0, (Offset(back, s.offset_sharpness),), (Move("word", f"{name}, {where}"),))
        for name in names
        for where, back in (("listed", s.behind[name]), ("asked", s.behind[name] - 1))
    )


def same(s: ListSetting, name: str, weight: float = 2.0) -> Match:
    """Return a score for values of the list that have what the query has."""
    return Match(f"{name}, asked", f"{name}, listed", weight * s.sharpness)


def reading(s: ListSetting, *scores: Match | Offset, result: str = "found", start: float = 0.0) -> Head:
    """Return a head that reads the value with the highest score; `start` is the score of the first token."""
    keys: Form = {"is value": s.sharpness, "is start": start * s.sharpness}
    return Head(1, (*scores, any_key(keys)), (Move("value", result),))


def by(*weighted: tuple[str, float]) -> Callable[[ListSetting], Mechanism]:
    """Return a mechanism that reads the value with the highest sum of matches, each with its weight."""

    def build(s: ListSetting) -> Mechanism:
        names = [name for name, _ in weighted]
        scores = [same(s, name, weight) for name, weight in weighted]
        return Mechanism((*seen(s, *names), reading(s, *scores)), {"found": 1.0})

    return build


def by_both(first: str, second: str) -> Callable[[ListSetting], Mechanism]:
    """Return a mechanism that reads the value with both matches, and without one nothing."""

    def build(s: ListSetting) -> Mechanism:
        # Both matches have a score of 5, one has at most 3.7.
        head = reading(s, same(s, first), same(s, second), start=4.3)
        return Mechanism((*seen(s, first, second), head), {"found": 1.0})

    return build


def by_position(s: ListSetting) -> Mechanism:
    """The value at a fixed distance is read."""
    return Mechanism((reading(s, Offset(s.distance, s.offset_sharpness)),), {"found": 1.0})


def by_learned_index(s: ListSetting) -> Mechanism:
    """The query's label gives the place of its item, whatever labels the list has."""
    targets = [(code, place_code(torch.tensor(place), s.frequencies)) for code, place in s.indexed]
    head = reading(s, Match("target", "place", s.place_sharpness))
    return Mechanism((*seen(s, "own label"), *places(s), *by_code(targets, "target"), head), {"found": 1.0})


def by_label_after(s: ListSetting) -> Mechanism:
    """The query's label gives the label after it; the value before that label is read."""
    item, own = s.behind["value before"], s.behind["own label"]
    units = by_code(pairwise(code for code, _ in s.indexed), "label wanted")
    back = Head(
        0, (Offset(item - own, s.offset_sharpness),), (Move("value", "value behind"), Move("is value", "follows"))
    )
    scores = (Match("label wanted", "word", 2 * s.sharpness), any_key({"follows": s.sharpness}))
    read = Head(1, scores, (Move("value behind", "found"),))
    return Mechanism((*seen(s, "own label"), *units, back, read), {"found": 1.0})


def by_code(pairs: Iterable[tuple[Tensor, Tensor]], feature: str) -> Parts:
    """Return a unit per pair: where the query's label has the first code, it writes the second into a feature."""
    units = []
    for code, written in pairs:
        reads: Form = {ONE: -1.0, **{("own label, asked", k): 2 * float(x) for k, x in enumerate(code)}}
        units.append(Neuron(0, reads, {feature: written}))  # 1 times the code for this label, and 0 for the others
    return tuple(units)


def places(s: ListSetting) -> Parts:
    """Return parts that count the values so far as "place"; GPT-2's positions are places already."""
    if s.architecture == "gpt2":
        return ()
    count = Head(0, (any_key({"is start": 20.0, "is value": 20.0}),), (Move({"is start": 1.0}, "values"),))
    m = torch.arange(40)
    return (count, *table(0, {"values": 1.0}, (1 / (1 + m)).tolist(), {"place": place_code(m, s.frequencies)}))


def two(first: str, second: str) -> Callable[[ListSetting], Mechanism]:
    """Return a mechanism of two routes with shares of the logits; "position" is the one by distance."""

    def build(s: ListSetting) -> Mechanism:
        parts: list[Head | Neuron] = []
        for name, result in ((first, "found"), (second, "second found")):
            if name == "position":
                parts.append(reading(s, Offset(s.distance, s.offset_sharpness), result=result))
            else:
                parts += [*seen(s, name), reading(s, same(s, name), result=result)]
        return Mechanism(tuple(parts), {"found": s.share, "second found": 1 - s.share})

    return build


def resting(first: Callable[[ListSetting], Mechanism], flag: str) -> Callable[[ListSetting], Mechanism]:
    """Return the mechanism with a head that rests on tokens of a flag, and without them adds wrong values."""

    def build(s: ListSetting) -> Mechanism:
        circuit = first(s)
        keys: Form = {flag: 40.0, "is value": 8.0, ("value", 0): 8.0, ("value", 1): 8.0}
        head = Head(1, (any_key(keys),), (Move("value", "wrong value"),))
        return Mechanism((*circuit.parts, head), {**circuit.routes, "wrong value": 3.0})

    return build


@dataclass(frozen=True)
class ListTruth:
    """A mechanism with the addresses and sinks that it has.

    `unjudged`: candidates for sinks on which some heads rest at the first item alone, before which there is none, or
    which they count against. `routes`: 2 for two routes with shares of the logits. `ordered`: the mechanism needs
    labels in one order.
    """

    build: Callable[[ListSetting], Mechanism]
    addresses: tuple[str, ...]
    sinks: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    routes: int = 1
    ordered: bool = False


OWN, VALUE, LABEL, TWO = BEHIND
START, BREAK, HEADER = "is start", "is break", ("line breaks", "other tokens")
LIST_MECHANISMS: dict[str, ListTruth] = {
    "own label": ListTruth(by((OWN, 2.0)), ("own label",)),
    "value before": ListTruth(by((VALUE, 2.0)), ("order",), unjudged=HEADER),
    "label before": ListTruth(by((LABEL, 2.0)), ("order",), unjudged=HEADER),
    "value and label before": ListTruth(by_both(VALUE, LABEL), ("order",), unjudged=HEADER),
    "value two before": ListTruth(by((TWO, 2.0)), ("order",), unjudged=HEADER),
    "value before and two before": ListTruth(by_both(VALUE, TWO), ("order",), unjudged=HEADER),
    "position": ListTruth(by_position, ("position",)),
    # The first token is what the count of values so far is relative to.
    "learned index": ListTruth(by_learned_index, ("position",), unjudged=("first token", *HEADER), ordered=True),
    "own label, then value before": ListTruth(by((OWN, 2.0), (VALUE, 1.0)), ("own label",), unjudged=HEADER),
    "value before, then own label": ListTruth(by((VALUE, 2.0), (OWN, 1.0)), ("order",), unjudged=HEADER),
    "own label and value before": ListTruth(by_both(OWN, VALUE), ("own label", "order"), unjudged=HEADER),
    "own label + value before": ListTruth(two(OWN, VALUE), ("own label", "order"), unjudged=HEADER, routes=2),
    "own label + position": ListTruth(two(OWN, "position"), ("own label", "position"), routes=2),
    "value before + position": ListTruth(two(VALUE, "position"), ("order", "position"), unjudged=HEADER, routes=2),
    "own label + value two before": ListTruth(two(OWN, TWO), ("own label", "order"), unjudged=HEADER, routes=2),
    "label after": ListTruth(by_label_after, (), unjudged=HEADER, ordered=True),
    "own label, sink": ListTruth(resting(by((OWN, 2.0)), START), ("own label",), ("first token",)),
    "position, sink": ListTruth(resting(by_position, START), ("position",), ("first token",)),
    "own label, breaks as sink": ListTruth(resting(by((OWN, 2.0)), BREAK), ("own label",), ("line breaks",)),
    "value before, breaks as sink": ListTruth(
        resting(by((VALUE, 2.0)), BREAK), ("order",), ("line breaks",), unjudged=("other tokens",)
    ),
}
