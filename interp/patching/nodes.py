"""What can stand at the two ends of a path, and is there a path between two of them?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from interp.models.anatomy import Anatomy
from interp.patching.editing import At, positions_at, words_of
from interp.patching.metrics import Metric
from interp.tasks import Batch

SenderKind = Literal["head", "mlp", "embed"]
ReceiverKind = Literal["q", "k", "v", "mlp", "logits"]


@dataclass(frozen=True)
class Sender:
    """What comes from the source run: a head's or an MLP's output, or the embedding, at some positions.

    `at`: a Role, a (Role, step) pair, a tuple of these, a tuple of positions, or None for all.

    >>> str(Sender("head", 0, 1, at=Role.INPUT_LABEL))
    'L0H1 at input label'
    """

    kind: SenderKind
    layer: int | None = None
    head: int | None = None
    at: At | None = None

    def __post_init__(self) -> None:
        _require_form(self, get_args(SenderKind), with_head=("head",), with_layer=("head", "mlp"))

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True)
class Receiver:
    """What sees the sender: q, k or v of a head, an MLP, or the logits, at some positions (None for all).

    q is read at the positions that attend, k and v at those attended to. With grouped queries the head of
    k and v is a key-value head.

    >>> str(Receiver("k", 1, 0, at=(Role.INPUT, 3)))
    'L1H0 k at input 3'
    """

    kind: ReceiverKind
    layer: int | None = None
    head: int | None = None
    at: At | None = None

    def __post_init__(self) -> None:
        _require_form(self, get_args(ReceiverKind), with_head=("q", "k", "v"), with_layer=("q", "k", "v", "mlp"))

    def __str__(self) -> str:
        return _text(self)


def _require_form(node: Sender | Receiver, kinds: tuple, with_layer: tuple, with_head: tuple) -> None:
    name = type(node).__name__.lower()
    if node.kind not in kinds:
        raise ValueError(f"a {name} is one of {', '.join(kinds)}; got {node.kind!r}")
    for what, value, wanted in (("layer", node.layer, with_layer), ("head", node.head, with_head)):
        if (value is not None) != (node.kind in wanted):
            raise ValueError(f"a {name} of kind {node.kind!r} {'needs a' if node.kind in wanted else 'has no'} {what}")


def _text(node: Sender | Receiver) -> str:
    where = "" if node.at is None else f" at {words_of(node.at)}"
    match node.kind:
        case "embed" | "logits":
            return node.kind + where
        case "mlp":
            return f"L{node.layer} MLP{where}"
        case "head":
            return f"L{node.layer}H{node.head}{where}"
        case kind:
            return f"L{node.layer}H{node.head} {kind}{where}"


def require_there(anatomy: Anatomy, batch: Batch, node: Sender | Receiver) -> None:
    """Raises `ValueError` for a place, layer or head that is not there."""
    positions_at(batch, node.at)
    n_heads = anatomy.n_kv_heads if node.kind in ("k", "v") else anatomy.n_heads
    if node.layer is not None and not 0 <= node.layer < len(anatomy.blocks):
        raise ValueError(f"{node}: no layer {node.layer}; layers are 0 to {len(anatomy.blocks) - 1}")
    if node.head is not None and not 0 <= node.head < n_heads:
        kind = "key-value heads" if n_heads < anatomy.n_heads else "heads"
        raise ValueError(f"{node}: no head {node.head}; {kind} are 0 to {n_heads - 1}")


def mistake(anatomy: Anatomy, batch: Batch, metric: Metric, sender: Sender, receiver: Receiver) -> str | None:
    """Why nothing could pass from the sender to the receiver; None where something can."""
    n = len(anatomy.blocks)
    written = -1 if sender.layer is None else 2 * sender.layer + (sender.kind == "mlp")
    # A parallel MLP reads the residual from before its layer's attention.
    layer = n if receiver.layer is None else receiver.layer
    read = 2 * layer + (receiver.kind == "mlp" and not anatomy.blocks[layer].parallel)
    if written >= read:
        return f"{receiver} reads the residual before {sender} writes to it; receivers stand after their sender"
    shared = set(positions_at(batch, sender.at).tolist()) & set(positions_at(batch, receiver.at).tolist())
    if not shared:
        return f"{sender} and {receiver} have no position in common, and the residual stream joins no two positions"
    if receiver.kind == "logits" and not shared & set(metric.positions.tolist()):
        return f"{metric.name} reads positions {metric.positions.tolist()}, and {sender} changes none of their logits"
    return None
