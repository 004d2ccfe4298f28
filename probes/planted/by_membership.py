"""A mechanism that asks whether a label is known, and not where it stands."""

from __future__ import annotations

import torch

from probes.planted.parts import ONE, Head, Match, Mechanism, Move, any_key, table, xor
from probes.planted.pieces import Setting, after, by_index, shared, target


def known_labels(s: Setting) -> Mechanism:
    """Bit i is read by index, and the answer is 1 unless the output label is one of the input labels.

    A head matches the output label with all input labels, and rests on `>>>` where none matches. So the order of
    labels decides nothing, and other labels in their place decide the answer.
    """
    rest = any_key({"after": -6 * s.sharpness, "is start": 1.5 * s.sharpness})
    match = Head(s.ready + 1, (Match("label", "label", 3 * s.sharpness), rest), (Move("is label", "share known"),))
    known = {"known": torch.tensor([0.0, 1.0])}
    parts = (
        *shared(s),
        after(0),
        *target(s),
        by_index(s, 1, "is value", Move("bit", "indexed")),
        match,
        *table(s.ready + 1, {"share known": 1.0}, [0.3, 0.7], known),
        *xor(s.ready + 2, "before", "indexed", "answer", unless={ONE: 1.0, "known": -1.0}),
    )
    return Mechanism(parts)
