"""Circuits in the JSON of MIB and EAP-IG, MIB's CPR and CMD, and scores against a known circuit (AUROC).

MIB (Mueller et al. 2504.13151) uses the graph files of EAP-IG (Hanna et al. 2403.17806): `cfg`, `nodes` and `edges`,
with names such as "input->a0.h1<q>", "a0.h1->m0" and "m0->logits". These graphs have no positions.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from interp.arguments import PromptsLike
from interp.circuits.ablation import Ablation
from interp.circuits.baselines import SHARES, curve
from interp.circuits.circuit import Circuit
from interp.circuits.graph import Edge, Graph, nodes_of, writes_before
from interp.circuits.places import ANYWHERE
from interp.circuits.scores import EdgeScores
from interp.models.resolve import AnyModel
from interp.patching.metric import MetricLike
from interp.patching.nodes import Receiver, Sender
from interp.tasks.limits import is_whole, shown

if TYPE_CHECKING:
    import pandas

# Largest number of layers, and of heads per layer.
MOST_PARTS = 2**12


@dataclass(frozen=True)
class MibScores:
    """MIB's two areas under the faithfulness of circuits of rising size (Mueller et al. 2504.13151, section 3).

    cpr: integrated circuit performance ratio, of the faithfulness; higher is better.
    cmd: integrated circuit-model distance, of |1 - faithfulness|; lower is better.
    shares, sizes, faithfulness: requested shares of edges, edges after pruning, and faithfulness of each circuit.
    """

    cpr: float
    cmd: float
    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    faithfulness: tuple[float, ...]

    def __repr__(self) -> str:
        return f"MibScores(CPR {self.cpr:.3f}, CMD {self.cmd:.3f}, {len(self.sizes)} circuits)"

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per circuit: requested share, edges, faithfulness."""
        import pandas

        return pandas.DataFrame({"share": self.shares, "edges": self.sizes, "faithfulness": self.faithfulness})


def mib_scores(
    model: AnyModel,
    clean: PromptsLike,
    ablation: Ablation | PromptsLike,
    metric: MetricLike,
    scores: EdgeScores,
    selected: str = "greedy",
) -> MibScores:
    """Return CPR and CMD as MIB's code computes them: at its ten sizes, each int(share * edges), by trapezoids.

    The smallest circuits of a small model have no edge, and faithfulness 0. Use other prompts than those of the
    scores. Arguments and errors are those of `curve`, which rounds sizes to the nearest number by default.
    """
    found = curve(model, clean, ablation, metric, scores, SHARES, selected, rounding="mib")
    return MibScores(found.cpr, found.cmd, found.shares, found.sizes, tuple(found.faithfulness.share.tolist()))


def circuit_to_mib(circuit: Circuit, d_model: int) -> dict:
    """Return the dictionary that EAP-IG's `Graph.to_json` writes: every edge with its score, and whether it is kept.

    An edge into a shared key-value head becomes one edge per query head, each with an equal share of the score. Edges
    without a score get 0. Raises `ValueError` for a circuit whose edges are told apart by position.
    """
    graph = circuit.graph
    if graph.places != (ANYWHERE,):
        raise ValueError(f"MIB's circuits have no positions; this one has the places {', '.join(graph.places)}")
    n_heads = sum(w.kind == "head" and w.layer == 0 for w in graph.writers)
    edges: dict[str, dict] = {}
    reading: set[str] = {"logits"}
    writing: set[str] = set()
    for edge in graph.edges():
        index, shared = graph.index(edge), _query_heads(edge.reader, graph.shared)
        score = 0.0 if circuit.scores is None else float(circuit.scores[index]) / len(shared)
        for head in shared:
            reader = _reader_name(edge.reader, head)
            kept = bool(circuit.kept[index])
            edges[f"{_writer_name(edge.writer)}->{reader}"] = {"score": score, "in_graph": kept}
            if kept:
                reading.add(reader.partition("<")[0])
                writing.add(_writer_name(edge.writer))
    names = [_writer_name(writer) for writer in graph.writers]
    nodes = {name: {"in_graph": name in writing and (name == "input" or name in reading)} for name in names}
    return {
        "cfg": {
            "n_layers": sum(w.kind == "mlp" for w in graph.writers),
            "n_heads": n_heads,
            "parallel_attn_mlp": _is_parallel(graph),
            "d_model": d_model,
        },
        "nodes": nodes | {"logits": {"in_graph": True}},
        "edges": edges,
    }


def circuit_from_mib(data: dict, shared: int = 1) -> Circuit:
    """Return the circuit of a dictionary that EAP-IG's `Graph.to_json` wrote, with its scores.

    `shared` is the number of query heads per key-value head: their edges are one edge here, which is kept if any of
    them is, with the sum of their scores. Node- and neuron-level circuits are not read. Every field is validated;
    raises `ValueError` for anything else.
    """
    try:
        n_layers, n_heads = (data["cfg"][name] for name in ("n_layers", "n_heads"))
        parallel, edges = data["cfg"]["parallel_attn_mlp"], data["edges"]
        if not all(is_whole(n) and 0 < n <= MOST_PARTS for n in (n_layers, n_heads)) or not isinstance(parallel, bool):
            raise ValueError(f"this is not a circuit of MIB: its cfg is {shown(data['cfg'])}")
        if not is_whole(shared) or shared < 1 or n_heads % shared:
            raise ValueError(f"shared must divide the number of heads, {n_heads}; got {shared!r}")
        if any("neurons" in node for node in data["nodes"].values()):
            raise ValueError("this circuit of MIB selects neurons; only circuits of edges are read")
        graph = _graph(n_layers, n_heads, shared, parallel)
        kept, scores = torch.zeros_like(graph.possible), torch.zeros(graph.possible.shape)
        for name, value in edges.items():
            index = graph.index(_edge(name, shared))
            score, in_graph = value["score"], value["in_graph"]
            if not isinstance(in_graph, bool) or isinstance(score, bool) or not math.isfinite(score):
                raise ValueError(f"this is not a circuit of MIB: its edge {shown(name)} is {shown(value)}")
            kept[index] |= in_graph
            scores[index] += score
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"this is not a circuit of MIB: {error!r}") from error
    return Circuit(graph, kept, scores, {"selected": "MIB"})


def auroc(scores: EdgeScores, known: Circuit) -> float:
    """Return the area under the ROC curve of |score| as a classifier of the known circuit's edges.

    1: every edge of the circuit has a larger absolute score than every other edge; 0.5: no better than chance. Edges
    are matched by name. Raises `ValueError` where the known circuit has no edge, or every edge.
    """
    from sklearn.metrics import roc_auc_score

    names = {str(edge) for edge, _ in known.edges()}
    known.require_of(scores.graph)
    labels = [str(edge) in names for edge in scores.graph.edges()]
    if not any(labels) or all(labels):
        raise ValueError(f"the known circuit has {sum(labels)} of the {len(labels)} edges that are scored")
    values = [abs(float(scores.values[scores.graph.index(edge)])) for edge in scores.graph.edges()]
    return float(roc_auc_score(labels, values))


def _graph(n_layers: int, n_heads: int, shared: int, parallel: bool) -> Graph:
    writers, readers = nodes_of(n_layers, n_heads, n_heads // shared)
    possible = writes_before(writers, readers, [parallel] * n_layers).unsqueeze(0)
    return Graph(writers=writers, readers=readers, places=(ANYWHERE,), possible=possible, shared=shared)


def _is_parallel(graph: Graph) -> bool:
    """Return whether MLPs do not read the heads of their own layer."""
    reader, writer = graph.numbers[Receiver("mlp", 0)], graph.numbers[Sender("head", 0, 0)]
    return not bool(graph.possible[0, reader, writer])


def _query_heads(reader: Receiver, shared: int) -> list[int | None]:
    """Return the query heads that a reader belongs to; [None] for MLPs and the logits."""
    if reader.head is None:
        return [None]
    if reader.kind == "q":
        return [reader.head]
    return list(range(reader.head * shared, (reader.head + 1) * shared))


def _writer_name(writer: Sender) -> str:
    match writer.kind:
        case "embed":
            return "input"
        case "mlp":
            return f"m{writer.layer}"
        case _:
            return f"a{writer.layer}.h{writer.head}"


def _reader_name(reader: Receiver, head: int | None) -> str:
    match reader.kind:
        case "logits":
            return "logits"
        case "mlp":
            return f"m{reader.layer}"
        case kind:
            return f"a{reader.layer}.h{head}<{kind}>"


def _edge(name: object, shared: int) -> Edge:
    """Return the edge of a name such as "a0.h1->a1.h0<q>". Raises `ValueError` for another form."""
    node = r"input|m(\d{1,4})|a(\d{1,4})\.h(\d{1,4})"
    groups = re.fullmatch(rf"(?:{node})->(?:logits|m(\d{{1,4}})|a(\d{{1,4}})\.h(\d{{1,4}})<([qkv])>)", str(name))
    if groups is None:
        raise ValueError(f"this is not a circuit of MIB: it has an edge {shown(name)}")
    wm, wl, wh, rm, rl, rh, kind = groups.groups()
    writer = Sender("mlp", int(wm)) if wm else Sender("head", int(wl), int(wh)) if wl else Sender("embed")
    if rm:
        return Edge(writer, Receiver("mlp", int(rm)))
    if rl:
        head = int(rh) if kind == "q" else int(rh) // shared
        return Edge(writer, Receiver(kind, int(rl), head))  # pyright: ignore[reportArgumentType]
    return Edge(writer, Receiver("logits"))
