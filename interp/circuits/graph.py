"""Which parts of a model can speak to which, and where? The edges of its residual stream.

The residual stream is a running sum, so whatever a part reads is the embedding plus what earlier parts wrote. An
edge is one such summand: what a *writer* (embedding, head, MLP) adds to what a *reader* (q, k or v of a head, MLP,
logits) sees, at the positions of one *place* (Elhage et al. 2021, "A Mathematical Framework"; Conmy et al.
2304.14997). An algorithm's circuit lives on roles and not on absolute positions, so places can be roles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.nodes import Receiver, Sender
from interp.tasks import Batch, Role

ANYWHERE = "anywhere"
_SHARED: tuple[Literal["k"], Literal["v"]] = ("k", "v")  # what key-value heads are read as
Prompts = Batch | Int[Tensor, "batch pos"]


@dataclass(frozen=True, eq=False)
class Places:
    """Groups of positions; every position is in one, and edges of different places are different edges.

    Shapes:
        index: `[pos]`, the number of each position's place in `names`.
    """

    names: tuple[str, ...]
    index: Int[Tensor, " pos"]

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or not self.names:
            raise ValueError(f"places need one or more different names; got {self.names}")
        if self.index.ndim != 1 or not ((self.index >= 0) & (self.index < len(self.names))).all():
            raise ValueError(f"the place of each position must be a number from 0 to {len(self.names) - 1}")

    @property
    def n_pos(self) -> int:
        """Positions."""
        return len(self.index)


def places_of(prompts: Prompts, places: Places | Literal["anywhere", "role"]) -> Places:
    """Places by name: "anywhere" makes no difference between positions, "role" is a place for each role.

    Raises `ValueError` for another name, for roles of prompts that are a plain tensor, and for places of another
    number of positions.
    """
    n_pos = tokens_of(prompts).shape[1]
    if isinstance(places, Places):
        if places.n_pos != n_pos:
            raise ValueError(f"places are of {places.n_pos} positions; the prompts have {n_pos}")
        return places
    match places:
        case "anywhere":
            return Places((ANYWHERE,), torch.zeros(n_pos, dtype=torch.long))
        case "role" if isinstance(prompts, Batch):
            return named_places([Role(r).words for r in prompts.role.tolist()])
        case "role":
            raise ValueError("a tensor of tokens has no roles; give a Batch, or Places")
    raise ValueError(f"places must be 'anywhere', 'role' or Places; got {places!r}")


def places_around(batch: Batch, step: int) -> Places:
    """Roles, told apart by whether they belong to `step`, to the step before it, or to another.

    "output, step before" is then the previous parity, and names are the same at every length and step.
    """
    batch.at(Role.OUTPUT, step)  # its error names the steps that there are
    words = {step: ", this step", step - 1: ", step before"}

    def name(role: int, at: int) -> str:
        return Role(role).words + ("" if at < 0 else words.get(at, ", other steps"))

    return named_places([name(r, s) for r, s in zip(batch.role.tolist(), batch.step.tolist(), strict=True)])


def named_places(names: list[str]) -> Places:
    """Places from a name for each position."""
    order = tuple(dict.fromkeys(names))
    return Places(order, torch.tensor([order.index(name) for name in names]))


def tokens_of(prompts: Prompts) -> Int[Tensor, "batch pos"]:
    """The tokens of a Batch, or the tensor itself. Raises `ValueError` unless there is a prompt and a position."""
    tokens = prompts.tokens if isinstance(prompts, Batch) else prompts
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or not tokens.numel() or tokens.is_floating_point():
        got = list(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"prompts are a Batch or token ids [batch pos], one or more; got {got}")
    return tokens


@dataclass(frozen=True)
class Edge:
    """A writer, the reader that sees it, and the place at which it does.

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
    """Everything that an edge could be, in the order in which a model computes it.

    Shapes:
        possible: `[place reader writer]`, whether the writer comes before the reader, and what is read there can
                  reach the logits that are looked at.
    """

    writers: tuple[Sender, ...]
    readers: tuple[Receiver, ...]
    places: tuple[str, ...]
    possible: Bool[Tensor, "place reader writer"]
    shared: int = 1  # query heads to a key-value head

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
        """The number of possible edges."""
        return int(self.possible.sum())

    def edge(self, place: int, reader: int, writer: int) -> Edge:
        """The edge at an index of `possible`."""
        return Edge(self.writers[writer], self.readers[reader], self.places[place])

    def index(self, edge: Edge) -> tuple[int, int, int]:
        """Where an edge stands in `possible`. Raises `ValueError`, with the names that there are, if it does not."""
        for what, name, names in (
            ("writer", edge.writer, self.writers),
            ("reader", edge.reader, self.readers),
            ("place", edge.place, self.places),
        ):
            if name not in names:
                raise ValueError(f"no {what} {str(name)!r} in this graph; there are {', '.join(map(str, names))}")
        found = tuple(self.numbers[name] for name in (edge.place, edge.reader, edge.writer))
        if not self.possible[found]:
            raise ValueError(f"nothing can pass along {edge}: the reader is before the writer, or far from the logits")
        return found  # pyright: ignore[reportReturnType]

    def edges(self, kept: Bool[Tensor, "place reader writer"] | None = None) -> Iterator[Edge]:
        """The edges of a mask; without one, all that are possible."""
        for place, reader, writer in (self.possible if kept is None else kept).nonzero().tolist():
            yield self.edge(place, reader, writer)

    def mask(self, edges: list[Edge] | tuple[Edge, ...]) -> Bool[Tensor, "place reader writer"]:
        """The mask of some edges."""
        kept = torch.zeros_like(self.possible)
        for edge in edges:
            kept[self.index(edge)] = True
        return kept

    def readers_of(self, writer: Sender) -> tuple[int, ...]:
        """Numbers of the readers that feed a writer: q, k and v of a head, or an MLP's own; none for the embedding."""
        match writer.kind:
            case "embed":
                return ()
            case "mlp":
                return (self.numbers[Receiver("mlp", writer.layer)],)
            case _:
                assert writer.head is not None
                shared = writer.head // self.shared
                own = Receiver("q", writer.layer, writer.head), *(Receiver(k, writer.layer, shared) for k in _SHARED)
                return tuple(self.numbers[reader] for reader in own)


def graph_of(anatomy: Anatomy, places: Places, read: Int[Tensor, " read"]) -> Graph:
    """The graph of a model whose logits are looked at at positions `read`.

    Possible are edges from before to after at places that the logits can depend on: in the last layer q and the
    MLP count where the logits are read, and nothing counts after the last position that is read.
    """
    n_layers, heads, kv_heads = len(anatomy.blocks), range(anatomy.n_heads), range(anatomy.n_kv_heads)
    writers, readers = [Sender("embed")], []
    for layer in range(n_layers):
        writers += [*(Sender("head", layer, h) for h in heads), Sender("mlp", layer)]
        readers += [
            *(Receiver("q", layer, h) for h in heads),
            *(Receiver("k", layer, h) for h in kv_heads),
            *(Receiver("v", layer, h) for h in kv_heads),
            Receiver("mlp", layer),
        ]
    readers.append(Receiver("logits"))
    before = torch.tensor([[_time(w) < _time(r, anatomy) for w in writers] for r in readers])
    if not len(read) or int(read.max()) >= places.n_pos:
        raise ValueError(f"the logits of positions {read.tolist()} are looked at; there are {places.n_pos} positions")
    looked, known = (torch.zeros(len(places.names), dtype=torch.bool) for _ in range(2))
    looked[places.index[read]] = True
    known[places.index[: places.n_pos if not anatomy.causal else int(read.max()) + 1]] = True
    at_the_end = torch.tensor(
        [r.kind == "logits" or (r.layer == n_layers - 1 and r.kind in ("q", "mlp")) for r in readers]
    )
    reaches = torch.where(at_the_end, looked[:, None], known[:, None])  # [place reader]
    return Graph(
        tuple(writers),
        tuple(readers),
        places.names,
        before & reaches.unsqueeze(-1),
        anatomy.n_heads // anatomy.n_kv_heads,
    )


def _time(node: Sender | Receiver, anatomy: Anatomy | None = None) -> float:
    """When a writer writes, or a reader reads: attention of layer l at 2l, its MLP at 2l + 1."""
    if node.kind == "embed":
        return -1
    if node.layer is None:  # the logits
        return float("inf")
    parallel = anatomy is not None and anatomy.blocks[node.layer].parallel
    return 2 * node.layer + (node.kind == "mlp" and not parallel)
