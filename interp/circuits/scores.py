"""The score of every edge of a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.graph import Edge, Graph
from interp.patching.nodes import Sender

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """How much the metric rises when an edge alone turns from corrupted to clean, exactly or to first order.

    Shapes:
        values: `[place reader writer]`, in units of the metric, means over prompts; 0 where the graph has no edge.

    `clean` and `corrupted` are the mean metrics of the two runs. `details` holds settings of the method.
    """

    graph: Graph
    values: Float[Tensor, "place reader writer"]
    method: str
    metric: str
    clean: float
    corrupted: float
    details: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.shape != self.graph.possible.shape:
            raise ValueError(f"values must be {list(self.graph.possible.shape)}; got {list(self.values.shape)}")
        if not torch.isfinite(self.values).all():
            edge = self.graph.edge(*(~torch.isfinite(self.values)).nonzero()[0].tolist())
            raise ValueError(f"the score of {edge} is NaN or infinite")

    def __repr__(self) -> str:
        return (
            f"EdgeScores({len(self.graph)} edges by {self.method}, {self.metric}: "
            f"clean {self.clean:.3g}, corrupted {self.corrupted:.3g})"
        )

    def top(self, k: int = 10) -> list[tuple[Edge, float]]:
        """Return the k edges with the largest absolute scores, with their scores."""
        flat = self.values.flatten()
        order = flat.abs().masked_fill(~self.graph.possible.flatten(), -1).argsort(descending=True, stable=True)
        best = order[: min(k, len(self.graph))]
        indices = torch.stack(torch.unravel_index(best, self.values.shape), dim=1).tolist()
        return [(self.graph.edge(*index), float(flat[i])) for index, i in zip(indices, best.tolist(), strict=True)]

    def of_writers(self) -> dict[Sender, float]:
        """Return for each writer the sum over its edges: its own score to first order (node attribution)."""
        return dict(zip(self.graph.writers, self.values.sum(dim=(0, 1)).tolist(), strict=True))

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per edge: writer, reader, place, score."""
        import pandas

        rows = [
            (str(e.writer), str(e.reader), e.place, float(self.values[self.graph.index(e)])) for e in self.graph.edges()
        ]
        return pandas.DataFrame(rows, columns=["writer", "reader", "place", "score"])
