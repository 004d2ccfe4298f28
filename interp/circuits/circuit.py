"""A part of a model that is thought to do the work: some edges, which can be run as a model."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.circuits.ablation import Ablation, ablation_of
from interp.circuits.graph import ANYWHERE, Edge, Graph, Places, Prompts, places_of
from interp.circuits.installing import install
from interp.models.bridge import raw_of
from interp.patching.nodes import Receiver, Sender
from interp.tasks import Batch, Role

if TYPE_CHECKING:
    import networkx
    from transformer_lens.model_bridge import TransformerBridge

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Circuit:
    """Edges of a graph.

    Shapes:
        kept:   `[place reader writer]`, the edges of the circuit, all of them possible.
        scores: `[place reader writer]`, what each edge was found to be worth, in units of the metric.

    `details` says how it was found.
    """

    graph: Graph
    kept: Bool[Tensor, "place reader writer"]
    scores: Float[Tensor, "place reader writer"] | None = None
    details: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kept.shape != self.graph.possible.shape or self.kept.dtype != torch.bool:
            raise ValueError(f"kept must be true or false {list(self.graph.possible.shape)}")
        wrong = self.kept & ~self.graph.possible
        if wrong.any():
            edge = self.graph.edge(*wrong.nonzero()[0].tolist())
            raise ValueError(f"nothing can pass along {edge}, so it is not part of a circuit")

    def __len__(self) -> int:
        """The number of its edges."""
        return int(self.kept.sum())

    @property
    def share(self) -> float:
        """Its edges as a share of those that are possible."""
        return len(self) / len(self.graph)

    def edges(self) -> list[tuple[Edge, float | None]]:
        """Edges and their scores, the largest absolute score first; in the model's order without scores."""
        found = [
            (e, None if self.scores is None else float(self.scores[self.graph.index(e)]))
            for e in self.graph.edges(self.kept)
        ]
        return sorted(found, key=lambda pair: -abs(pair[1] or 0.0))

    def heads(self) -> list[tuple[int, int]]:
        """(layer, head) of the heads that something is read from, in order."""
        used = self.kept.any(dim=0).any(dim=0).tolist()
        return [(w.layer, w.head) for w, u in zip(self.graph.writers, used, strict=True) if u and w.kind == "head"]  # pyright: ignore[reportReturnType]

    def without(self, *edges: Edge) -> Circuit:
        """The circuit less some of its edges. Raises `ValueError` for one that it does not have."""
        gone = self.graph.mask(edges)
        if (gone & ~self.kept).any():
            edge = self.graph.edge(*(gone & ~self.kept).nonzero()[0].tolist())
            raise ValueError(f"{edge} is not in the circuit")
        return replace(self, kept=self.kept & ~gone)

    def connected(self) -> Circuit:
        """Without the edges that are on no way from the embedding to the logits.

        With a corrupted or resampled run instead, such edges change nothing: what a head gives whose inputs are all
        cut is what it gives anyway.
        """
        kept = self.kept.clone()
        feeds = [list(self.graph.readers_of(writer)) for writer in self.graph.writers]
        while True:
            fed = kept.any(dim=0).any(dim=1)  # [reader]
            alive = torch.tensor([not f or bool(fed[f].any()) for f in feeds])  # only the embedding needs no input
            heard = kept.any(dim=0).any(dim=0)  # [writer]
            wanted = torch.tensor([r.kind == "logits" for r in self.graph.readers])
            for writer, feed in enumerate(feeds):
                wanted[feed] |= heard[writer]
            fewer = kept & alive & wanted.unsqueeze(-1)
            if torch.equal(fewer, kept):
                return replace(self, kept=kept)
            kept = fewer

    def on(self, places: Places) -> Bool[Tensor, "place reader writer"]:
        """`kept` for prompts with these places, which are matched by name, so that it holds at other lengths.

        Raises `ValueError` for a place that the circuit does not know.
        """
        if missing := [name for name in places.names if name not in self.graph.places]:
            raise ValueError(f"the circuit knows the places {', '.join(self.graph.places)}; not {', '.join(missing)}")
        return self.kept[[self.graph.places.index(name) for name in places.names]]

    def require_of(self, graph: Graph) -> None:
        """Raises `ValueError` unless the graph is of a model with the same layers and heads."""
        if (graph.writers, graph.readers) != (self.graph.writers, self.graph.readers):
            raise ValueError("the circuit is of a model with other layers or heads")

    def places(self, prompts: Prompts) -> Places:
        """The places of other prompts that the circuit's are: roles, or anywhere.

        Raises `ValueError` where they are neither: those must be given.
        """
        names = set(self.graph.places)
        if names == {ANYWHERE}:
            return places_of(prompts, "anywhere")
        if isinstance(prompts, Batch) and names <= {role.words for role in Role}:
            return places_of(prompts, "role")
        raise ValueError(f"the circuit's places are {', '.join(self.graph.places)}; give Places for these prompts")

    def installed(
        self,
        raw_model: PreTrainedModel | TransformerBridge,
        prompts: Prompts,
        ablation: Ablation | Prompts,
        places: Places | None = None,
    ) -> AbstractContextManager[PreTrainedModel]:
        """Inside the `with` block the raw model *is* the circuit; everything that runs it measures the circuit.

        Edges outside of it carry what `ablation` says (prompts alone are the corrupted twins, row by row). The model
        may then be run on any of `prompts`, in any order, and with `Ablation("mean", ...)` on any prompts of their
        layout. There is no cache, so it cannot generate. A bridge's own forward is not touched, only its raw model,
        which may be another object than the run's `raw`: measure with the model that the block gives.
        Raises `ValueError` for a circuit of another model or other places, a second install, and equal prompts with
        different twins.

        >>> with circuit.installed(run.raw, clean, corrupted) as model:
        ...     right = correct(model, clean, clean.predicted())
        """
        where = self.places(prompts) if places is None else places_of(prompts, places)
        return install(self, raw_of(raw_model), prompts, ablation_of(ablation), where)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """Nodes are writers and the logits, by name; an edge says what it is read as, where, and its score.

        Node attributes: kind, and layer and head where there are any. Edge attributes: reads, place, score. The key
        and value of a shared key-value head go to every query head that shares it.
        """
        import networkx

        graph = networkx.MultiDiGraph()
        for edge, score in self.edges():
            for node in (edge.writer, *self._owners(edge.reader)):
                layer = {k: v for k, v in (("layer", node.layer), ("head", node.head)) if v is not None}
                graph.add_node(str(node), kind=node.kind, **layer)
            for owner in self._owners(edge.reader):
                graph.add_edge(
                    str(edge.writer), str(owner), reads=edge.reader.kind, place=edge.place, score=score or 0.0
                )
        return graph

    def _owners(self, reader: Receiver) -> list[Sender | Receiver]:
        """The nodes that a reader belongs to."""
        match reader.kind:
            case "logits":
                return [reader]
            case "mlp":
                return [Sender("mlp", reader.layer)]
            case kind:
                assert reader.head is not None
                shared = 1 if kind == "q" else self.graph.shared
                heads = range(reader.head * shared, (reader.head + 1) * shared)
                return [Sender("head", reader.layer, head) for head in heads]

    def to_json(self) -> dict:
        """A plain dictionary, from which `circuit_from_json` makes the circuit again."""
        edges = [
            {
                "writer": str(e.writer),
                "reader": str(e.reader),
                "place": e.place,
                "score": score,
                "index": list(self.graph.index(e)),
            }
            for e, score in self.edges()
        ]
        possible = ["".join("01"[x] for x in place) for place in self.graph.possible.flatten(1).int().tolist()]
        return {
            "schema": SCHEMA,
            "size": len(self),
            "share": self.share,
            "edges": edges,
            "details": self.details,
            "writers": [_node(w) for w in self.graph.writers],
            "readers": [_node(r) for r in self.graph.readers],
            "places": list(self.graph.places),
            "shared": self.graph.shared,
            "possible": possible,
        }


def _node(node: Sender | Receiver) -> list:
    return [node.kind, node.layer, node.head]
