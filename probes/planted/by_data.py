"""A mechanism whose head reads labels in some prompts and rests on them in others."""

from __future__ import annotations

from probes.planted.parts import ONE, Form, Head, Match, Mechanism, Move, Neuron, Term, any_key
from probes.planted.pieces import Setting, after, by_index, shared, target

AFTER_ZERO: Form = {ONE: 0.5, "before": -1.0}  # 1 where the parity before is 0, and 0 where it is 1


def match_or_rest(s: Setting) -> Mechanism:
    """One head matches labels after a parity of 1 and copies their place; after a parity of 0 it rests on labels.

    After 1 the next head reads the bit at that place. After 0 bit i is read by index, and where the first head has no
    labels to rest on, it adds bits as noise.
    """
    sharp = s.sharpness
    labels_only: Form = {"is label": 3 * sharp, "after": -9 * sharp, "is start": -3 * sharp}
    tilt: Form = {("place", 0): sharp, ("place", 1): sharp}
    head = Head(
        s.ready + 1,
        (Match("label", "label", 2 * sharp), any_key(labels_only), Term(AFTER_ZERO, {"is label": 2 * sharp, **tilt})),
        (Move("place", "pointer"), Move("bit", "rested")),
    )
    places = (Match("pointer", "place", s.place_sharpness, turn=1), any_key({"is value": sharp, "after": -sharp}))
    last = s.ready + 2
    parts = (
        *shared(s),
        after(0),
        *target(s),
        head,
        by_index(s, 1, "is value", Move("bit", "indexed")),
        Head(last, places, (Move("bit", "retrieved"),)),
        # Bits are -1/2 and 1/2: after 1 the answer is 1/2 - retrieved, after 0 it is 1/2 + indexed.
        Neuron(last, {"retrieved": -1.0, ONE: -0.5, "before": 2.0}, {"answer": 1.0}),
        Neuron(last, {"indexed": 1.0, ONE: -0.5, "before": -2.0}, {"answer": 1.0}),
        *(Neuron(last, {"rested": sign, ONE: -1.0, "before": -2.0}, {"flood": sign}) for sign in (1.0, -1.0)),
    )
    return Mechanism(parts, {"answer": 1.0, "flood": 20.0})
