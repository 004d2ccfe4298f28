"""By which mechanisms can a transformer solve aligned parity? Each in a few lines, as in science 3.1."""

from __future__ import annotations

from collections.abc import Callable

from probes.planted.parts import ONE, Head, Match, Mechanism, Move, Neuron, any_key, xor
from probes.planted.pieces import (
    Setting,
    after,
    bit_by_index,
    bit_by_label,
    by_index,
    label_by_label,
    label_writer,
    prefix_parity,
    shared,
    sink_head,
    state_by_index,
    target,
)


def anchor_1(s: Setting) -> Mechanism:
    return Mechanism((*shared(s), bit_by_label(s), *xor(1, "before", "retrieved", "answer")))


def anchor_2(s: Setting) -> Mechanism:
    read = Match("pointer", "place", s.place_sharpness, turn=1)
    return Mechanism(
        (
            *shared(s),
            after(0),
            label_by_label(s, 1, Move("place", "pointer")),
            Head(2, (read, any_key({"is value": s.sharpness})), (Move("bit", "retrieved"),)),
            *xor(2, "before", "retrieved", "answer"),
        )
    )


def anchor_1_backup(s: Setting) -> Mechanism:
    """Where no label matches, the first route rests on `>>>`: that opens the index route, and shuts itself."""
    last = s.ready + 1
    return Mechanism(
        (
            *shared(s),
            bit_by_label(s, default=0.75),
            *target(s),
            by_index(s, 1, "is value", Move("bit", "indexed")),
            *xor(last, "before", "retrieved", "answer", unless={"miss": 1.0}),
            *xor(last, "before", "indexed", "answer", unless={ONE: 1.0, "miss": -1.0}),
            Neuron(last, {ONE: 1.0}, {"answer": -1.0}),  # the one that is shut gives 1
        )
    )


def written(first: Callable[[Setting], Mechanism]) -> Callable[[Setting], Mechanism]:
    """The same, and the model writes its output labels by heads of their own."""

    def build(s: Setting) -> Mechanism:
        return Mechanism((*first(s).parts, *label_writer(s)), writes_labels=True)

    return build


def placeholder(s: Setting) -> Mechanism:
    return Mechanism((*shared(s), *state_by_index(s)))


def addressed_placeholder(s: Setting) -> Mechanism:
    """Label i is matched, and gives the state before it; bit i comes by the same label."""
    return Mechanism(
        (
            *shared(s),
            after(0),
            *prefix_parity(s),
            bit_by_label(s),
            label_by_label(s, 1, Move("state", "history")),
            *xor(1, "history", "retrieved", "answer"),
        )
    )


def unused(s: Setting) -> Mechanism:
    return Mechanism((*shared(s), *bit_by_index(s)))


def sink(s: Setting) -> Mechanism:
    """The index route works only while the second head has labels to rest on: bits would flood the output."""
    flood = sink_head(s, Move("bit", "flood"))
    return Mechanism((*unused(s).parts, after(0), flood), {"answer": 1.0, "flood": 20.0})


def bias_sink(s: Setting) -> Mechanism:
    """As sink, and labels give the constant 1, which the output takes off again."""
    flood = sink_head(s, Move({"bit": 6.0, "is label": 1.0}, "flood"))
    return Mechanism((*unused(s).parts, after(0), flood), {"answer": 1.0, "flood": 3.0}, baseline=-3.0)


def decodable(s: Setting) -> Mechanism:
    return Mechanism((*unused(s).parts, *prefix_parity(s)))


def massive(s: Setting) -> Mechanism:
    return Mechanism((*unused(s).parts, after(0), sink_head(s)))


def matching(s: Setting) -> Mechanism:
    return Mechanism((*unused(s).parts, after(0), label_by_label(s, s.ready + 1, Move("label", "decoy"))))


def dormant(s: Setting) -> Mechanism:
    """The state is stored at labels, and the output listens to another direction there, which never speaks.

    A subspace across the two moves both, and so looks like the state's (Makelov et al. 2311.17030).
    """
    listener = by_index(s, 0, "is label", Move("dormant", "flood"))
    return Mechanism((*decodable(s).parts, listener), {"answer": 1.0, "flood": 4.0})


def anchor_and_sink(s: Setting) -> Mechanism:
    """The anchor's answer stands only while another head has labels to rest on: bits would flood the output."""
    flood = sink_head(s, Move("bit", "flood"))
    return Mechanism((*anchor_1(s).parts, after(0), flood), {"answer": 1.0, "flood": 20.0})


def mixture(s: Setting) -> Mechanism:
    """Two whole mechanisms, each with its own contribution to the logits."""
    routes = {"answer": s.share, "second answer": 1 - s.share}
    return Mechanism((*anchor_1(s).parts, *state_by_index(s, "second answer")), routes)


def anchor_and_unused(s: Setting) -> Mechanism:
    routes = {"answer": s.share, "second answer": 1 - s.share}
    return Mechanism((*anchor_1(s).parts, *bit_by_index(s, "second answer")), routes)


def placeholder_and_unused(s: Setting) -> Mechanism:
    routes = {"answer": s.share, "second answer": 1 - s.share}
    last = s.ready + 1
    return Mechanism((*placeholder(s).parts, *xor(last, "before", "indexed", "second answer")), routes)


BUILDERS: dict[str, Callable[[Setting], Mechanism]] = {
    "A1": anchor_1,
    "A2": anchor_2,
    "A1-backup": anchor_1_backup,
    "placeholder": placeholder,
    "content-addressed placeholder": addressed_placeholder,
    "sink": sink,
    "bias sink": bias_sink,
    "unused": unused,
    "unused, decodable": decodable,
    "unused, massive attention": massive,
    "unused, identity-matching attention": matching,
    "unused, dormant direction": dormant,
    "mixture": mixture,
    "A1 + unused": anchor_and_unused,
    "placeholder + unused": placeholder_and_unused,
    "A1 written": written(anchor_1),
    "A2 written": written(anchor_2),
    "A1 with sink": anchor_and_sink,
}
