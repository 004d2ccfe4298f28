"""Circuits as MIB's JSON, its sizes, and AUROC, by hand."""

import copy
import json
from typing import Any

import pytest
import torch

from interp.circuits import (
    Circuit,
    Edge,
    EdgeScores,
    auroc,
    circuit_from_mib,
    circuit_to_mib,
    edge_scores,
    faithfulness,
    greedy,
    mib_scores,
    named_places,
)
from interp.circuits.graph import Graph, graph_of
from interp.models.anatomy import anatomy_of
from interp.patching import logit_diff
from interp.patching.nodes import Receiver, Sender
from interp.tasks import counterfactual
from tests.interp.patching.models import prompts, tiny

ARCHITECTURES = ("absolute", "parallel", "grouped")


def graph_at(architecture: str) -> Graph:
    return graph_of(anatomy_of(tiny(architecture)), named_places(["anywhere"] * 4), torch.tensor([3]))


def some(architecture: str) -> Circuit:
    graph, gen = graph_at(architecture), torch.Generator().manual_seed(0)
    kept = graph.possible & (torch.rand(graph.possible.shape, generator=gen) < 0.5)
    return Circuit(graph, kept, torch.randn(graph.possible.shape, generator=gen) * graph.possible)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_circuit_is_read_back(architecture):
    circuit = some(architecture)
    data = json.loads(json.dumps(circuit_to_mib(circuit, d_model=16)))
    again = circuit_from_mib(data, shared=circuit.graph.shared)
    assert torch.equal(again.kept, circuit.kept)
    assert torch.equal(again.graph.possible, circuit.graph.possible)
    assert again.scores is not None
    assert circuit.scores is not None
    torch.testing.assert_close(again.scores, circuit.scores)


def test_names_and_fields_are_those_of_eap_ig():
    """3 layers of 4 heads: before layer l stand 1 + 5 l writers, read by 12 inputs of heads and an MLP."""
    graph = graph_at("absolute")
    edges = [Edge(Sender("embed"), Receiver("q", 0, 1)), Edge(Sender("head", 0, 1), Receiver("mlp", 1))]
    edges += [Edge(Sender("mlp", 1), Receiver("logits")), Edge(Sender("head", 2, 0), Receiver("logits"))]
    data = circuit_to_mib(Circuit(graph, graph.mask(edges)), d_model=16)
    assert data["cfg"] == {"n_layers": 3, "n_heads": 4, "parallel_attn_mlp": False, "d_model": 16}
    assert len(data["edges"]) == sum(12 * w + w + 4 for w in (1, 6, 11)) + 16
    kept = {name for name, edge in data["edges"].items() if edge["in_graph"]}
    assert kept == {"input->a0.h1<q>", "a0.h1->m1", "m1->logits", "a2.h0->logits"}
    nodes = {name for name, node in data["nodes"].items() if node["in_graph"]}
    assert nodes == {"input", "a0.h1", "m1", "logits"}  # a2.h0 reads nothing
    assert circuit_to_mib(some("parallel"), 16)["cfg"]["parallel_attn_mlp"] is True
    grouped = circuit_to_mib(some("grouped"), 16)["edges"]
    assert len(grouped) == len(data["edges"])  # one edge per query head
    assert grouped["input->a0.h0<k>"] == grouped["input->a0.h1<k>"]


def test_circuits_with_positions_have_no_such_file():
    graph = graph_of(anatomy_of(tiny("absolute")), named_places(["a", "b"]), torch.tensor([1]))
    with pytest.raises(ValueError, match="have no positions; this one has the places a, b"):
        circuit_to_mib(Circuit(graph, graph.possible), 16)


def damaged() -> list[tuple[str, Any]]:
    good = circuit_to_mib(some("absolute"), 16)
    name = next(iter(good["edges"]))

    def but(**changed: Any) -> dict:
        return {**copy.deepcopy(good), **changed}

    return [
        ("nothing", None),
        ("no edges", {k: v for k, v in good.items() if k != "edges"}),
        ("layers", but(cfg={**good["cfg"], "n_layers": -1})),
        ("huge", but(cfg={**good["cfg"], "n_heads": 10**9})),
        ("another edge", but(edges={"a0.h0->a9.h0<q>": good["edges"][name]})),
        ("backwards", but(edges={"m2->m0": good["edges"][name]})),
        ("no name", but(edges={"spam": good["edges"][name]})),
        ("NaN", but(edges={name: {"score": float("nan"), "in_graph": True}})),
        ("a word", but(edges={name: {"score": "high", "in_graph": True}})),
        ("a number for a flag", but(edges={name: {"score": 0.0, "in_graph": 1}})),
        ("neurons", but(nodes={"m0": {"in_graph": True, "neurons": [True]}})),
    ]


@pytest.mark.parametrize(("what", "data"), damaged(), ids=lambda x: x if isinstance(x, str) else "")
def test_other_data_is_refused(what, data):
    with pytest.raises(ValueError, match=r"MIB|no reader|not possible"):
        circuit_from_mib(data)
    with pytest.raises(ValueError, match="shared must divide"):
        circuit_from_mib(circuit_to_mib(some("absolute"), 16), shared=3)


def test_auroc_by_hand():
    graph = graph_at("absolute")
    values = torch.zeros(graph.possible.shape)
    edges = list(graph.edges())
    for i, edge in enumerate(edges):
        values[graph.index(edge)] = (-1) ** i * float(i)
    scores = EdgeScores(graph, values, "made up", "made up", 1.0, 0.0)
    best = Circuit(graph, graph.mask(edges[-5:]))
    assert auroc(scores, best) == 1
    assert auroc(scores, Circuit(graph, graph.mask(edges[:5]))) == 0
    n = len(edges)
    assert auroc(scores, Circuit(graph, graph.mask([edges[-1], edges[0]]))) == pytest.approx(0.5)
    assert auroc(scores, Circuit(graph, graph.mask([edges[-2]]))) == pytest.approx((n - 2) / (n - 1))
    for wrong in (graph.possible, graph.possible & False):
        with pytest.raises(ValueError, match="edges that are scored"):
            auroc(scores, Circuit(graph, wrong))


def test_cpr_and_cmd_are_those_of_mibs_code():
    """Its loop written out: sizes int(p n), trapezoids over the shares, faithfulness of means."""
    model, clean = tiny("absolute"), prompts(4)
    corrupted = counterfactual.redraw(clean, 1)
    metric = logit_diff(clean, step=3)
    scores = edge_scores(model, clean, corrupted, metric)
    found = mib_scores(model, clean, corrupted, metric, scores)
    shares = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    n = len(scores.graph)
    values = []
    for p in shares:
        circuit = greedy(scores, int(p * n)) if int(p * n) else Circuit(scores.graph, scores.graph.possible & False)
        values.append(float(faithfulness(model, clean, corrupted, metric, circuit).share[0]))
    cpr = cmd = 0.0
    for i in range(len(shares) - 1):
        width = shares[i + 1] - shares[i]
        cpr += width * (values[i] + values[i + 1]) / 2
        cmd += width * (abs(1 - values[i]) + abs(1 - values[i + 1])) / 2
    assert found.shares == shares
    assert found.sizes[:2] == (0, 0)  # 238 edges: int(.001 n) and int(.002 n) are none
    assert found.faithfulness == pytest.approx(values, abs=1e-5)
    assert (found.cpr, found.cmd) == pytest.approx((cpr, cmd), abs=1e-5)
    assert found.faithfulness[-1] == pytest.approx(1, abs=1e-4)
    assert any(int(p * n) != max(1, round(p * n)) for p in shares)  # the before half: other sizes
