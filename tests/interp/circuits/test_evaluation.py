"""Shares, their intervals and areas, by hand, by simulation, and on planted models."""

from __future__ import annotations

from functools import cache
from typing import Literal

import pytest
import torch
from scipy import stats

from interp.circuits import (
    Ablation,
    Circuit,
    Curve,
    Edge,
    Faithfulness,
    Graph,
    against_random,
    completeness,
    curve,
    edge_scores,
    faithfulness,
    greedy,
    minimality,
    named_places,
    overlap,
    places_around,
    random_circuit,
)
from interp.circuits.graph import graph_of
from interp.circuits.places import places_of
from interp.models.anatomy import anatomy_of
from interp.patching import Metric, accuracy, logit_diff
from interp.patching.editing import measure
from interp.patching.nodes import Receiver, Sender
from interp.tasks import Batch, counterfactual, sample
from probes.planted import Dirt, Plan, Planted, plant
from tests.interp.circuits.planted_edges import circuit_of, heads_of, needed_edges
from tests.interp.circuits.test_recovery import reordered
from tests.interp.patching.models import ARCHITECTURES, prompts, tiny


def made(values: list[float], full: float = 1.0, empty: float = 0.0) -> Faithfulness:
    """One prompt, several circuits."""
    return Faithfulness(
        torch.tensor(values, dtype=torch.float64).unsqueeze(-1),
        torch.tensor([full], dtype=torch.float64),
        torch.tensor([empty], dtype=torch.float64),
        "made up",
        "corrupted",
    )


def whole(graph: Graph) -> Circuit:
    return Circuit(graph, graph.possible)


def none(graph: Graph) -> Circuit:
    return Circuit(graph, torch.zeros_like(graph.possible))


def graph_for(raw, batch: Batch, metric: Metric, places: Literal["anywhere", "role"] = "anywhere") -> Graph:
    return graph_of(anatomy_of(raw), places_of(batch, places), metric.positions)


@cache
def backed_up() -> tuple[Planted, Batch, Batch, Metric, Graph]:
    """An anchor, and an index route that is shut unless no label matches."""
    planted = plant(Plan("A1-backup", "gpt2", 8, dirt=Dirt(rotation=True)))
    clean = sample("parity-aligned", 12, 6, 0, planted.vocabulary)
    metric = logit_diff(clean)
    return planted, clean, reordered(clean, 1), metric, graph_for(planted.model, clean, metric)


@cache
def routes() -> tuple[Circuit, Circuit, Edge]:
    """Both routes; the anchor alone; and the edge by which the anchor's query sees its label."""
    planted, _, _, _, graph = backed_up()
    parts = circuit_of(planted)
    stands = {
        move.target: heads_of(planted, parts)[id(part)] for part in parts.parts for move in getattr(part, "moves", ())
    }
    both = Circuit(graph, graph.mask(list(needed_edges(planted))))
    index = [
        Edge(Sender("embed"), Receiver("v", 1, stands["indexed"])),
        Edge(Sender("head", 1, stands["indexed"]), Receiver("mlp", 1)),
    ]
    return both, both.without(*index), Edge(Sender("embed"), Receiver("q", 1, stands["retrieved"]))


@pytest.mark.parametrize("kind", ["corrupted", "resample", "mean"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_full_circuit_is_all_and_the_empty_one_nothing(architecture, kind):
    raw, clean = tiny(architecture), prompts(4)
    metric = logit_diff(clean)
    graph = graph_for(raw, clean, metric, "role")
    ablation = Ablation(kind, prompts(4, seed=5))
    some = random_circuit(graph, len(graph) // 2, 0)
    found = faithfulness(raw, clean, ablation, metric, [whole(graph), none(graph), some])
    assert found.share[:2].tolist() == pytest.approx([1, 0], abs=1e-5)
    assert min(abs(found.share[2] - 1), abs(found.share[2])) > 1e-3
    logits = raw(clean.tokens).logits[:, metric.positions]
    expected = metric.compute(logits, torch.arange(4)).detach().double()
    torch.testing.assert_close(found.full, expected, atol=1e-5, rtol=1e-5)
    if kind == "corrupted":  # nothing of the clean prompt is left
        other = raw(prompts(4, seed=5).tokens).logits[:, metric.positions]
        expected = metric.compute(other, torch.arange(4)).detach().double()
        torch.testing.assert_close(found.empty, expected, atol=1e-5, rtol=1e-5)
    assert (found.metric, found.ablation) == (metric.name, kind)


def test_a_planted_circuit_is_faithful_and_what_is_left_of_the_model_is_not():
    planted, clean, corrupted, metric, graph = backed_up()
    both, anchor, _ = routes()
    rest = Circuit(graph, graph.possible & ~both.kept)
    for ablation in (corrupted, Ablation("resample", corrupted), Ablation("resample", clean, seed=2)):
        found = faithfulness(planted.model, clean, ablation, metric, [both, anchor, rest])
        assert found.share.tolist() == pytest.approx([1, 1, 0], abs=1e-3)


def test_a_circuit_is_weighed_at_another_length_by_the_names_of_places():
    """Found around step 3 of six; weighed around step 5 of eight. Without the previous parity it does nothing."""
    planted, *_ = backed_up()
    model, vocabulary = planted.model, planted.vocabulary
    clean = sample("parity-aligned", 6, 6, 0, vocabulary)
    scores = edge_scores(
        model, clean, reordered(clean, 1), logit_diff(clean, step=3), n=8, places=places_around(clean, 3)
    )
    circuit = greedy(scores, 20)
    longer = sample("parity-aligned", 8, 8, 7, vocabulary)
    metric = logit_diff(longer, step=5)
    less = [edge for edge, _ in circuit.edges() if edge.place == "output, step before"]
    assert less
    # An edited previous parity, so that its loss can be told.
    other = reordered(longer, 2)
    found = faithfulness(model, longer, other, metric, [circuit, circuit.without(*less)], places_around(longer, 5))
    assert float(found.share[0]) == pytest.approx(1, abs=0.01)
    assert float(found.share[1]) < 0.9
    with pytest.raises(ValueError, match="give Places for these prompts"):
        faithfulness(model, longer, other, metric, circuit)
    with pytest.raises(ValueError, match="the circuit has the places"):
        faithfulness(model, longer, other, metric, circuit, places_of(longer, "role"))


def test_prompts_may_be_run_in_chunks(monkeypatch):
    raw, clean, other = tiny("rotary"), prompts(5), prompts(5, seed=5)
    metric = logit_diff(clean)
    graph = graph_for(raw, clean, metric)
    circuit = random_circuit(graph, len(graph) // 2, 0)
    expected = faithfulness(raw, clean, other, metric, circuit)
    calls = []
    monkeypatch.setattr("interp.circuits.edge_forward.numbers", lambda share, device: 1)

    def counted(anatomy, final, m, rows):
        calls.append(len(rows))
        return measure(anatomy, final, m, rows)

    monkeypatch.setattr("interp.circuits.evaluation.measure", counted)
    found = faithfulness(raw, clean, other, metric, circuit)
    assert calls == [1] * 15
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.empty, expected.empty, atol=1e-5, rtol=0)


def test_the_share_is_of_means_and_not_a_mean_of_shares():
    found = Faithfulness(
        torch.tensor([[2.0, 1.0]]), torch.tensor([4.0, 1.0]), torch.tensor([0.0, -1.0]), "made up", "mean"
    )
    assert found.share.tolist() == pytest.approx([(1.5 + 0.5) / (2.5 + 0.5)])
    with pytest.raises(ValueError, match="have the same made up: there is no share"):
        _ = made([0.3], full=0.5, empty=0.5).share
    with pytest.raises(ValueError, match="two or more"):
        made([0.3]).interval()


def test_intervals_hold_the_true_ratio_as_often_as_they_say():
    """A ratio of correlated means, 40 prompts, 2000 times: nominal 95 and 80 %."""
    gen, times, n, ratio = torch.Generator().manual_seed(0), 2000, 40, 0.7
    gaps = 3 + torch.randn(times, n, generator=gen, dtype=torch.float64)
    empty = torch.randn(times, n, generator=gen, dtype=torch.float64)
    values = empty + ratio * gaps + 0.8 * torch.randn(times, n, generator=gen, dtype=torch.float64)
    held = dict.fromkeys((0.95, 0.8), 0)
    for i in range(times):
        found = Faithfulness(values[i : i + 1], empty[i] + gaps[i], empty[i], "made up", "corrupted")
        for level in held:
            low, high = found.interval(level)[0].tolist()
            held[level] += low <= ratio <= high
    for level, count in held.items():
        assert count / times == pytest.approx(level, abs=3.5 * (level * (1 - level) / times) ** 0.5)


def test_the_interval_is_about_what_a_bootstrap_gives():
    gen = torch.Generator().manual_seed(1)
    gaps = 3 + torch.randn(200, generator=gen, dtype=torch.float64)
    values = 0.4 * gaps + torch.randn(200, generator=gen, dtype=torch.float64)
    found = Faithfulness(values.unsqueeze(0), gaps, torch.zeros_like(gaps), "made up", "corrupted")
    low, high = found.interval()[0].tolist()
    other = stats.bootstrap(
        (values.numpy(), gaps.numpy()),
        lambda x, y, axis: x.mean(axis=axis) / y.mean(axis=axis),
        paired=True,
        n_resamples=2000,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert (low, high) == pytest.approx((other.low, other.high), abs=0.1 * (high - low))


def test_areas_and_the_smallest_size_by_hand():
    found = Curve((0.1, 0.5, 1.0), (10, 50, 100), made([0.2, 1.4, 1.0]), "greedy")
    assert found.cpr == pytest.approx(0.4 * (0.2 + 1.4) / 2 + 0.5 * (1.4 + 1.0) / 2)
    assert found.cmd == pytest.approx(0.4 * (0.8 + 0.4) / 2 + 0.5 * (0.4 + 0.0) / 2)
    assert found.smallest() == 50
    assert found.smallest(0.1) == 10
    assert found.smallest(1.1) is None
    falls = Curve((0.1, 0.5, 1.0), (10, 50, 100), made([0.95, 0.3, 1.0]), "top")
    assert falls.smallest() == 100  # the first is enough, and one that is larger is not


def test_a_curve_is_the_faithfulness_of_its_circuits():
    planted, clean, corrupted, metric, graph = backed_up()
    scores = edge_scores(planted.model, clean, corrupted, metric, n=8)
    shares = (0.02, 0.1, 0.3, 1.0)
    found = curve(planted.model, clean, corrupted, metric, scores, shares)
    circuits = [greedy(scores, round(s * len(graph))) for s in shares]
    assert found.sizes == tuple(map(len, circuits))
    expected = faithfulness(planted.model, clean, corrupted, metric, circuits)
    torch.testing.assert_close(found.faithfulness.values, expected.values)
    assert float(found.faithfulness.share[-1]) == pytest.approx(1)
    at_random = curve(planted.model, clean, corrupted, metric, scores, shares, "random")
    assert at_random.sizes == tuple(round(s * len(graph)) for s in shares)
    assert at_random.cmd > found.cmd
    rounded_down = curve(planted.model, clean, corrupted, metric, scores, (0.001, 0.37), "random", rounding="mib")
    assert rounded_down.sizes == (0, int(0.37 * len(graph)))
    assert int(0.37 * len(graph)) < round(0.37 * len(graph))
    with pytest.raises(ValueError, match="'nearest' or 'mib'; got 'up'"):
        curve(planted.model, clean, corrupted, metric, scores, shares, rounding="up")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="greedy, top, random; got 'best'"):
        curve(planted.model, clean, corrupted, metric, scores, shares, "best")
    for wrong in ((), (0.0, 1.0), (0.5, 0.1), (0.5, 1.1), (0.5, 0.5)):
        with pytest.raises(ValueError, match="shares must rise"):
            curve(planted.model, clean, corrupted, metric, scores, wrong)


def test_the_circuit_stands_out_among_random_ones():
    planted, clean, corrupted, metric, graph = backed_up()
    _, anchor, _ = routes()
    found = against_random(planted.model, clean, corrupted, metric, anchor, n=19, seed=3)
    assert found.share == pytest.approx(1, abs=1e-3)
    assert found.p == 1 / 20
    drawn = [random_circuit(graph, len(anchor), 3 + i) for i in range(19)]
    expected = faithfulness(planted.model, clean, corrupted, metric, drawn).share.tolist()
    assert found.shares == pytest.approx(expected, abs=1e-9)
    nothing = against_random(planted.model, clean, corrupted, metric, none(graph), n=4)
    assert nothing.p == 1  # as good as every other circuit of no edges


def test_a_backup_shows_in_the_circuit_that_lacks_it():
    """Without the label at the query no label matches, and the index route answers: if it is in the circuit."""
    planted, clean, corrupted, metric, _ = backed_up()
    both, anchor, query = routes()
    lost = {
        name: dict(minimality(planted.model, clean, corrupted, metric, circuit))
        for name, circuit in (("both", both), ("anchor", anchor))
    }
    assert lost["anchor"][query] > 0.7
    assert lost["both"][query] < 0.3
    spare = [edge for edge in lost["both"] if edge not in lost["anchor"]]
    assert len(spare) == 2
    assert all(abs(lost["both"][edge]) < 1e-3 for edge in spare)
    losses = [loss for _, loss in minimality(planted.model, clean, corrupted, metric, anchor)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] > 0.3

    found = {
        name: completeness(planted.model, clean, corrupted, metric, circuit, n=100)
        for name, circuit in (("both", both), ("anchor", anchor))
    }
    assert max(found["both"].gaps) < 1e-3
    assert max(found["anchor"].gaps) > 0.3  # a half that lacks the match alone is rare
    assert abs(found["both"].complement) < 1e-3
    again = completeness(planted.model, clean, corrupted, metric, anchor, n=10)
    assert len(again.gaps) == 10
    assert again == completeness(planted.model, clean, corrupted, metric, anchor)


def test_a_route_is_worth_its_share():
    """Two whole routes add up in the logits; without its reading head one is lost."""
    planted = plant(Plan("A1 + unused", "gpt2", 8, share=0.65, dirt=Dirt(rotation=True)))
    clean = sample("parity-aligned", 12, 6, 0, planted.vocabulary)
    metric, corrupted = logit_diff(clean), reordered(clean, 1)
    graph = graph_for(planted.model, clean, metric)
    last = planted.model.config.num_hidden_layers - 1
    both = Circuit(graph, graph.mask(list(needed_edges(planted))))
    parts = circuit_of(planted)
    heads = heads_of(planted, parts)
    head = next(heads[id(p)] for p in parts.parts if any(m.target == "indexed" for m in getattr(p, "moves", ())))
    read = Edge(Sender("head", last, head), Receiver("mlp", last))
    found = faithfulness(planted.model, clean, corrupted, metric, [both, both.without(read)])
    assert float(found.share[0]) == pytest.approx(1, abs=1e-3)
    alone = dict(minimality(planted.model, clean, corrupted, metric, both))
    # Cut, the route answers for another prompt's bit: right as often as not.
    assert alone[read] == pytest.approx(0.35, abs=0.15)
    assert alone[read] == pytest.approx(float(found.share[0] - found.share[1]), abs=1e-6)


def test_overlap_is_of_edges_by_name():
    raw, batch = tiny("absolute"), prompts()
    metric = logit_diff(batch)
    graph = graph_for(raw, batch, metric)
    edges = list(graph.edges())
    first, second = (Circuit(graph, graph.mask(some)) for some in (edges[:6], edges[4:10]))
    assert overlap(first, second) == 2 / 10
    assert overlap(first, first) == 1
    longer = prompts(length=5)
    same = graph_for(raw, longer, logit_diff(longer))
    assert overlap(first, Circuit(same, same.mask(edges[:6]))) == 1
    with pytest.raises(ValueError, match="both circuits are empty"):
        overlap(none(graph), none(graph))
    grouped = graph_for(tiny("grouped"), batch, metric)
    with pytest.raises(ValueError, match="other layers or heads"):
        overlap(first, whole(grouped))


def test_what_cannot_be_weighed_is_refused():
    raw, clean = tiny("absolute"), prompts()
    metric, other = logit_diff(clean), prompts(seed=5)
    graph = graph_for(raw, clean, metric)
    with pytest.raises(ValueError, match="one or more circuits"):
        faithfulness(raw, clean, other, metric, [])
    by_role = graph_for(raw, clean, metric, "role")
    with pytest.raises(ValueError, match="all of the same places"):
        faithfulness(raw, clean, other, metric, [whole(graph), whole(by_role)])
    with pytest.raises(ValueError, match="other layers or heads"):
        faithfulness(tiny("grouped"), clean, other, metric, whole(graph))
    with pytest.raises(ValueError, match="lengths must be equal"):
        faithfulness(raw, clean, prompts(length=4), metric, whole(graph))
    places = named_places(["x"] * clean.n_pos)
    with pytest.raises(ValueError, match="the circuit has the places anywhere; not x"):
        faithfulness(raw, clean, other, metric, whole(graph), places)


def test_metrics_without_a_gradient_can_weigh():
    """Accuracy of a planted circuit, against that of a circuit of chance."""
    planted, clean, _, _, graph = backed_up()
    metric = accuracy(clean)
    other = counterfactual.redraw(clean, 9)
    found = faithfulness(planted.model, clean, other, metric, [routes()[0], none(graph)])
    assert found.values[0].tolist() == [1.0] * len(clean)
    assert float(found.empty.mean()) < 0.8


def test_results_are_data_frames_in_one_call():
    planted, clean, corrupted, metric, _ = backed_up()
    scores = edge_scores(planted.model, clean, corrupted, metric)
    found = curve(planted.model, clean, corrupted, metric, scores, (0.1, 1.0))
    table = found.to_dataframe()
    assert table["edges"].tolist() == list(found.sizes)
    assert table["faithfulness"].tolist() == found.faithfulness.share.tolist()
    rows = found.faithfulness.to_dataframe()
    assert len(rows) == 2 * len(clean)
    assert rows[rows.circuit == 1]["value"].tolist() == found.faithfulness.values[1].tolist()
    circuit = greedy(scores, 10)
    edges = circuit.to_dataframe()
    assert len(edges) == len(circuit)
    assert edges["score"].abs().is_monotonic_decreasing
