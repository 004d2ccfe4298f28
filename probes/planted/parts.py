"""The parts of a mechanism: attention heads and MLP units between named features of the residual stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from probes.planted.codes import LABEL_SIZE, PAIRS

ONE = "one"
# Sizes of the features that are codes; every other feature is one number.
SIZES = {
    "label": LABEL_SIZE,
    "previous label": LABEL_SIZE,
    "label two before": LABEL_SIZE,
    "label three before": LABEL_SIZE,
    "next label": LABEL_SIZE,
    "decoy": LABEL_SIZE,
    "place": 2 * PAIRS,
    "pointer": 2 * PAIRS,
    "target": 2 * PAIRS,
    "place before": 2 * PAIRS,
    "slot": 2 * PAIRS,
    "counted place": 2 * PAIRS,
    "counted target": 2 * PAIRS,
    # Of lists.
    "word": LABEL_SIZE,
    "value": LABEL_SIZE,
    "found": LABEL_SIZE,
    "second found": LABEL_SIZE,
    "wrong value": LABEL_SIZE,
    "label wanted": LABEL_SIZE,
    "value behind": LABEL_SIZE,
}
# Codes of what stands before a value of a list, and before the end of the query.
SIZES |= {
    f"{name}, {where}": LABEL_SIZE
    for name in ("own label", "value before", "label before", "value two before")
    for where in ("listed", "asked")
}
# Features that the token embedding writes, and those that GPT-2's position embedding writes.
OF_TOKENS = ("label", "is label", "bit", "is value", "is start", "is separator", "ballast")
OF_POSITIONS = ("place", "number", "position ballast")
# Counts and their inputs need a precision of one part in a thousand, so these are never in superposition.
EXACT = (
    "number",
    "separator number",
    "values",
    "ones",
    "counted share",
    "counted number",
    "counted at separator",
    "bit",
    "is value",
    "is start",
    "is separator",
    "is label",
    "is break",
)

# A number read from the residual: weights of features, or of one dimension (name, index) of a code.
Form = Mapping[str | tuple[str, int], float]


@dataclass(frozen=True)
class Match:
    """A score of `sharpness` where the query's code, moved by `turn` places, equals the key's; less elsewhere."""

    query: str
    key: str
    sharpness: float
    turn: int = 0


@dataclass(frozen=True)
class Term:
    """A score that is the product of a number at the query and a number at the key."""

    query: Form
    key: Form


@dataclass(frozen=True)
class Offset:
    """A score that is highest for the key `back` positions before the query."""

    back: int
    sharpness: float


@dataclass(frozen=True)
class Move:
    """What a head copies: a code or a number, from the key's position into a feature at the query's position."""

    source: str | Form
    target: str
    gain: float = 1.0


@dataclass(frozen=True)
class Head:
    """One attention head. Without moves it attends and writes nothing."""

    layer: int
    scores: tuple[Match | Term | Offset, ...]
    moves: tuple[Move, ...] = ()


@dataclass(frozen=True)
class Neuron:
    """One MLP unit: relu of a number, times what it writes into features (a number or a code each)."""

    layer: int
    reads: Form
    writes: Mapping[str, float | Tensor]


@dataclass(frozen=True)
class Mechanism:
    """A complete mechanism. The answer is 1 where the weighted sum of the `routes` is above one half.

    `format` is the format that it solves.
    """

    parts: tuple[Head | Neuron, ...]
    routes: Mapping[str, float] = field(default_factory=lambda: {"answer": 1.0})
    baseline: float = 0.0
    writes_labels: bool = False
    format: str = "parity-aligned"

    @property
    def n_layers(self) -> int:
        """The number of layers that the parts need."""
        return 1 + max(part.layer for part in self.parts)


def any_key(form: Form) -> Term:
    """Return a score that depends on the key only."""
    return Term({ONE: 1.0}, form)


def xor(layer: int, a: str, b: str, result: str, unless: Form | None = None) -> tuple[Neuron, ...]:
    """Return units for a XOR b of codes -1/2 and 1/2, as 0 or 1: 1 - relu(a + b) - relu(-a - b).

    Where the number `unless` is 1 (otherwise it is 0), the result is 1 for every a and b.
    """
    shut = {name: -2.0 * weight for name, weight in (unless or {}).items()}
    return (
        Neuron(layer, {ONE: 1.0}, {result: 1.0}),
        Neuron(layer, {a: 1.0, b: 1.0, **shut}, {result: -1.0}),
        Neuron(layer, {a: -1.0, b: -1.0, **shut}, {result: -1.0}),
    )


def table(
    layer: int,
    reads: Form,
    knots: Sequence[float],
    values: Mapping[str, Float[Tensor, "knot ..."]],
    only: str = ONE,
) -> tuple[Neuron, ...]:
    """Return units for features that are a piecewise linear function of one number in [-1, 1]: one unit per knot.

    Knots are monotonic, the closest together last, so that large slopes act on small differences. Before the first
    knot and after the last one the function is constant. It is 0 where the flag `only` is 0.
    """
    direction = 1.0 if knots[-1] > knots[0] else -1.0
    steps = torch.tensor(knots, dtype=torch.float64).diff().abs()
    assert (direction * torch.tensor(knots).diff() > 0).all(), "knots must be monotonic"

    def bends(value: Tensor) -> Tensor:
        slopes = value.diff(dim=0) / steps.reshape(-1, *[1] * (value.ndim - 1))
        none = torch.zeros_like(slopes[:1])
        return torch.cat([none, slopes, none]).diff(dim=0)

    bent = {name: bends(value.double()) for name, value in values.items()}
    units = [Neuron(layer, {only: 1.0}, {name: value[0].double() for name, value in values.items()})]
    for i, knot in enumerate(knots):
        form = {name: direction * weight for name, weight in reads.items()}
        form[ONE] = form.get(ONE, 0.0) - direction * knot
        if only != ONE:
            form[ONE], form[only] = form[ONE] - 2.0, form.get(only, 0.0) + 2.0
        units.append(Neuron(layer, form, {name: bend[i] for name, bend in bent.items()}))
    return tuple(units)


def features_of(circuit: Mechanism, positions: bool, tokens: Sequence[str] = OF_TOKENS) -> tuple[str, ...]:
    """Return every feature that the circuit, tokens or positions read or write, in a fixed order."""
    names: set[str] = {*tokens, *circuit.routes}
    names |= {"next label"} if circuit.writes_labels else set()
    names |= set(OF_POSITIONS) if positions else set()
    for part in circuit.parts:
        if isinstance(part, Neuron):
            names |= {*_names(part.reads), *part.writes}
            continue
        for score in part.scores:
            match score:
                case Match():
                    names |= {score.query, score.key}
                case Term():
                    names |= {*_names(score.query), *_names(score.key)}
        for move in part.moves:
            names |= {move.target, *([move.source] if isinstance(move.source, str) else _names(move.source))}
    return tuple(sorted(names - {ONE}))


def _names(form: Form) -> set[str]:
    return {key if isinstance(key, str) else key[0] for key in form}
