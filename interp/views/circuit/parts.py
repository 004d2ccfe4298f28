"""The nodes and edges of a circuit's graph, checked and in a fixed order.

A circuit is drawn from a `networkx.MultiDiGraph` with these attributes.

| of a | attribute | value |
|---|---|---|
| node | its key | a name, such as "embed", "L0H1", "L0 MLP", "logits" |
| node | `kind` | "embed", "head", "mlp" or "logits" |
| node | `layer`, `head` | numbers from 0: `layer` for heads and MLPs, `head` for heads |
| node | `label` | optional text, such as "matching label" |
| edge | `reads` | "q", "k" or "v" into a head, "mlp" into an MLP, "logits" into the logits |
| edge | `place` | where it is read: a role, or "anywhere" |
| edge | `score` | a signed, finite number |
| graph | `title`, `subtitle`, `n_layers` | optional; without `n_layers`, layers end with the last that has a node |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from networkx import MultiDiGraph

ANYWHERE = "anywhere"
READS = {"embed": (), "head": ("q", "k", "v"), "mlp": ("mlp",), "logits": ("logits",)}


@dataclass(frozen=True)
class DrawnNode:
    """A part of the model, and its label."""

    name: str
    kind: str
    layer: int | None = None
    head: int | None = None
    label: str = ""

    @property
    def text(self) -> str:
        """Name and label: `DrawnNode("L1H2", "head", 1, 2, "matching label").text == "L1H2: matching label"`."""
        return f"{self.name}: {self.label}" if self.label else self.name

    @property
    def time(self) -> float:
        """The order of computation: attention of layer l at 2l, its MLP at 2l + 1."""
        match self.kind:
            case "embed":
                return -1
            case "logits":
                return math.inf
        assert self.layer is not None
        return 2 * self.layer + (self.kind == "mlp")


@dataclass(frozen=True)
class Link:
    """One edge. `rank` is 1 for the strongest by absolute score."""

    writer: str
    reader: str
    reads: str
    place: str
    score: float
    rank: int = 0

    @property
    def sign(self) -> str:
        """One of "positive", "negative" and "zero"."""
        return "positive" if self.score > 0 else "negative" if self.score < 0 else "zero"

    def __str__(self) -> str:
        """The edge in words, its score to six digits: `L0H3 -> L1H2 k at input: +1.234`."""
        port = f" {self.reads}" if self.reads in READS["head"] else ""
        where = "" if self.place == ANYWHERE else f" at {self.place}"
        return f"{self.writer} -> {self.reader}{port}{where}: {self.score:+.6g}"


@dataclass(frozen=True)
class Parts:
    """Nodes in the order of computation; links sorted by writer, reader, `reads` and place."""

    nodes: tuple[DrawnNode, ...]
    links: tuple[Link, ...]
    n_layers: int
    title: str = ""
    subtitle: str = ""

    @property
    def strongest(self) -> tuple[Link, ...]:
        """Links by rank."""
        return tuple(sorted(self.links, key=lambda link: link.rank))

    @property
    def summary(self) -> str:
        """The circuit in words: its size and its strongest edges."""
        few = self.strongest[:5]
        text = f"A circuit of {count(len(self.nodes), 'node')} and {count(len(self.links), 'edge')}"
        return text + (f"; strongest: {'; '.join(map(str, few))}." if few else ".")


def count(n: int, what: str) -> str:
    """`count(1, "edge") == "1 edge"`, `count(2, "edge") == "2 edges"`."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def parts_of(graph: MultiDiGraph) -> Parts:
    """Return the nodes and edges of a graph, in an order that does not depend on insertion.

    Raises `ValueError` that names the node or edge if the graph does not have the attributes above.
    """
    from networkx import MultiDiGraph

    if not isinstance(graph, MultiDiGraph):
        raise ValueError(f"a circuit is drawn from a networkx.MultiDiGraph; got {type(graph).__name__}")
    if not graph:
        raise ValueError("a circuit without nodes cannot be drawn")
    nodes = {name: _node(name, data) for name, data in graph.nodes(data=True)}
    names: dict[tuple[str, int | None, int | None], str] = {}
    for node in nodes.values():
        other = names.setdefault((node.kind, node.layer, node.head), node.name)
        if other != node.name:
            raise ValueError(f"nodes {other!r} and {node.name!r} are the same part of the model")
    links = [_link(nodes[u], nodes[v], data) for u, v, data in graph.edges(data=True)]
    links.sort(
        key=lambda e: (
            nodes[e.writer].time,
            nodes[e.writer].head or 0,
            nodes[e.reader].time,
            nodes[e.reader].head or 0,
            "qkv".find(e.reads),
            e.place,
        )
    )
    for a, b in pairwise(links):
        if replace(a, score=0) == replace(b, score=0):
            raise ValueError(f"edge {str(a).rpartition(':')[0]} is given twice")
    ranks = {i: k for k, i in enumerate(sorted(range(len(links)), key=lambda i: -abs(links[i].score)), 1)}
    last = max((node.layer for node in nodes.values() if node.layer is not None), default=-1) + 1
    n_layers = graph.graph.get("n_layers", last)
    if not _whole(n_layers) or n_layers < last:
        raise ValueError(f"n_layers must be a whole number, {last} or more for these nodes; got {n_layers!r}")
    return Parts(
        nodes=tuple(sorted(nodes.values(), key=lambda n: (n.time, n.head or 0))),
        links=tuple(replace(link, rank=ranks[i]) for i, link in enumerate(links)),
        n_layers=int(n_layers),
        title=_text(graph.graph, "title", "the graph"),
        subtitle=_text(graph.graph, "subtitle", "the graph"),
    )


def _node(name: Any, data: dict[str, Any]) -> DrawnNode:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"the name of a node is a string; got {name!r}")
    kind = data.get("kind")
    if kind not in READS:
        raise ValueError(f"node {name!r}: kind must be one of {', '.join(READS)}; got {kind!r}")
    wanted = {"head": ("layer", "head"), "mlp": ("layer",)}.get(kind, ())
    for key in wanted:
        if not _whole(data.get(key)):
            raise ValueError(f"node {name!r}: {key} must be a whole number from 0; got {data.get(key)!r}")
    numbers = {key: int(data[key]) for key in wanted}
    return DrawnNode(name, kind, numbers.get("layer"), numbers.get("head"), _text(data, "label", f"node {name!r}"))


def _link(writer: DrawnNode, reader: DrawnNode, data: dict[str, Any]) -> Link:
    name = f"edge {writer.name!r} -> {reader.name!r}"
    if writer.time >= reader.time:
        raise ValueError(f"{name}: the reader does not come after the writer")
    if data.get("reads") not in READS[reader.kind]:
        choices = ", ".join(READS[reader.kind])
        raise ValueError(
            f"{name}: reads must be one of {choices} for a reader of kind {reader.kind}; got {data.get('reads')!r}"
        )
    if not _text(data, "place", name):
        raise ValueError(f"{name}: place must be a role or {ANYWHERE!r}; got {data.get('place')!r}")
    score = data.get("score")
    if not isinstance(score, Real) or isinstance(score, bool) or not math.isfinite(score):
        raise ValueError(f"{name}: score must be a finite number; got {score!r}")
    return Link(writer.name, reader.name, data["reads"], data["place"], float(score))


def _text(data: dict[str, Any], key: str, owner: str) -> str:
    """Return an optional text; None counts as absent."""
    text = data.get(key)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{owner}: {key} must be text; got {text!r}")
    return (text or "").strip()


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0
