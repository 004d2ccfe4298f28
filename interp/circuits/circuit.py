"""A circuit: a set of edges that can be run in place of the whole model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.arguments import PromptsLike
from interp.circuits.ablation import Ablation, ablation_of
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import Edge, Graph, graph_of
from interp.circuits.installing import installed_forward, require_no_circuit
from interp.circuits.pairs import check_on_prompts, resolved_prompts
from interp.circuits.places import ANYWHERE, Places, places_of
from interp.models.anatomy import anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.nodes import Receiver, Sender
from interp.support.locks import lock_of
from interp.tasks import Prompts, Role
from interp.views.shown import Shown

if TYPE_CHECKING:
    import networkx
    import pandas

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Circuit(Shown):
    """Some edges of a graph.

    Shapes:
        kept:   `[place reader writer]`, the edges of the circuit; each must be possible in the graph.
        scores: `[place reader writer]`, the score of each edge, in units of the metric; None without scores.

    `details` records how the circuit was found.
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
            raise ValueError(f"{self.graph.edge(*wrong.nonzero()[0].tolist())} is not possible in this graph")

    def __repr__(self) -> str:
        places = self.graph.places
        where = ", ".join(places) if len(places) <= 4 else f"{len(places)} places"
        return f"Circuit({len(self)} of {len(self.graph)} edges; {where})"

    def __len__(self) -> int:
        """Return the number of edges."""
        return int(self.kept.sum())

    @property
    def share(self) -> float:
        """Number of edges as a share of the possible edges."""
        return len(self) / len(self.graph)

    def edges(self) -> list[tuple[Edge, float | None]]:
        """Return edges with scores, largest absolute score first; in the model's order where there are no scores."""
        scored = [
            (e, None if self.scores is None else float(self.scores[self.graph.index(e)]))
            for e in self.graph.edges(self.kept)
        ]
        return sorted(scored, key=lambda pair: -abs(pair[1] or 0.0))

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per edge of the circuit: writer, reader, place, score (None without scores)."""
        import pandas

        rows = [(str(e.writer), str(e.reader), e.place, score) for e, score in self.edges()]
        return pandas.DataFrame(rows, columns=["writer", "reader", "place", "score"])

    def heads(self) -> list[tuple[int, int]]:
        """Return (layer, head) of the heads that write along some edge, in order."""
        used = self.kept.any(dim=0).any(dim=0).tolist()
        return [(w.layer, w.head) for w, u in zip(self.graph.writers, used, strict=True) if u and w.kind == "head"]  # pyright: ignore[reportReturnType]

    def without(self, *edges: Edge) -> Circuit:
        """Return the circuit less some edges. Raises `ValueError` for an edge that it does not have."""
        removed = self.graph.mask(edges)
        if (removed & ~self.kept).any():
            edge = self.graph.edge(*(removed & ~self.kept).nonzero()[0].tolist())
            raise ValueError(f"{edge} is not in the circuit")
        return replace(self, kept=self.kept & ~removed)

    def connected(self) -> Circuit:
        """Return the circuit without the edges that lie on no path from the embedding to the logits.

        Under a "corrupted" or "resample" ablation such edges have no effect: a head whose inputs are all replaced
        outputs its replacement anyway. Under "mean" and "zero" this does not hold exactly.
        """
        kept = self.kept.clone()
        readers_of = [list(self.graph.readers_of(writer)) for writer in self.graph.writers]
        while True:
            has_input = kept.any(dim=0).any(dim=1)  # [reader]
            # Only the embedding needs no input.
            active = torch.tensor([not readers or bool(has_input[readers].any()) for readers in readers_of])
            is_read = kept.any(dim=0).any(dim=0)  # [writer]
            needed = torch.tensor([r.kind == "logits" for r in self.graph.readers])
            for writer, readers in enumerate(readers_of):
                needed[readers] |= is_read[writer]
            fewer = kept & active & needed.unsqueeze(-1)
            if torch.equal(fewer, kept):
                return replace(self, kept=kept)
            kept = fewer

    def on(self, places: Places) -> Bool[Tensor, "place reader writer"]:
        """Return `kept` for prompts with other places, matched by name, such as prompts of another length.

        Raises `ValueError` for a place that the circuit does not have.
        """
        if missing := [name for name in places.names if name not in self.graph.places]:
            raise ValueError(f"the circuit has the places {', '.join(self.graph.places)}; not {', '.join(missing)}")
        return self.kept[[self.graph.places.index(name) for name in places.names]]

    def require_of(self, graph: Graph) -> None:
        """Raise `ValueError` unless the graph is of a model with the same layers and heads."""
        if (graph.writers, graph.readers) != (self.graph.writers, self.graph.readers):
            raise ValueError("the circuit is of a model with other layers or heads")

    def places(self, prompts: Prompts) -> Places:
        """Return the places of other prompts that match the circuit's: anywhere, roles, spans, or single positions.

        Raises `ValueError` where none of these match; then `Places` must be given.
        """
        names = set(self.graph.places)
        if names == {ANYWHERE}:
            return places_of(prompts, "anywhere")
        if prompts.role is not None and names <= {role.words for role in Role}:
            return places_of(prompts, "role")
        if prompts.spans and set((by_span := places_of(prompts, "span")).names) <= names:
            return by_span
        if set((by_position := places_of(prompts, "position")).names) <= names:
            return by_position
        raise ValueError(f"the circuit's places are {', '.join(self.graph.places)}; give Places for these prompts")

    @contextmanager
    def installed(
        self,
        model: AnyModel,
        prompts: PromptsLike,
        ablation: Ablation | PromptsLike,
        places: Places | None = None,
    ) -> Iterator[PreTrainedModel]:
        """Run the raw model as the circuit inside a `with` block, so that any code that runs it measures the circuit.

        Edges outside the circuit carry what `ablation` says; prompts alone are the corrupted prompts, row by row. The
        model may be run on any rows of `prompts`, and with a "mean" or "zero" ablation on any prompts of that layout.
        There is no cache, so the model cannot generate. The forward pass of a bridge is not replaced, only that of its
        raw model, which may not be the run's `raw`: measure with the model that the block yields. The block holds
        the model's lock: functions of this package wait in other threads, and a plain forward pass raises there.

        Raises `ValueError` for a circuit of another model or other places, for a second circuit in one model, for a
        pass in another thread, and for equal prompts with different corrupted prompts; `RuntimeError` where the model
        taken apart differs from the raw model on these prompts.

        >>> with circuit.installed(run, clean, corrupted) as raw:
        ...     right = correct(raw, clean, clean.predicted())
        """
        raw, own = raw_of(model), resolved_prompts(model, prompts, "prompts")
        with lock_of(raw):
            require_no_circuit(raw)
            where = self.places(own) if places is None else places_of(own, places)
            anatomy = anatomy_of(raw)
            everywhere = torch.arange(own.n_pos)
            graph = graph_of(anatomy, where, everywhere)
            self.require_of(graph)
            edge_model = EdgeModel(anatomy, graph, where)
            resolved = ablation_of(ablation, model)
            check_on_prompts(edge_model, own, everywhere)
            with installed_forward(edge_model, self.on(where), own.tokens, resolved) as circuit_model:
                yield circuit_model

    def to_networkx(self) -> networkx.MultiDiGraph:
        """Return a graph whose nodes are writers and the logits, by name.

        Node attributes: kind, and layer and head where they exist. Edge attributes: reads (q, k, v, mlp or logits),
        place, score. Edges to the key or value of a shared key-value head go to every query head that shares it.
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
        """Return the nodes that a reader belongs to."""
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
        """Return a plain dictionary, which `circuit_from_json` reads."""
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
