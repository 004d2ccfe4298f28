"""The two ends of a path: senders and receivers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interp.models.anatomy import Anatomy
from interp.patching.metric import Metric
from interp.places import At, describe, positions_at
from interp.tasks import Prompts
from interp.tasks.limits import is_index

SenderKind = Literal["head", "mlp", "embed"]
ReceiverKind = Literal["q", "k", "v", "mlp", "logits"]


@dataclass(frozen=True)
class Sender:
    """The component whose output is taken from the source run: a head, an MLP or the embedding, at some positions.

    `kind`: "head" (with `layer` and `head`), "mlp" (with `layer`) or "embed". `at`: a Role, a (Role, step) pair, the
    name of a span, an index, a tuple of these, or None for all.

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
    """The input that receives the sender's change: q, k or v of a head, an MLP, or the logits, at some positions.

    `kind`: "q", "k" or "v" (with `layer` and `head`), "mlp" (with `layer`) or "logits". q is read at destination
    positions, k and v at source positions. With grouped queries the head of k and v is a key-value
    head. `at` is as in `Sender`.

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


# Names, as `str` gives them, stand for components at all positions.
Senders = Sender | str | Sequence[Sender | str]
Receivers = Receiver | str | Sequence[Receiver | str]
_NAME = re.compile(r"L(\d{1,4})(?:H(\d{1,6})(?: ([qkv]))?| ?(MLP))")


def ends_of(
    anatomy: Anatomy, prompts: Prompts, senders: Senders, receivers: Receivers
) -> tuple[list[Sender], list[Receiver]]:
    """Return the senders and the receivers of paths. Raises `ValueError` for none, and for one that does not exist."""
    ends = senders_of(senders), receivers_of(receivers)
    if not all(ends):
        raise ValueError("give at least one sender and one receiver")
    for node in (*ends[0], *ends[1]):
        require_node(anatomy, prompts, node)
    return ends


def senders_of(given: Senders) -> list[Sender]:
    """Return senders, given one or several, by themselves or by name. Raises `ValueError` for what is none.

    >>> senders_of(["L0H1", "L1 MLP", "embed"]) == [Sender("head", 0, 1), Sender("mlp", 1), Sender("embed")]
    True
    """
    return [_sender(one) for one in ([given] if isinstance(given, Sender | str) else given)]


def receivers_of(given: Receivers) -> list[Receiver]:
    """Return receivers, given one or several, by themselves or by name. Raises `ValueError` for what is none.

    >>> receivers_of("L1H0 k") == [Receiver("k", 1, 0)], receivers_of("logits") == [Receiver("logits")]
    (True, True)
    """
    return [_receiver(one) for one in ([given] if isinstance(given, Receiver | str) else given)]


def _sender(given: object) -> Sender:
    if isinstance(given, Sender):
        return given
    node = _parsed(given)
    if node is None or node[0] not in get_args(SenderKind):
        raise ValueError(f"{given!r} is no sender; give a Sender, or a name such as L1H3 (a head), L1 MLP or embed")
    return Sender(*node)


def _receiver(given: object) -> Receiver:
    if isinstance(given, Receiver):
        return given
    node = _parsed(given)
    if node is None or node[0] not in get_args(ReceiverKind):
        names = "L1H3 q, L1H3 k, L1H3 v (an input of a head), L1 MLP or logits"
        raise ValueError(f"{given!r} is no receiver; give a Receiver, or a name such as {names}")
    return Receiver(*node)


def _parsed(name: object) -> tuple[Any, int | None, int | None] | None:
    """Return kind, layer and head of a name; None for what is no name."""
    if not isinstance(name, str):
        return None
    if name in ("embed", "logits"):
        return name, None, None
    if (found := _NAME.fullmatch(name.strip())) is None:
        return None
    layer, head, part, mlp = found.groups()
    return ("mlp", int(layer), None) if mlp else (part or "head", int(layer), int(head))


def _require_form(node: Sender | Receiver, kinds: tuple, with_layer: tuple, with_head: tuple) -> None:
    name = type(node).__name__.lower()
    if node.kind not in kinds:
        raise ValueError(f"a {name} is one of {', '.join(kinds)}; got {node.kind!r}")
    for what, value, wanted in (("layer", node.layer, with_layer), ("head", node.head, with_head)):
        if (value is not None) != (node.kind in wanted):
            raise ValueError(f"a {name} of kind {node.kind!r} {'needs a' if node.kind in wanted else 'has no'} {what}")


def _text(node: Sender | Receiver) -> str:
    where = "" if node.at is None else f" at {describe(node.at)}"
    match node.kind:
        case "embed" | "logits":
            return node.kind + where
        case "mlp":
            return f"L{node.layer} MLP{where}"
        case "head":
            return f"L{node.layer}H{node.head}{where}"
        case kind:
            return f"L{node.layer}H{node.head} {kind}{where}"


def require_node(anatomy: Anatomy, prompts: Prompts, node: Sender | Receiver) -> None:
    """Raise `ValueError` for a position, layer or head that does not exist."""
    positions_at(prompts, node.at)
    n_heads = anatomy.n_kv_heads if node.kind in ("k", "v") else anatomy.n_heads
    if node.layer is not None and not is_index(node.layer, len(anatomy.blocks)):
        raise ValueError(f"{node}: no layer {node.layer}; layers are 0 to {len(anatomy.blocks) - 1}")
    if node.head is not None and not is_index(node.head, n_heads):
        kind = "key-value heads" if n_heads < anatomy.n_heads else "heads"
        raise ValueError(f"{node}: no head {node.head}; {kind} are 0 to {n_heads - 1}")


def why_no_path(anatomy: Anatomy, prompts: Prompts, metric: Metric, sender: Sender, receiver: Receiver) -> str | None:
    """Return why no path leads from the sender to the receiver; None if one does."""
    n = len(anatomy.blocks)
    written_at = -1 if sender.layer is None else 2 * sender.layer + (sender.kind == "mlp")
    # A parallel MLP reads the residual from before its layer's attention.
    layer = n if receiver.layer is None else receiver.layer
    read_at = 2 * layer + (receiver.kind == "mlp" and not anatomy.blocks[layer].parallel)
    if written_at >= read_at:
        return f"{receiver} reads the residual before {sender} writes to it; a receiver must come after its sender"
    shared = set(positions_at(prompts, sender.at).tolist()) & set(positions_at(prompts, receiver.at).tolist())
    if not shared:
        return f"{sender} and {receiver} have no position in common, and the residual stream does not mix positions"
    if receiver.kind == "logits" and not shared & set(metric.positions.tolist()):
        return f"{metric.name} reads positions {metric.positions.tolist()}, and {sender} changes none of their logits"
    return None
