"""Mechanisms that use labels at odd steps in one way, and at even steps in another. Steps are counted from 1."""

from __future__ import annotations

import torch

from probes.planted.parts import ONE, Head, Mechanism, Move, Neuron, Term, table, xor
from probes.planted.pieces import (
    Parts,
    Setting,
    after,
    bit_by_label,
    by_index,
    distances,
    past_separator,
    prefix_parity,
    shared,
    sink_head,
    target,
)

ODD = "odd step"


def odd_step(s: Setting) -> Parts:
    """Return units that write 1 at output labels of odd steps and 0 at those of even steps. Needs `target`."""
    flags = (torch.arange(s.longest) + 1) % 2
    return table(s.ready, past_separator(), (distances(s) * s.unit).tolist(), {ODD: flags.double()})


def anchor_at_odd_steps(s: Setting) -> Mechanism:
    """Bit i is read by label i at odd steps, and by index at even ones."""
    return Mechanism((*_indexed(s), bit_by_label(s), *_answers(s, ("before", "retrieved"), ("before", "indexed"))))


def anchor_and_sink_by_step(s: Setting) -> Mechanism:
    """As the anchor at odd steps; at even steps a head adds noise from bits unless it can attend to labels."""
    return Mechanism((*anchor_at_odd_steps(s).parts, *_sink_at_even_steps(s)), {"answer": 1.0, "flood": 20.0})


def anchor_and_state_by_step(s: Setting) -> Mechanism:
    """Bit i is read by label i at odd steps; at even steps the state stored at label i and bit i are read by index."""
    answers = _answers(s, ("before", "retrieved"), ("history", "indexed"))
    return Mechanism((*_indexed(s), bit_by_label(s), *_state(s), *answers))


def state_and_sink_by_step(s: Setting) -> Mechanism:
    """The state stored at label i is read by index at odd steps; at even steps labels are the sink of another head."""
    answers = _answers(s, ("history", "indexed"), ("before", "indexed"))
    parts = (*_indexed(s), *_state(s), *answers, *_sink_at_even_steps(s))
    return Mechanism(parts, {"answer": 1.0, "flood": 20.0})


def _indexed(s: Setting) -> Parts:
    """Return the parts of every mechanism here: bit i read by index, and the flag of odd steps."""
    return (*shared(s), *target(s), *odd_step(s), by_index(s, 1, "is value", Move("bit", "indexed")))


def _state(s: Setting) -> Parts:
    return (*prefix_parity(s), by_index(s, 0, "is label", Move("state", "history")))


def _answers(s: Setting, at_odd: tuple[str, str], at_even: tuple[str, str]) -> Parts:
    """Return units for a XOR b of one pair of features at odd steps, and of another at even ones."""
    last = s.ready + 1
    return (
        *xor(last, *at_odd, "answer", unless={ONE: 1.0, ODD: -1.0}),
        *xor(last, *at_even, "answer", unless={ODD: 1.0}),
        Neuron(last, {ONE: 1.0}, {"answer": -1.0}),  # a closed route gives 1
    )


def _sink_at_even_steps(s: Setting) -> Parts:
    """Return a sink head whose query attends to `>>>`, where there is no bit, at odd steps."""
    head = sink_head(s, Move("bit", "flood"))
    return (after(0), Head(head.layer, (*head.scores, Term({ODD: 1.0}, {"is start": 90.0})), head.moves))
