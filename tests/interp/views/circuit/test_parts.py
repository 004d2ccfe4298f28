"""What a graph must say to be drawn: mistakes are named."""

import math

import numpy as np
import pytest

from interp.views.circuit import CircuitView, circuit_page, draw_circuit
from interp.views.circuit.parts import parts_of
from tests.interp.views.circuit.samples import small


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.add_node(7, kind="embed"), "name of a node is a string; got 7"),
        (lambda g: g.add_node("x", kind="neuron"), "node 'x': kind must be one of embed, head, mlp, logits; got 'neur"),
        (lambda g: g.add_node("x", kind="head", layer=0), "node 'x': head must be a whole number from 0; got None"),
        (lambda g: g.add_node("x", kind="mlp", layer=-1), "node 'x': layer must be a whole number from 0; got -1"),
        (lambda g: g.add_node("x", kind="mlp", layer=True), "node 'x': layer must be"),
        (lambda g: g.add_node("x", kind="mlp", layer=0, label=3), "node 'x': label must be text; got 3"),
        (lambda g: g.add_node("x", kind="mlp", layer=1), "'L1 MLP' and 'x' are the same part"),
        (lambda g: g.add_edge("L0H1", "L1H2", reads="mlp", place="a", score=1), "must be one of q, k, v .* 'mlp'"),
        (lambda g: g.add_edge("L1H2", "L0H1", reads="q", place="a", score=1), "'L1H2' -> 'L0H1': the reader does not"),
        (lambda g: g.add_edge("L1 MLP", "L1H2", reads="q", place="a", score=1), "the reader does not come after"),
        (lambda g: g.add_edge("embed", "L1H2", reads="q", score=1), "'L1H2': place must be a role or 'anywhere'"),
        (lambda g: g.add_edge("embed", "L1H2", reads="q", place="a"), "score must be a finite number; got None"),
        (lambda g: g.add_edge("embed", "L1H2", reads="q", place="a", score=math.nan), "score must be .* nan"),
        (lambda g: g.add_edge("embed", "L1H2", reads="v", place="input", score=1), "L1H2 v at input is given twice"),
        (lambda g: g.graph.update(n_layers=1), "n_layers must be a whole number, 2 or more"),
        (lambda g: g.graph.update(title=1), "the graph: title must be text"),
        (lambda g: g.clear(), "without nodes"),
    ],
)
def test_a_graph_that_cannot_be_drawn_is_refused_by_name(change, message):
    graph = small()
    change(graph)
    for draw in (draw_circuit, circuit_page, CircuitView):
        with pytest.raises(ValueError, match=message):
            draw(graph)


def test_only_a_multigraph_is_taken():
    with pytest.raises(ValueError, match=r"networkx.MultiDiGraph; got dict"):
        draw_circuit({})  # pyright: ignore[reportArgumentType]


def test_parts_are_in_the_order_of_computation_and_ranked():
    parts = parts_of(small())
    assert [node.name for node in parts.nodes] == ["embed", "L0H1", "L1H2", "L1 MLP", "logits"]
    scores = [abs(link.score) for link in parts.strongest]
    assert scores == sorted(scores, reverse=True)
    assert [link.rank for link in parts.strongest] == list(range(1, 8))
    assert (parts.title, parts.n_layers) == ("a <title>", 2)


def test_numbers_of_numpy_are_numbers():
    graph = small()
    graph.add_node("L0 MLP", kind="mlp", layer=np.int64(0))
    graph.add_edge("embed", "L0 MLP", reads="mlp", place="anywhere", score=np.float32(0.5))
    assert 'data-score="0.5"' in draw_circuit(graph)
