"""Routes to an answer other than by the step's own label: by its neighbours, and by a stored copy of the bit."""

from __future__ import annotations

import torch

from probes.planted.parts import ONE, SIZES, Head, Match, Move, Neuron, Offset, Term, any_key, xor
from probes.planted.pieces import Parts, Setting, target


def _labels_before(s: Setting) -> Parts:
    """Return heads of layer 0 for labels further back, and flags of the first step, which has no label before."""
    two_before = (Move("label", "label two before"), Move({"is start": 1.0}, "start two before"))
    return (
        Head(0, (Offset(2, s.offset_sharpness),), two_before),
        Head(0, (Offset(3, s.offset_sharpness),), (Move("label", "label three before"),)),
        Head(0, (Offset(1, s.offset_sharpness),), (Move({"is separator": 1.0}, "after separator"),)),
    )


def bit_by_label_before(s: Setting, result: str = "answer") -> Parts:
    """Return the route by the label of the step before. The first step reads the bit two places after `>>>`."""
    first = Term({"after separator": 1.0}, {"start two before": 2 * s.sharpness, "is value": s.sharpness})
    match = Match("label two before", "label three before", 2 * s.sharpness)
    read = Head(1, (match, first), (Move("bit", "bit of label before"),))
    return (*_labels_before(s), read, *xor(1, "before", "bit of label before", result))


def bit_by_two_labels(s: Setting, default: float = 0.0) -> Parts:
    """Return heads that read the bit whose own label and label before both match. `default` is the score of `>>>`."""
    sharp = 4 * s.sharpness
    scores = (
        Match("label", "previous label", sharp),
        Match("label two before", "label three before", sharp),
        Term({"after separator": 1.0}, {"start two before": sharp}),
        *([any_key({"is start": sharp * default})] if default else []),
    )
    miss = (Move({"is start": 1.0}, "miss"),) if default else ()
    return (*_labels_before(s), Head(1, scores, (Move("bit", "retrieved"), *miss)))


def with_backup(s: Setting, first: str, second: str, miss: str) -> Parts:
    """Return units that answer by the feature `second` where the flag `miss` is 1, and otherwise by `first`."""
    last = s.ready + 1
    return (
        *xor(last, "before", first, "answer", unless={miss: 1.0}),
        *xor(last, "before", second, "answer", unless={ONE: 1.0, miss: -1.0}),
        Neuron(last, {ONE: 1.0}, {"answer": -1.0}),  # a closed route gives 1
    )


def copied_bit_by_index(s: Setting, result: str = "answer") -> Parts:
    """Return parts that read bit i from the token after it (label i + 1, or `===`), which holds a copy of it.

    Where labels are masked, the bit itself is read. Needs `after`. By a count of bits, a bit and the token after it
    have one place. GPT-2 positions differ, so there the token after a bit takes the bit's place as its "slot".
    """
    move = Move({"bit": 1.0, "before": 1.0}, "copied")
    weights = {"is label": 1.0, "is separator": 2.0, "after": -1.0}
    if s.architecture == "gpt2":
        where, parts = Match("target", "slot", 2 * s.place_sharpness, 1), _slots(s)
    else:
        where, parts, weights = Match("target", "place", s.place_sharpness, 1), (), {**weights, "is value": 0.5}
    holder = any_key({name: weight * s.sharpness for name, weight in weights.items()})
    return (
        *parts,
        *target(s),
        Head(s.ready + 1, (where, holder), (move,)),
        *xor(s.ready + 1, "before", "copied", result),
    )


def _slots(s: Setting) -> Parts:
    """Return parts that write a "slot": at a bit its own place, at a label or `===` the place before."""
    before = Head(0, (Offset(1, s.offset_sharpness),), (Move("place", "place before"),))
    units: list[Neuron] = []
    for source, flags in (("place before", ("is label", "is separator")), ("place", ("is value",))):
        # relu(x + 1) - 1 where a flag is 1, and 0 elsewhere, because no |x| is above 1.
        for i, unit in enumerate(torch.eye(SIZES["slot"], dtype=torch.float64)):
            units.append(Neuron(0, {(source, i): 1.0, ONE: -1.0, **dict.fromkeys(flags, 2.0)}, {"slot": unit}))
        units.append(Neuron(0, dict.fromkeys(flags, 1.0), {"slot": -1.0}))
    return (before, *units)
