"""Fast selections against slow, literal ones."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from transformers import PreTrainedModel

from interp.circuits import (
    Circuit,
    Edge,
    EdgeScores,
    Graph,
    Places,
    acdc,
    edge_scores,
    faithfulness,
    greedy,
    keeping,
    named_places,
    random_circuit,
    top_n,
)
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import graph_of
from interp.circuits.places import places_of
from interp.models import ModelConfig, build_model
from interp.models.anatomy import anatomy_of
from interp.patching import Metric, logit_diff
from interp.patching.nodes import Receiver, Sender
from interp.support.writing import read_digested
from interp.tasks import Batch
from tests.interp.patching.models import ARCHITECTURES, VOCAB, prompts, tiny


@cache
def small() -> PreTrainedModel:
    """Two layers of two heads."""
    config = ModelConfig("absolute", n_layers=2, d_model=16, n_heads=2, n_ctx=64, initializer_range=0.3)
    return build_model(config, VOCAB, seed=0).double().eval()


def graph_at(model: PreTrainedModel, names: tuple[str, ...] = ("a", "b")) -> Graph:
    places = named_places(list(names))
    return graph_of(anatomy_of(model), places, torch.tensor([len(names) - 1]))


def drawn(graph: Graph, seed: int) -> EdgeScores:
    values = torch.randn(graph.possible.shape, generator=torch.Generator().manual_seed(seed)) * graph.possible
    return EdgeScores(graph, values, "drawn", "made up", 1.0, 0.0)


@cache
def posed() -> tuple[Batch, Batch, Metric]:
    clean = prompts(4)
    return clean, prompts(4, seed=5), logit_diff(clean)


def greedy_by_force(scores: EdgeScores, n: int) -> set[str]:
    """Every edge into what is held is looked at again, each time."""
    kept: list[Edge] = []
    for _ in range(n):
        held = {str(Receiver("logits"))}
        for edge in kept:
            held |= {str(scores.graph.readers[i]) for i in scores.graph.readers_of(edge.writer)}
        open_edges = [e for e in scores.graph.edges() if str(e.reader) in held and e not in kept]
        if not open_edges:
            break
        kept.append(max(open_edges, key=lambda e: abs(float(scores.values[scores.graph.index(e)]))))
    return {str(edge) for edge in kept}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 7, 20, 40])
def test_greedy_is_what_greedy_means(n, seed):
    scores = drawn(graph_at(small()), seed)
    graph = scores.graph
    by_force = greedy_by_force(scores, n)
    kept = graph.mask([edge for edge in graph.edges() if str(edge) in by_force])
    assert int(kept.sum()) == n
    found = greedy(scores, n)
    assert torch.equal(found.kept, Circuit(graph, kept).connected().kept)
    assert torch.equal(found.scores, scores.values)  # type: ignore[arg-type]


def test_greedy_starts_at_the_logits_and_top_does_not():
    """The largest score is far from the logits: `top_n` of one edge leaves nothing that is connected."""
    graph = graph_at(small())
    values = torch.zeros(graph.possible.shape)
    deep = Edge(Sender("embed"), Receiver("q", 0, 0), "b")
    direct = Edge(Sender("embed"), Receiver("logits"), "b")
    through = Edge(Sender("head", 0, 0), Receiver("logits"), "b")
    values[graph.index(deep)], values[graph.index(through)], values[graph.index(direct)] = -9.0, 3.0, 1.0
    scores = EdgeScores(graph, values, "drawn", "made up", 1.0, 0.0)
    assert len(top_n(scores, 1)) == 0
    assert [e for e, _ in top_n(scores, 2).edges()] == [deep, through]
    assert len(greedy(scores, 1)) == 0  # a head without inputs
    assert [e for e, _ in greedy(scores, 2).edges()] == [deep, through]
    assert [e for e, _ in greedy(scores, 3).edges()] == [deep, through, direct]


def test_top_n_takes_the_largest_absolute_scores():
    scores = drawn(graph_at(small()), 0)
    size = 25
    ranked = scores.values[scores.graph.possible].abs().sort(descending=True).values
    kept = (scores.values.abs() >= ranked[size - 1]) & scores.graph.possible
    assert int(kept.sum()) == size
    assert torch.equal(top_n(scores, size).kept, Circuit(scores.graph, kept).connected().kept)
    whole = top_n(scores, len(scores.graph))
    assert torch.equal(whole.kept, scores.graph.possible)
    assert whole.details == {"selected": "top", "n": len(scores.graph), "scores": "drawn", "metric": "made up"}
    for n in (0, len(scores.graph) + 1):
        for select in (top_n, greedy):
            with pytest.raises(ValueError, match=f"from 1 to {len(scores.graph)} edges; got {n}"):
                select(scores, n)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_connected_leaves_out_only_what_has_no_effect(architecture):
    """A head whose inputs are all cut outputs its replacement; one that nobody reads has no effect."""
    raw = tiny(architecture, torch.float64)
    clean, corrupted, metric = posed()
    graph = edge_scores(raw, clean, corrupted, metric, "eap", places="role").graph
    shares = (0.02, 0.05, 0.1, 0.3)
    before = [random_circuit(graph, int(share * len(graph)), seed) for share in shares for seed in range(3)]
    after = [circuit.connected() for circuit in before]
    assert sum(map(len, after)) < sum(map(len, before))
    assert sum(map(len, after)) > 0
    found = faithfulness(raw, clean, corrupted, metric, [*before, *after]).values
    torch.testing.assert_close(found[: len(before)], found[len(before) :], atol=1e-6, rtol=0)
    assert all(torch.equal(c.connected().kept, c.kept) for c in after)


def test_connected_by_hand():
    graph = graph_at(small(), ("a",))
    way = [
        Edge(Sender("embed"), Receiver("v", 0, 1), "a"),
        Edge(Sender("head", 0, 1), Receiver("mlp", 1), "a"),
        Edge(Sender("mlp", 1), Receiver("logits"), "a"),
    ]
    nowhere = Edge(Sender("embed"), Receiver("q", 1, 0), "a")  # nobody reads that head
    from_nothing = Edge(Sender("mlp", 0), Receiver("mlp", 1), "a")  # that MLP reads nothing
    circuit = Circuit(graph, graph.mask([*way, nowhere, from_nothing]))
    assert {str(e) for e, _ in circuit.connected().edges()} == {str(e) for e in way}
    for edge in way:
        assert len(circuit.without(edge).connected()) == 0


def test_random_circuits_are_reproducible_and_even():
    graph = graph_at(small(), ("a",))
    n, times = 5, 2000
    assert torch.equal(random_circuit(graph, n, 3).kept, random_circuit(graph, n, 3).kept)
    total = torch.zeros(graph.possible.shape)
    for seed in range(times):
        circuit = random_circuit(graph, n, seed)
        assert len(circuit) == n
        total += circuit.kept
    expected = times * n / len(graph)
    off = (total[graph.possible] - expected) / (expected * (1 - n / len(graph))) ** 0.5
    assert off.abs().max() < 4.5
    assert 0.5 < off.std() < 1.5
    assert len(random_circuit(graph, 0, 0)) == 0
    assert torch.equal(random_circuit(graph, len(graph), 0).kept, graph.possible)
    for wrong in (-1, len(graph) + 1):
        with pytest.raises(ValueError, match=f"from 0 to {len(graph)} edges"):
            random_circuit(graph, wrong, 0)


@torch.no_grad()
def literal_acdc(raw, clean, corrupted, metric: Metric, threshold: float, start: EdgeScores) -> Circuit:
    """Each trial runs the whole model, from the beginning."""
    graph, anatomy = start.graph, anatomy_of(raw)
    edge_model = EdgeModel(anatomy, graph, places_of(clean, "anywhere"))
    replacement = edge_model.writer_outputs(corrupted.tokens)

    def distance(circuit: Circuit) -> float:
        final, _ = edge_model.forward(clean.tokens, replacement, circuit.kept)
        value = metric.compute(anatomy.unembed(final[:, metric.positions]), torch.arange(len(clean)))
        return float((value - full).abs().mean())

    logits = raw(clean.tokens).logits[:, metric.positions]
    full = metric.compute(logits, torch.arange(len(clean))).detach()
    circuit, now = Circuit(graph, graph.possible), 0.0
    gap = distance(Circuit(graph, torch.zeros_like(graph.possible)))
    edges = list(graph.edges())
    for reader in reversed(graph.readers):
        own = [edge for edge in edges if edge.reader == reader]
        for edge in sorted(own, key=lambda e: abs(float(start.values[graph.index(e)]))):
            trial = circuit.without(edge)
            if distance(trial) - now < threshold * gap:
                circuit, now = trial, distance(trial)
    return circuit.connected()


@pytest.mark.parametrize("threshold", [0.001, 0.01, 0.1])
def test_acdc_is_the_literal_algorithm(threshold):
    clean, corrupted, metric = posed()
    scores = edge_scores(small(), clean, corrupted, metric, n=2)
    found = acdc(small(), clean, corrupted, metric, threshold, scores)
    literal = literal_acdc(small(), clean, corrupted, metric, threshold, scores)
    assert torch.equal(found.kept, literal.kept)
    assert len(found) > 0
    assert (len(found) < len(scores.graph)) == (threshold > 0.001)  # no edge is worth as little as that


@pytest.mark.parametrize("architecture", ["rotary", "parallel", "grouped"])
def test_acdc_without_a_threshold_comes_no_further_from_the_model(architecture):
    raw = tiny(architecture, torch.float64)
    clean, corrupted, metric = posed()
    scores = edge_scores(raw, clean, corrupted, metric, "eap")
    start = greedy(scores, len(scores.graph) // 2)
    seen: list = []

    def listening(edges):
        for edge in edges:
            seen.append(edge)
            yield edge

    found = acdc(raw, clean, corrupted, metric, 0.0, start, progress=listening)
    weighed = faithfulness(raw, clean, corrupted, metric, [start, found])
    before, after = (weighed.values - weighed.full).abs().mean(dim=1).tolist()
    assert after <= before + 1e-9
    assert len(found) < len(start)
    assert sorted(seen) == sorted(tuple(index) for index in start.kept.nonzero().tolist())
    assert not (found.kept & ~start.kept).any()


def interrupted_after(n: int):
    """A progress function that is interrupted before edge n + 1."""

    def progress(edges):
        for k, edge in enumerate(edges):
            if k == n:
                raise KeyboardInterrupt
            yield edge

    return progress


@pytest.mark.parametrize("threshold", [0.01, 0.1])
def test_acdc_goes_on_from_where_it_was_interrupted(tmp_path, threshold):
    clean, corrupted, metric = posed()
    arguments = (small(), clean, corrupted, metric)
    scores = edge_scores(*arguments, n=2)
    whole = acdc(*arguments, threshold, scores)
    tried = []

    def counting(edges):
        tried.append(len(edges))
        return edges

    for n in (5, 40, 0):
        with pytest.raises(KeyboardInterrupt):
            acdc(*arguments, threshold, scores, progress=interrupted_after(n), keep=tmp_path)
        acdc(*arguments, 10 * threshold, scores, keep=tmp_path)  # another search leaves the work as it is
    found = acdc(*arguments, threshold, scores, progress=counting, keep=tmp_path)
    assert tried == [len(scores.graph) - 45]
    assert torch.equal(found.kept, whole.kept)
    assert whole.scores is not None
    assert found.scores is not None
    assert torch.equal(found.scores, whole.scores)


@pytest.mark.parametrize("other", ["threshold", "prompts", "damage"])
def test_acdc_does_not_go_on_from_another_search(tmp_path, other):
    clean, corrupted, metric = posed()
    scores = edge_scores(small(), clean, corrupted, metric, n=2)
    tried = []
    with pytest.raises(KeyboardInterrupt):
        acdc(small(), clean, corrupted, metric, 0.01, scores, progress=interrupted_after(9), keep=tmp_path)
    if other == "prompts":
        clean, corrupted = corrupted, clean
    if other == "damage":
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-40])
    threshold = 0.02 if other == "threshold" else 0.01

    def counting(edges):
        tried.append(len(edges))
        return edges

    found = acdc(small(), clean, corrupted, metric, threshold, scores, progress=counting, keep=tmp_path)
    assert tried == [len(scores.graph)]
    assert torch.equal(found.kept, acdc(small(), clean, corrupted, metric, threshold, scores).kept)


def test_acdc_writes_how_far_it_is_before_it_ends(tmp_path, monkeypatch):
    """A killed process cannot write any more."""
    clean, corrupted, metric = posed()
    scores = edge_scores(small(), clean, corrupted, metric, n=2)
    found = []
    monkeypatch.setattr(keeping, "SECONDS_PER_WRITE", 0.0)

    def looking(edges):
        for edge in edges:
            kept = [read_digested(file) for file in tmp_path.iterdir()]
            found.extend([len(json.loads(data)["losses"]) for data in kept if data is not None] or [0])
            yield edge

    acdc(small(), clean, corrupted, metric, 0.01, scores, progress=looking, keep=tmp_path)
    assert found == list(range(len(scores.graph)))


def test_acdc_with_a_huge_threshold_cuts_everything():
    clean, corrupted, metric = posed()
    scores = edge_scores(small(), clean, corrupted, metric, "eap")
    assert len(acdc(small(), clean, corrupted, metric, 1e6, scores)) == 0
    with pytest.raises(ValueError, match="threshold must be 0 or more, and finite; got -1"):
        acdc(small(), clean, corrupted, metric, -1, scores)
    with pytest.raises(ValueError, match="other layers or heads"):
        acdc(tiny("grouped"), clean, corrupted, metric, 0.1, scores)


def test_acdc_measures_what_each_edge_is_worth_at_its_turn():
    """Nothing goes at a threshold below every loss, so each score is the loss of the edge alone."""
    clean, corrupted, metric = posed()
    scores = edge_scores(small(), clean, corrupted, metric, "eap")
    full = Circuit(scores.graph, scores.graph.possible)
    edges = [Edge(Sender("embed"), Receiver("logits")), Edge(Sender("head", 0, 1), Receiver("mlp", 1))]
    alone = faithfulness(small(), clean, corrupted, metric, [full.without(edge) for edge in edges])
    # The full circuit is at distance 0, from which every cut leads away.
    found = acdc(small(), clean, corrupted, metric, 0.0, scores)
    losses = (alone.full - alone.values).mean(dim=1)
    assert found.scores is not None
    for edge, loss in zip(edges, losses.tolist(), strict=True):
        assert float(found.scores[scores.graph.index(edge)]) == pytest.approx(loss, abs=1e-6)


def test_acdc_follows_scores_by_the_names_of_places():
    """The same places numbered in another order: the same order of trials, so the same circuit."""
    clean, corrupted, metric = posed()
    roles = named_places([f"even {i % 2}" for i in range(clean.n_pos)])
    turned = Places(roles.names[::-1], 1 - roles.index)
    scores = edge_scores(small(), clean, corrupted, metric, n=2, places=roles)
    orders: list[list[str]] = []
    for places in (roles, turned):
        graph = graph_of(anatomy_of(small()), places, metric.positions)
        seen: list[str] = []

        def listening(edges, graph=graph, seen=seen):
            for edge in edges:
                seen.append(str(graph.edge(*edge)))
                yield edge

        acdc(small(), clean, corrupted, metric, 0.05, scores, places, progress=listening)
        orders.append(seen)
    assert orders[0] == orders[1]
