"""Compile the parts of a mechanism into matrices, before an architecture is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probes.planted.codes import HeadLayout, turned
from probes.planted.parts import ONE, SIZES, Form, Head, Match, Mechanism, Move, Neuron, Offset, Term


@dataclass(frozen=True)
class HeadMatrices:
    """The matrices q, k, v and o of a head, each `[d_head feature]`; q includes the square root of the head size."""

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor


@dataclass(frozen=True)
class LayerMatrices:
    """The heads of a layer, and its MLP's input and output, each `[unit feature]`."""

    heads: tuple[HeadMatrices, ...]
    reads: Float[Tensor, "unit feature"]
    writes: Float[Tensor, "unit feature"]


@dataclass(frozen=True)
class Space:
    """The features as coordinates (`slices`; the constant is the last), and how the architecture encodes distance.

    With rotary heads, dimensions of a head rotate with the position; otherwise "place" holds its code.
    """

    slices: Mapping[str, slice]
    size: int
    frequencies: Float[Tensor, " pair"]
    head: HeadLayout

    def form(self, form: Form) -> Float[Tensor, " feature"]:
        """Return a number, given as weights of features, as weights of all coordinates."""
        row = torch.zeros(self.size, dtype=torch.float64)
        for key, weight in form.items():
            name, index = (key, 0) if isinstance(key, str) else key
            row[self._at(name).start + index] += weight
        return row

    def code(self, name: str) -> Float[Tensor, "code feature"]:
        """Return the unit vectors of a feature's coordinates."""
        return torch.eye(self.size, dtype=torch.float64)[self._at(name)]

    def _at(self, name: str) -> slice:
        return slice(self.size - 1, self.size) if name == ONE else self.slices[name]


def compile_layers(circuit: Mechanism, space: Space) -> tuple[LayerMatrices, ...]:
    """Return the matrices of each layer, in the order of the parts."""
    layers = []
    for layer in range(circuit.n_layers):
        here = [part for part in circuit.parts if part.layer == layer]
        heads = tuple(_head(part, space) for part in here if isinstance(part, Head))
        units = [part for part in here if isinstance(part, Neuron)]
        reads = [space.form(unit.reads) for unit in units]
        writes = [_written(unit, space) for unit in units]
        layers.append(LayerMatrices(heads, *(_stack(rows, space.size) for rows in (reads, writes))))
    return tuple(layers)


def _head(head: Head, space: Space) -> HeadMatrices:
    layout = space.head
    q, k = (torch.zeros(layout.size, space.size, dtype=torch.float64) for _ in range(2))
    used = 0
    for score in head.scores:
        match score:
            case Offset() if layout.turning:
                angle = -score.back * layout.frequencies
                share = 1 / math.sqrt(len(angle))
                for (first, second), turn in zip(layout.turning, angle.tolist(), strict=True):
                    q[first, -1] = score.sharpness * share * math.cos(turn)
                    q[second, -1] = score.sharpness * share * math.sin(turn)
                    k[first, -1] = share
                continue
            case Offset():
                back = turned(-score.back, space.frequencies)
                a, b = score.sharpness * back @ space.code("place"), space.code("place")
            case Match():
                a, b = score.sharpness * space.code(score.query), space.code(score.key)
                if score.turn:
                    a = turned(score.turn, space.frequencies) @ a
            case Term():
                a, b = space.form(score.query)[None], space.form(score.key)[None]
        assert used + len(a) <= len(layout.still), "the scores of a head take more dimensions than it has"
        at = list(layout.still[used : used + len(a)])
        q[at], k[at] = a, b
        used += len(a)
    v, o = _moved(head.moves, space)
    return HeadMatrices(q * math.sqrt(layout.size), k, v, o)


def code_dimensions(circuit: Mechanism, learned_positions: bool) -> int:
    """Return the most dimensions for codes that the scores of one head take."""

    def scored(score: Match | Term | Offset) -> int:
        match score:
            case Match():
                return SIZES.get(score.query, 1)
            case Term():
                return 1
            case Offset():
                return SIZES["place"] if learned_positions else 0

    heads = [part for part in circuit.parts if isinstance(part, Head)]
    return max(sum(map(scored, head.scores)) for head in heads)


def _moved(moves: tuple[Move, ...], space: Space) -> tuple[Tensor, Tensor]:
    v, o = (torch.zeros(space.head.size, space.size, dtype=torch.float64) for _ in range(2))
    used = 0
    for move in moves:
        source = space.code(move.source) if isinstance(move.source, str) else space.form(move.source)[None]
        assert used + len(source) <= space.head.size, "the moves of a head take more dimensions than it has"
        v[used : used + len(source)] = source
        o[used : used + len(source)] = move.gain * space.code(move.target)
        used += len(source)
    return v, o


def _written(unit: Neuron, space: Space) -> Float[Tensor, " feature"]:
    row = torch.zeros(space.size, dtype=torch.float64)
    for name, value in unit.writes.items():
        row[space.slices[name]] += torch.as_tensor(value, dtype=torch.float64).reshape(-1).expand(SIZES.get(name, 1))
    return row


def _stack(rows: list[Tensor], size: int) -> Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, size, dtype=torch.float64)
