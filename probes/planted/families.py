"""Families of mechanisms outside the calibration: labels used in ways that outsiders' models suggested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from probes.planted.by_data import match_or_rest
from probes.planted.by_membership import known_labels
from probes.planted.by_step import (
    anchor_and_sink_by_step,
    anchor_and_state_by_step,
    anchor_at_odd_steps,
    state_and_sink_by_step,
)
from probes.planted.codes import place_code
from probes.planted.parts import ONE, Form, Head, Match, Mechanism, Move, Neuron, Offset, Term, any_key, table, xor
from probes.planted.pieces import (
    Setting,
    after,
    bit_by_index,
    bit_by_label,
    by_index,
    prefix_parity,
    separator,
    shared,
    target,
)
from probes.planted.routes import bit_by_label_before, bit_by_two_labels, copied_bit_by_index, with_backup

SUFFIX = "parity-suffix"


@dataclass(frozen=True)
class Family:
    """How a mechanism is built, and what is true of it.

    `present`: the roles that labels have; all others are absent. `addresses`: offsets of the labels whose identity
    decides what step i reads: 0 is the step's own label, -1 that of the step before. `routes`: what each route of the
    answer uses, "address", "content" or "nothing"; empty where uses act jointly, so that no share belongs to one
    alone. With two routes, the plan's share is the first one's.
    """

    build: Callable[[Setting], Mechanism]
    present: tuple[str, ...]
    label: str
    addresses: tuple[int, ...] = ()
    routes: tuple[str, ...] = ()

    def shares(self, first: float) -> Mapping[str, float]:
        """Return the shares of the margin through "address" and "content"."""
        weights = (first, 1 - first)
        return {
            use: sum((w for w, route in zip(weights, self.routes, strict=False) if route == use), 0.0)
            for use in ("address", "content")
            if self.routes
        }


def anchor_by_label_before(s: Setting) -> Mechanism:
    """The output label of the step before is matched with the input label before the bit's own, and reads the bit."""
    return Mechanism((*shared(s), *bit_by_label_before(s)))


def anchor_by_two_labels(s: Setting) -> Mechanism:
    """The bit is read whose own label and label before both match; a match of one alone has half of the score."""
    return Mechanism((*shared(s), *bit_by_two_labels(s), *xor(1, "before", "retrieved", "answer")))


def anchor_by_two_labels_backup(s: Setting) -> Mechanism:
    """As by two labels; where no bit matches in both, the index route answers."""
    return Mechanism(
        (
            *shared(s),
            *bit_by_two_labels(s, default=1.65),
            *target(s),
            by_index(s, 1, "is value", Move("bit", "indexed")),
            *with_backup(s, "retrieved", "indexed", "miss"),
        )
    )


def dormant_anchor(s: Setting) -> Mechanism:
    """The index route answers. Where it finds no place it attends to `>>>`, which opens a route by the label."""
    where = Match("target", "place", 2 * s.place_sharpness, turn=1)
    rest = any_key({"is value": s.sharpness, "is start": 2 * s.sharpness})
    read = Head(s.ready + 1, (where, rest), (Move("bit", "indexed"), Move({"is start": 1.0}, "index miss")))
    routes = with_backup(s, "indexed", "retrieved", "index miss")
    return Mechanism((*shared(s), *target(s), read, bit_by_label(s), *routes))


def state_by_label_before(s: Setting) -> Mechanism:
    """Each label stores the parity before it; it is found by the label of the step before, and bit i by index."""
    two_before = Head(0, (Offset(2, s.offset_sharpness),), (Move("label", "label two before"),))
    follows = Head(0, (Offset(1, s.offset_sharpness),), (Move({"is separator": 1.0}, "after separator"),))
    sharp = s.sharpness
    scores = (
        Match("label two before", "label two before", 2 * sharp),
        any_key({"is label": sharp, "after": -4 * sharp, "after start": -3 * sharp}),
        Term({"after separator": 1.0}, {"after start": 6 * sharp}),
    )
    return Mechanism(
        (
            *shared(s),
            after(0),
            two_before,
            follows,
            *prefix_parity(s),
            Head(1, scores, (Move("state", "history"),)),
            *target(s),
            by_index(s, 1, "is value", Move("bit", "indexed")),
            *xor(s.ready + 1, "history", "indexed", "answer"),
        )
    )


def copied_bit(s: Setting) -> Mechanism:
    """A copy of the step's own bit, stored at the next label, is read by index; the bit is its backup."""
    return Mechanism((*shared(s), after(0), *copied_bit_by_index(s)))


def one_head_two_queries(s: Setting) -> Mechanism:
    """One head matches labels for output labels, and rests on labels for values, where it would else copy bits.

    The next output label reads that noise from the value before it.
    """
    rest = {"is label": 30.0, "after": -45.0, "is value": 8.0, ("place", 0): 8.0, ("place", 1): 8.0, "is start": -15.0}
    scores = (
        Match("label", "previous label", 2 * s.sharpness),
        Term({"is value": 1.0, "is separator": 1.0}, rest),
    )
    head = Head(1, scores, (Move("bit", "retrieved"),))
    noise = Head(2, (Offset(1, s.offset_sharpness),), (Move("retrieved", "flood"),))
    parts = (*shared(s), after(0), head, noise, *xor(1, "before", "retrieved", "answer"))
    return Mechanism(parts, {"answer": 1.0, "flood": 20.0})


def counted_labels(s: Setting) -> Mechanism:
    """Labels are delimiters: bit i is the value that has i labels before it, counted by a head's denominator."""
    share = Head(0, (any_key({"is start": 20.0, "is label": 20.0}),), (Move({"is start": 1.0}, "counted share"),))
    m, distance = torch.arange(2 * s.longest + 1), torch.arange(1, s.longest + 1)
    counted = {"counted place": place_code(m, s.frequencies), "counted number": m * s.unit}
    wanted = {"counted target": place_code(distance, s.frequencies)}
    passed: Form = {"counted number": 1.0, "counted at separator": -1.0}
    scores = (
        Match("counted target", "counted place", s.place_sharpness),
        any_key({"is value": s.sharpness, "after": -s.sharpness}),
    )
    return Mechanism(
        (
            *shared(s),
            after(0),
            share,
            *table(0, {"counted share": 1.0}, (1 / (1 + m)).tolist(), counted),
            separator(1, Move("counted number", "counted at separator")),
            *table(1, passed, (distance * s.unit).tolist(), wanted),
            Head(2, scores, (Move("bit", "retrieved"),)),
            *xor(2, "before", "retrieved", "answer"),
        )
    )


def label_after_bit(s: Setting) -> Mechanism:
    """Labels follow their bits: the last label written is matched with the label before the next bit."""
    scores = (
        Match("label", "previous label", 2 * s.sharpness),
        Term({"is separator": 1.0}, {"after start": 2 * s.sharpness}),
    )
    parts = (
        *shared(s),
        Head(1, scores, (Move("bit", "retrieved"),)),
        # At `===` the parity before is 0, whatever the token before it is: labels are no sink there.
        Neuron(0, {"is separator": 1.0}, {"before": -0.5}),
        Neuron(0, {"is separator": 1.0, "before": 1.0, ONE: -1.0}, {"before": -1.0}),
        Neuron(0, {"is separator": 1.0, "before": -1.0, ONE: -1.0}, {"before": 1.0}),
    )
    return Mechanism((*parts, *xor(1, "before", "retrieved", "answer")), format=SUFFIX)


def two_routes(s: Setting, *parts: Head | Neuron) -> Mechanism:
    """Return a mixture of the routes "answer" and "second answer"."""
    return Mechanism((*shared(s), *parts), {"answer": s.share, "second answer": 1 - s.share})


def own_and_before(s: Setting) -> Mechanism:
    """A route by the step's own label, and one by the label of the step before."""
    own = (bit_by_label(s), *xor(1, "before", "retrieved", "answer"))
    return two_routes(s, *own, *bit_by_label_before(s, "second answer"))


def before_and_unused(s: Setting) -> Mechanism:
    """A route by the label of the step before, and one by index."""
    return two_routes(s, *bit_by_label_before(s), *bit_by_index(s, "second answer"))


def two_labels_and_unused(s: Setting) -> Mechanism:
    """A route by two labels jointly, and one by index."""
    joint = (*bit_by_two_labels(s), *xor(1, "before", "retrieved", "answer"))
    return two_routes(s, *joint, *bit_by_index(s, "second answer"))


def before_and_copied_bit(s: Setting) -> Mechanism:
    """A route by the label of the step before, and one by the copy of the bit at the next label."""
    return two_routes(s, after(0), *bit_by_label_before(s), *copied_bit_by_index(s, "second answer"))


ANCHOR, PLACEHOLDER, SINK = "anchor", "placeholder", "sink"
MIXED, WITH_SINK = "mixed(anchor, placeholder)", "mixed(anchor, sink)"
BOTH = (ANCHOR, PLACEHOLDER)

# The labels of `counted labels` and `known labels` have no role that the verdict names, and without them answers fail.
FAMILIES: dict[str, Family] = {
    "anchor by the label before": Family(anchor_by_label_before, (ANCHOR,), ANCHOR, (-1,), ("address",)),
    "anchor by two labels": Family(anchor_by_two_labels, (ANCHOR,), ANCHOR, (-1, 0)),
    "anchor by two labels, backup": Family(anchor_by_two_labels_backup, (ANCHOR,), ANCHOR, (-1, 0)),
    "unused, dormant anchor": Family(dormant_anchor, (), "unused", (), ("nothing",)),
    "state by the label before": Family(state_by_label_before, BOTH, MIXED, (-1,)),
    "copied bit with backup": Family(copied_bit, (PLACEHOLDER,), PLACEHOLDER),
    "anchor and sink in one head": Family(one_head_two_queries, (ANCHOR, SINK), WITH_SINK, (0,)),
    "counted labels": Family(counted_labels, (), "unresolved"),
    "known labels": Family(known_labels, (), "unresolved"),
    "match or rest": Family(match_or_rest, (ANCHOR, SINK), WITH_SINK, (0,)),
    "label after its bit": Family(label_after_bit, (ANCHOR,), ANCHOR, (-1,), ("address",)),
    "A1 + label before": Family(own_and_before, (ANCHOR,), ANCHOR, (0, -1), ("address", "address")),
    "label before + unused": Family(before_and_unused, (ANCHOR,), ANCHOR, (-1,), ("address", "nothing")),
    "two labels + unused": Family(two_labels_and_unused, (ANCHOR,), ANCHOR, (-1, 0)),
    "label before + copied bit": Family(before_and_copied_bit, BOTH, MIXED, (-1,)),
    "anchor at odd steps": Family(anchor_at_odd_steps, (ANCHOR,), ANCHOR, (0,)),
    "anchor at odd steps, sink at even": Family(anchor_and_sink_by_step, (ANCHOR, SINK), WITH_SINK, (0,)),
    "anchor at odd steps, state at even": Family(anchor_and_state_by_step, BOTH, MIXED, (0,)),
    "state at odd steps, sink at even": Family(state_and_sink_by_step, (PLACEHOLDER, SINK), "mixed(placeholder, sink)"),
}
