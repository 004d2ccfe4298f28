"""The mechanisms by which a planted transformer solves aligned parity (probes/README.md, Planted models)."""

from __future__ import annotations

from collections.abc import Callable

from probes.planted.families import FAMILIES
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
    """The output label is matched with the label copied onto each bit, and reads the bit."""
    return Mechanism((*shared(s), bit_by_label(s), *xor(1, "before", "retrieved", "answer")))


def anchor_2(s: Setting) -> Mechanism:
    """The output label is matched with the input label and reads its place; the bit one place later is read next."""
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
    """Where no label matches, the first route attends to `>>>`; that opens the index route and closes the first."""
    last = s.ready + 1
    return Mechanism(
        (
            *shared(s),
            bit_by_label(s, default=0.75),
            *target(s),
            by_index(s, 1, "is value", Move("bit", "indexed")),
            *xor(last, "before", "retrieved", "answer", unless={"miss": 1.0}),
            *xor(last, "before", "indexed", "answer", unless={ONE: 1.0, "miss": -1.0}),
            Neuron(last, {ONE: 1.0}, {"answer": -1.0}),  # a closed route gives 1
        )
    )


def written(first: Callable[[Setting], Mechanism]) -> Callable[[Setting], Mechanism]:
    """Return the same mechanism with heads that write the output labels."""

    def build(s: Setting) -> Mechanism:
        return Mechanism((*first(s).parts, *label_writer(s)), writes_labels=True)

    return build


def placeholder(s: Setting) -> Mechanism:
    """The prefix parity that is stored at input label i is read by index, and so is bit i."""
    return Mechanism((*shared(s), *state_by_index(s)))


def addressed_placeholder(s: Setting) -> Mechanism:
    """Store the prefix parity at each label; read the state before step i, and bit i, by matching label i."""
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
    """Bit i is read by index; labels do nothing."""
    return Mechanism((*shared(s), *bit_by_index(s)))


def sink(s: Setting) -> Mechanism:
    """The index route works only while a second head attends to labels: otherwise it adds noise from bits."""
    flood = sink_head(s, Move("bit", "flood"))
    return Mechanism((*unused(s).parts, after(0), flood), {"answer": 1.0, "flood": 20.0})


def bias_sink(s: Setting) -> Mechanism:
    """As sink, and labels give the constant 1, which the output subtracts."""
    flood = sink_head(s, Move({"bit": 6.0, "is label": 1.0}, "flood"))
    return Mechanism((*unused(s).parts, after(0), flood), {"answer": 1.0, "flood": 3.0}, baseline=-3.0)


def decodable(s: Setting) -> Mechanism:
    """As unused, with prefix parity stored at labels, which nothing reads."""
    return Mechanism((*unused(s).parts, *prefix_parity(s)))


def massive(s: Setting) -> Mechanism:
    """As unused, with a head that puts its attention on labels and writes nothing."""
    return Mechanism((*unused(s).parts, after(0), sink_head(s)))


def matching(s: Setting) -> Mechanism:
    """As unused, with a head that matches labels and writes to a feature that nothing reads."""
    return Mechanism((*unused(s).parts, after(0), label_by_label(s, s.ready + 1, Move("label", "decoy"))))


def dormant(s: Setting) -> Mechanism:
    """The state is stored at labels, and the output reads another direction there that is always zero.

    A subspace across both directions changes the output, and so looks like the state's (Makelov et al. 2311.17030).
    """
    listener = by_index(s, 0, "is label", Move("dormant", "flood"))
    return Mechanism((*decodable(s).parts, listener), {"answer": 1.0, "flood": 4.0})


def anchor_and_sink(s: Setting) -> Mechanism:
    """The anchor is right only while another head attends to labels: otherwise it adds noise from bits."""
    flood = sink_head(s, Move("bit", "flood"))
    return Mechanism((*anchor_1(s).parts, after(0), flood), {"answer": 1.0, "flood": 20.0})


def mixture(s: Setting) -> Mechanism:
    """Anchor and placeholder, each with its own share of the logits."""
    routes = {"answer": s.share, "second answer": 1 - s.share}
    return Mechanism((*anchor_1(s).parts, *state_by_index(s, "second answer")), routes)


def anchor_and_unused(s: Setting) -> Mechanism:
    """A1 and the index route, each with its own share of the logits."""
    routes = {"answer": s.share, "second answer": 1 - s.share}
    return Mechanism((*anchor_1(s).parts, *bit_by_index(s, "second answer")), routes)


def placeholder_and_unused(s: Setting) -> Mechanism:
    """Placeholder and the index route, each with its own share of the logits."""
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

# Families that outsiders' models suggested: known answers for tests, and no part of the calibration.
OUTSIDE_BUILDERS: dict[str, Callable[[Setting], Mechanism]] = {
    name: FAMILIES[name].build for name in ("anchor by the label before", "copied bit with backup")
}
