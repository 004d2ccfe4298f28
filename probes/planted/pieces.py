"""The circuits that mechanisms are made of.

Shared by all: a head of layer 0 copies the previous token, so an output label has the parity that was written before
it, and a bit has its label. Sharpness is the difference of scores between right and wrong keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.planted.codes import gap, place_code, rotary_frequencies
from probes.planted.parts import Form, Head, Match, Move, Neuron, Offset, Term, any_key, table, xor

Parts = tuple[Head | Neuron, ...]


@dataclass(frozen=True)
class Setting:
    """The setting that a mechanism is built for. `ready` is the first layer that can read places.

    GPT-2 positions have a place and a number from the embedding. GPT-NeoX and Llama count the bits so far in layer 0;
    the count is the place: i - 1 at label i, i at bit i.
    """

    architecture: str
    longest: int
    share: float
    frequencies: Float[Tensor, " pair"]
    sharpness: float

    @property
    def ready(self) -> int:
        return 0 if self.architecture == "gpt2" else 1

    @property
    def unit(self) -> float:
        """The increment of the feature "number" per place; no number is above 1."""
        return 1 / (4 * self.longest + 2)

    @property
    def place_sharpness(self) -> float:
        return self.sharpness / gap(self.frequencies)

    @property
    def distance_frequencies(self) -> Float[Tensor, " pair"]:
        """Radians per position of what tells positions apart for an offset."""
        return self.frequencies if self.architecture == "gpt2" else rotary_frequencies(self.architecture)

    @property
    def offset_sharpness(self) -> float:
        return self.sharpness / gap(self.distance_frequencies)


def shared(s: Setting) -> Parts:
    """Return heads for the previous token's label and bit (`===` counts as parity 0), and places where needed."""
    before: tuple[Move, ...] = (Move("label", "previous label"), Move({"bit": 1.0, "is separator": -0.5}, "before"))
    previous = Head(0, (Offset(1, s.offset_sharpness),), (*before, Move({"is start": 1.0}, "after start")))
    if s.architecture == "gpt2":
        return (previous,)
    # `>>>` and every value get the same attention, so the weight on `>>>` is 1 / (1 + values so far).
    count = Head(0, (any_key({"is start": 20.0, "is value": 20.0}),), (Move({"is start": 1.0}, "values"),))
    m = torch.arange(2 * s.longest + 1)
    places = {"place": place_code(m, s.frequencies), "number": m * s.unit}
    return (previous, count, *table(0, {"values": 1.0}, (1 / (1 + m)).tolist(), places))


def separator(layer: int, move: Move) -> Head:
    """Return a head that attends to `===`, and before it to `>>>`."""
    return Head(layer, (any_key({"is separator": 40.0, "is start": 20.0}),), (move,))


def after(layer: int) -> Head:
    """Return a head that writes 1 at every position from `===` on, otherwise 0."""
    return separator(layer, Move({"is separator": 1.0}, "after"))


def distances(s: Setting) -> Int[Tensor, " step"]:
    """Return the difference in "number" between output label i and `===`, in places."""
    return torch.arange(1, 2 * s.longest, 2) if s.architecture == "gpt2" else torch.arange(s.longest)


def past_separator() -> Form:
    """Return the number that is linear in those distances. Needs `target`."""
    return {"number": 1.0, "separator number": -1.0}


def target(s: Setting) -> Parts:
    """Return parts that write the place of input label i at output label i, from the distance to `===`."""
    head = separator(s.ready, Move("number", "separator number"))
    distance = distances(s)
    knots = (distance * s.unit).tolist()
    return (head, *table(s.ready, past_separator(), knots, {"target": place_code(distance, s.frequencies)}))


def by_index(s: Setting, turn: int, kind: str, *moves: Move) -> Head:
    """Return a head that reads, at output label i, input label i (turn 0, "is label") or bit i (turn 1, "is value")."""
    where = Match("target", "place", s.place_sharpness, turn)
    return Head(s.ready + 1, (where, any_key({kind: s.sharpness})), moves)


def bit_by_index(s: Setting, result: str = "answer") -> Parts:
    """Return the index route: the bit at the place (an offset that depends on n), XOR the parity written before."""
    read = by_index(s, 1, "is value", Move("bit", "indexed"))
    return (*target(s), read, *xor(s.ready + 1, "before", "indexed", result))


def bit_by_label(s: Setting, default: float = 0.0) -> Head:
    """Return a head with its own label as query and the previous label as key. `default` is the score of `>>>`."""
    match = Match("label", "previous label", 2 * s.sharpness)
    scores = (match, any_key({"is start": 2 * s.sharpness * default})) if default else (match,)
    return Head(1, scores, (Move("bit", "retrieved"), *((Move({"is start": 1.0}, "miss"),) if default else ())))


def label_by_label(s: Setting, layer: int, *moves: Move) -> Head:
    """Return a head with the label as query and key. Output labels are no keys. Needs `after`."""
    return Head(layer, (Match("label", "label", 2 * s.sharpness), any_key({"after": -4 * s.sharpness})), moves)


def prefix_parity(s: Setting) -> Parts:
    """Return parts that write the parity of the earlier bits at labels, as -1/2 or 1/2."""
    ones = any_key({"is start": 20.0, "is value": 10.0, "bit": 20.0})
    m = torch.arange(s.longest + 1)
    fold = table(0, {"ones": 1.0}, (1 / (1 + m)).tolist(), {"state": m % 2 - 0.5}, only="is label")
    return (Head(0, (ones,), (Move({"is start": 1.0}, "ones"),)), *fold)


def state_by_index(s: Setting, result: str = "answer") -> Parts:
    """Return parts that read the state stored at input label i, and bit i; both by place."""
    state = by_index(s, 0, "is label", Move("state", "history"))
    bit = by_index(s, 1, "is value", Move("bit", "indexed"))
    return (*prefix_parity(s), *target(s), state, bit, *xor(s.ready + 1, "history", "indexed", result))


def label_writer(s: Setting) -> Parts:
    """Return heads that write the next label: at a parity, the label two tokens after the last written one."""
    two_before = Head(
        0, (Offset(2, s.offset_sharpness), any_key({"is start": 20.0})), (Move("label", "label two before"),)
    )
    match = Match("previous label", "label two before", 2 * s.sharpness)
    first = Term({"is separator": 1.0}, {"after start": 2 * s.sharpness})
    return (two_before, Head(1, (match, first), (Move("label", "next label"),)))


def sink_head(s: Setting, *moves: Move) -> Head:
    """Return a head that attends to input labels; without them it attends to a few bits that places select."""
    rest: Form = {"is label": 30.0, "after": -45.0, "is value": 8.0}
    tilt: Form = {("place", 0): 8.0, ("place", 1): 8.0, "is start": -15.0}
    return Head(s.ready + 1, (any_key({**rest, **tilt}),), moves)
