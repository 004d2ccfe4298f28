"""A mechanism whose head reads labels in some prompts and rests on them in others."""

from __future__ import annotations

from probes.planted.parts import ONE, Form, Head, Match, Mechanism, Move, Neuron, Term
from probes.planted.pieces import Setting, after, by_index, shared, target

AFTER_ZERO: Form = {ONE: 0.5, "before": -1.0}  # 1 where the parity before is 0, and 0 where it is 1


def match_or_rest(s: Setting) -> Mechanism:
    """One head matches labels after a parity of 1 and reads bit i; after a parity of 0 it rests on input labels.

    Without labels to rest on it subtracts bits, often its own, from the answer. Bit i is then read by index.
    """
    sharp = s.sharpness
    rest: Form = {"is label": 8 * sharp, "after": -12 * sharp, "is value": sharp, "is start": -5 * sharp}
    # Without labels, the place of a bit counts more than its label.
    tilt: Form = {("place", 0): 3 * sharp, ("place", 1): 3 * sharp}
    head = Head(
        s.ready + 1,
        (Match("label", "previous label", 2 * sharp), Term(AFTER_ZERO, {**rest, **tilt})),
        (Move("bit", "retrieved"),),
    )
    last = s.ready + 2
    parts = (
        *shared(s),
        after(0),
        *target(s),
        head,
        by_index(s, 1, "is value", Move("bit", "indexed")),
        # Bits are -1/2 and 1/2: after 1 the answer is 1/2 - retrieved, after 0 it is 1/2 + indexed.
        Neuron(last, {"retrieved": -1.0, ONE: -0.5, "before": 2.0}, {"answer": 1.0}),
        Neuron(last, {"indexed": 1.0, ONE: -0.5, "before": -2.0}, {"answer": 1.0}),
        *(Neuron(last, {"retrieved": sign, ONE: -1.0, "before": -2.0}, {"flood": -sign}) for sign in (1.0, -1.0)),
    )
    return Mechanism(parts, {"answer": 1.0, "flood": 20.0})
