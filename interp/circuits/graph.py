"""The edges of a model's residual stream: which part reads what which earlier part writes, and at which place.

The residual stream is a sum: what a part reads is the embedding plus what all earlier parts wrote. An edge is one
summand: what a *writer* (embedding, head, MLP) adds to the input of a *reader* (q, k or v of a head, MLP, logits) at
the positions of one *place* (Elhage et al. 2021, "A Mathematical Framework"; Conmy et al. 2304.14997).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.circuits.places import ANYWHERE, Places
from interp.models.anatomy import Anatomy
from interp.patching.nodes import Receiver, Sender

# Readers that exist once per key-value head.
_KV: tuple[Literal["k"], Literal["v"]] = ("k", "v")


@dataclass(frozen=True)
class Edge:
    """A writer, a reader, and the place at which the reader reads.

    >>> str(Edge(Sender("head", 0, 1), Receiver("k", 1, 0), "input"))
    'L0H1 -> L1H0 k at input'
    """

    writer: Sender
    reader: Receiver
    place: str = ANYWHERE

    def __str__(self) -> str:
        where = "" if self.place == ANYWHERE else f" at {self.place}"
        return f"{self.writer} -> {self.reader}{where}"


@dataclass(frozen=True, eq=False)
class Graph:
    """All writers, readers and places of a model, in the order in which the model computes them.

    Shapes:
        possible: `[place reader writer]`, true where the writer comes before the reader and what is read there can
                  reach the logits that the metric reads.
    """

    writers: tuple[Sender, ...]
    readers: tuple[Receiver, ...]
    places: tuple[str, ...]
    possible: Bool[Tensor, "place reader writer"]
    shared: int = 1  # query heads per key-value head

    numbers: dict[Sender | Receiver | str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = (len(self.places), len(self.readers), len(self.writers))
        if tuple(self.possible.shape) != shape:
            raise ValueError(f"possible must be [place reader writer] = {list(shape)}; got {list(self.possible.shape)}")
        numbers: dict = {}
        for names in (self.writers, self.readers, self.places):
            numbers |= {name: i for i, name in enumerate(names)}
        object.__setattr__(self, "numbers", numbers)

    def __len__(self) -> int:
        """Return the number of possible edges."""
        return int(self.possible.sum())

    def edge(self, place: int, reader: int, writer: int) -> Edge:
        """Return the edge at an index of `possible`."""
        return Edge(self.writers[writer], self.readers[reader], self.places[place])

    def index(self, edge: Edge) -> tuple[int, int, int]:
        """Return the index of an edge in `possible`. Raises `ValueError`, with the choices, for another edge."""
        for what, name, names in (
            ("writer", edge.writer, self.writers),
            ("reader", edge.reader, self.readers),
            ("place", edge.place, self.places),
        ):
            if name not in names:
                raise ValueError(f"no {what} {str(name)!r} in this graph; there are {', '.join(map(str, names))}")
        place, reader, writer = (self.numbers[name] for name in (edge.place, edge.reader, edge.writer))
        if not self.possible[place, reader, writer]:
            raise ValueError(
                f"{edge} is not possible: the reader comes before the writer, or cannot reach the logits that are read"
            )
        return place, reader, writer

    def edges(self, kept: Bool[Tensor, "place reader writer"] | None = None) -> Iterator[Edge]:
        """Iterate over the edges of a mask; without one, over all possible edges."""
        for place, reader, writer in (self.possible if kept is None else kept).nonzero().tolist():
            yield self.edge(place, reader, writer)

    def mask(self, edges: Sequence[Edge]) -> Bool[Tensor, "place reader writer"]:
        """Return the mask of some edges."""
        kept = torch.zeros_like(self.possible)
        for edge in edges:
            kept[self.index(edge)] = True
        return kept

    def readers_of(self, writer: Sender) -> tuple[int, ...]:
        """Return the indices of a writer's own readers: q, k, v of a head, or the MLP; none for the embedding."""
        match writer.kind:
            case "embed":
                return ()
            case "mlp":
                return (self.numbers[Receiver("mlp", writer.layer)],)
            case _:
                assert writer.head is not None
                kv_head = writer.head // self.shared
                own = Receiver("q", writer.layer, writer.head), *(Receiver(k, writer.layer, kv_head) for k in _KV)
                return tuple(self.numbers[reader] for reader in own)


def graph_of(anatomy: Anatomy, places: Places, read: Int[Tensor, " read"]) -> Graph:
    """Return the graph of a model whose logits are read at positions `read`.

    An edge is possible where the writer comes before the reader and the logits can depend on it. In the last layer,
    q and the MLP matter only where logits are read. Positions after the last one that is read do not matter.
    """
    n_layers = len(anatomy.blocks)
    writers, readers = nodes_of(n_layers, anatomy.n_heads, anatomy.n_kv_heads)
    before = writes_before(writers, readers, [block.parallel for block in anatomy.blocks])
    if not len(read) or int(read.max()) >= places.n_pos:
        raise ValueError(f"the metric reads positions {read.tolist()}; the prompts have {places.n_pos} positions")
    holds_read, holds_past = (torch.zeros(len(places.names), dtype=torch.bool) for _ in range(2))
    holds_read[places.index[read]] = True
    holds_past[places.index[: places.n_pos if not anatomy.causal else int(read.max()) + 1]] = True
    at_the_end = torch.tensor(
        [r.kind == "logits" or (r.layer == n_layers - 1 and r.kind in ("q", "mlp")) for r in readers]
    )
    reaches = torch.where(at_the_end, holds_read[:, None], holds_past[:, None])  # [place reader]
    return Graph(
        writers=writers,
        readers=readers,
        places=places.names,
        possible=before & reaches.unsqueeze(-1),
        shared=anatomy.n_heads // anatomy.n_kv_heads,
    )


def nodes_of(n_layers: int, n_heads: int, n_kv_heads: int) -> tuple[tuple[Sender, ...], tuple[Receiver, ...]]:
    """Return all writers and all readers of a model, in the order in which it computes them."""
    writers, readers = [Sender("embed")], []
    for layer in range(n_layers):
        writers += [*(Sender("head", layer, h) for h in range(n_heads)), Sender("mlp", layer)]
        readers += [
            *(Receiver("q", layer, h) for h in range(n_heads)),
            *(Receiver("k", layer, h) for h in range(n_kv_heads)),
            *(Receiver("v", layer, h) for h in range(n_kv_heads)),
            Receiver("mlp", layer),
        ]
    return tuple(writers), (*readers, Receiver("logits"))


def writes_before(
    writers: Sequence[Sender], readers: Sequence[Receiver], parallel: Sequence[bool]
) -> Bool[Tensor, "reader writer"]:
    """Return whether each writer writes before each reader reads. A parallel MLP reads before its layer's attention."""

    def time(node: Sender | Receiver, reads: bool) -> float:
        if node.kind == "embed":
            return -1
        if node.layer is None:  # the logits
            return float("inf")
        return 2 * node.layer + (node.kind == "mlp" and not (reads and parallel[node.layer]))

    return torch.tensor([[time(w, False) < time(r, True) for w in writers] for r in readers])
