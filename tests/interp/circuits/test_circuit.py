"""A circuit that is installed is the model; written down, it can be read again."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import networkx
import pytest
import torch
from torch import Tensor

from interp import capture, detect_heads
from interp.circuits import (
    Ablation,
    Circuit,
    Edge,
    Graph,
    Places,
    circuit_from_json,
    faithfulness,
    named_places,
    places_around,
    random_circuit,
)
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import graph_of
from interp.circuits.places import places_of
from interp.forward import correct, generate, predict, readout
from interp.models import load_run
from interp.models.anatomy import anatomy_of
from interp.patching import accuracy, logit_diff
from interp.patching.nodes import Receiver, Sender
from interp.tasks import Batch, Role
from tests.interp.patching.models import ARCHITECTURES, prompts, tiny

Where = Places | Literal["anywhere", "role"]


def graph_at(architecture: str, batch: Batch, places: Where = "anywhere") -> Graph:
    return graph_of(anatomy_of(tiny(architecture)), places_of(batch, places), batch.at(Role.OUTPUT) - 1)


def some(architecture: str, batch: Batch, places: Where = "anywhere", seed: int = 0) -> Circuit:
    """A random circuit of most edges, with scores."""
    graph = graph_at(architecture, batch, places)
    circuit = random_circuit(graph, int(0.7 * len(graph)), seed)
    scores = torch.randn(graph.possible.shape, generator=torch.Generator().manual_seed(seed))
    details = {"selected": "random", "n": 7, "nested": {"a": [1, None]}}
    return Circuit(graph, circuit.kept, scores * circuit.kept, details)


def passed(architecture: str, circuit: Circuit, batch: Batch, other: Batch, places: Where = "anywhere") -> Tensor:
    """Logits at every position, by one pass over the cut edges."""
    anatomy, where = anatomy_of(tiny(architecture)), places_of(batch, places)
    edge_model = EdgeModel(anatomy, graph_of(anatomy, where, torch.arange(batch.n_pos)), where)
    final, _ = edge_model.forward(batch.tokens, edge_model.writer_outputs(other.tokens), circuit.on(where))
    return anatomy.unembed(final).detach()


@pytest.mark.parametrize("places", ["anywhere", "role"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_inside_the_block_the_model_is_the_circuit(architecture, places):
    raw, clean, other = tiny(architecture), prompts(4), prompts(4, seed=5)
    circuit = some(architecture, clean, places)
    expected = passed(architecture, circuit, clean, other, places)
    full = raw(clean.tokens).logits.detach()
    with circuit.installed(raw, clean, other) as model:
        assert model is raw
        logits = raw(clean.tokens, use_cache=False).logits
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        backwards = raw(input_ids=clean.tokens.flip(0)).logits  # rows are known by their tokens
        torch.testing.assert_close(backwards.flip(0), expected, atol=1e-5, rtol=1e-5)
        last = raw(clean.tokens, logits_to_keep=3).logits
        torch.testing.assert_close(last, expected[:, -3:], atol=1e-5, rtol=1e-5)
        keep = torch.tensor([2, 5])
        chosen = raw(clean.tokens, logits_to_keep=keep).logits
        torch.testing.assert_close(chosen, expected[:, keep], atol=1e-5, rtol=1e-5)
    assert (expected - full).abs().max() > 1e-2
    assert torch.equal(raw(clean.tokens).logits, full)


@pytest.mark.parametrize("kind", ["corrupted", "resample", "mean"])
def test_what_measures_models_measures_the_circuit(kind, monkeypatch):
    """The same numbers as `faithfulness`, in chunks of one prompt."""
    raw, clean = tiny("rotary"), prompts(5)
    ablation = Ablation(kind, prompts(5, seed=5), seed=2)
    circuit, at = some("rotary", clean), clean.at(Role.OUTPUT)
    right = faithfulness(raw, clean, ablation, accuracy(clean), circuit).values[0]
    difference = faithfulness(raw, clean, ablation, logit_diff(clean), circuit)
    monkeypatch.setattr("interp.forward.CHUNK_TOKENS", clean.n_pos)
    with circuit.installed(raw, clean, ablation) as model:
        assert correct(model, clean, at).double().mean(dim=1).tolist() == pytest.approx(right.tolist())
        whole, found = predict(model, clean, at), readout(model, clean, at)
    symbols = clean.vocabulary.tokens(clean.format.outputs)
    torch.testing.assert_close(found.logits, whole[..., symbols])
    assert torch.equal(found.likeliest, whole.argmax(dim=-1))
    value = logit_diff(clean).compute(whole, torch.arange(5)).double()
    torch.testing.assert_close(value, difference.values[0], atol=1e-5, rtol=1e-5)
    assert (value - difference.full).abs().max() > 1e-2


def test_the_model_is_itself_again_after_an_exception():
    raw, clean, other = tiny("absolute"), prompts(), prompts(seed=5)
    before = raw(clean.tokens).logits.detach()

    def fail() -> None:
        with some("absolute", clean).installed(raw, clean, other):
            assert (raw(clean.tokens).logits - before).abs().max() > 1e-2
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(raw(clean.tokens).logits, before)
    assert "forward" not in raw.__dict__


def test_one_circuit_at_a_time():
    raw, clean, other = tiny("absolute"), prompts(), prompts(seed=5)
    circuit = some("absolute", clean)
    with circuit.installed(raw, clean, other):
        inside = raw(clean.tokens).logits
        with pytest.raises(ValueError, match="already installed"), circuit.installed(raw, clean, other):
            pass
        assert torch.equal(raw(clean.tokens).logits, inside)  # the refusal took nothing away


def test_a_forward_that_someone_else_set_is_put_back():
    raw, clean, other = copy.deepcopy(tiny("absolute")), prompts(), prompts(seed=5)
    circuit, own = some("absolute", clean), raw.forward
    raw.forward = wrapped = lambda *args, **kwargs: own(*args, **kwargs)  # as accelerate's hooks do
    with circuit.installed(raw, clean, other) as model:
        assert model.forward is not wrapped
    assert raw.forward is wrapped


def test_what_does_not_see_the_circuit_refuses():
    raw, clean, other = tiny("absolute"), prompts(), prompts(seed=5)
    capture(raw, clean, logits=True)
    with some("absolute", clean).installed(raw, clean, other) as model:
        for measure in (lambda: capture(model, clean, logits=True), lambda: detect_heads(model, clean)):
            with pytest.raises(ValueError, match="a circuit is installed in this model"):
                measure()
    capture(raw, clean, logits=True)


def test_what_a_circuit_cannot_do_is_said():
    raw, clean, other = tiny("absolute"), prompts(), prompts(seed=5)
    circuit = some("absolute", clean)
    with circuit.installed(raw, clean, other):
        with pytest.raises(ValueError, match="whole prompts at once; got use_cache"):
            generate(raw, clean)
        with pytest.raises(ValueError, match="whole prompts at once"):
            raw.generate(clean.tokens, max_new_tokens=1, pad_token_id=0)  # type: ignore[operator]
        with pytest.raises(ValueError, match="got attention_mask"):
            raw(clean.tokens, attention_mask=torch.ones_like(clean.tokens))
        with pytest.raises(ValueError, match="got no input_ids"):
            raw()
        mixed = torch.cat([clean.tokens[:2], prompts(1, seed=8).tokens])
        with pytest.raises(ValueError, match="prompt 2 of this call is none of those"):
            raw(mixed)
    mean = circuit.installed(raw, clean, Ablation("mean", other))
    with mean:
        assert raw(mixed).logits.shape[0] == 3  # a mean serves any prompt of the layout
        with pytest.raises(ValueError, match=f"set up for {clean.n_pos} positions; got {clean.n_pos - 1}"):
            raw(clean.tokens[:, :-1])
    with pytest.raises(ValueError, match="other layers or heads"), circuit.installed(tiny("grouped"), clean, other):
        pass


def test_equal_prompts_with_unequal_twins_are_refused():
    """Rows are known by their tokens, so one of the two twins would be taken for both."""
    raw, clean, other = tiny("absolute"), prompts(3), prompts(3, seed=5)
    twice = clean.rows(torch.tensor([0, 1, 0]))
    circuit = some("absolute", clean)
    with pytest.raises(ValueError, match="prompts 0 and 2 are the same"), circuit.installed(raw, twice, other):
        pass
    with circuit.installed(raw, twice, other.rows(torch.tensor([0, 1, 0]))):
        logits = raw(twice.tokens).logits
    torch.testing.assert_close(logits[0], logits[2])
    with circuit.installed(raw, twice, Ablation("mean", other)):
        assert raw(twice.tokens).logits.shape[0] == 3


def test_a_circuit_of_roles_runs_at_another_length():
    raw, clean = tiny("rotary"), prompts()
    circuit = some("rotary", clean, "role")
    longer, other = prompts(length=5), prompts(length=5, seed=5)
    assert longer.n_pos != clean.n_pos
    expected = passed("rotary", circuit, longer, other, "role")
    with circuit.installed(raw, longer, other):
        torch.testing.assert_close(raw(longer.tokens).logits, expected, atol=1e-5, rtol=1e-5)
    named = some("rotary", clean, places_around(clean, 2))
    with pytest.raises(ValueError, match="give Places for these prompts"), named.installed(raw, longer, other):
        pass
    where = places_around(longer, 4)
    expected = passed("rotary", named, longer, other, where)
    with named.installed(raw, longer, other, where):
        torch.testing.assert_close(raw(longer.tokens).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_bridge_gives_its_raw_model(saved_families: Path):
    """Measured with the model that the block gives; the bridge itself stays the full model."""
    run = load_run(saved_families / "absolute")
    clean, other = prompts(), prompts(seed=5)
    graph = graph_of(anatomy_of(run.raw), places_of(clean, "anywhere"), clean.at(Role.OUTPUT) - 1)
    circuit = Circuit(graph, graph.possible & False)
    with torch.no_grad(), circuit.installed(run.model, clean, other) as model:
        torch.testing.assert_close(model(clean.tokens).logits, run.raw(other.tokens).logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(run.model(clean.tokens), run.raw(clean.tokens).logits, atol=1e-4, rtol=1e-4)


def test_edges_heads_and_sizes():
    clean = prompts()
    graph = graph_at("absolute", clean)
    edges = [
        Edge(Sender("embed"), Receiver("v", 0, 1)),
        Edge(Sender("head", 0, 1), Receiver("mlp", 1)),
        Edge(Sender("mlp", 1), Receiver("logits")),
    ]
    scores = torch.zeros(graph.possible.shape)
    for edge, score in zip(edges, (0.5, -3.0, 1.0), strict=True):
        scores[graph.index(edge)] = score
    circuit = Circuit(graph, graph.mask(edges), scores)
    assert circuit.edges() == [(edges[1], -3.0), (edges[2], 1.0), (edges[0], 0.5)]
    assert circuit.heads() == [(0, 1)]
    assert len(circuit) == 3
    assert circuit.share == 3 / len(graph)
    assert [e for e, _ in circuit.without(edges[0]).edges()] == edges[1:]
    assert [s for _, s in Circuit(graph, graph.mask(edges)).edges()] == [None] * 3
    with pytest.raises(ValueError, match="L0H1 -> L1 MLP is not in the circuit"):
        circuit.without(edges[1]).without(edges[1])
    with pytest.raises(ValueError, match="is not possible in this graph"):
        Circuit(graph, torch.ones_like(graph.possible))
    with pytest.raises(ValueError, match="kept must be true or false"):
        Circuit(graph, graph.possible.int())
    with pytest.raises(ValueError, match="the circuit has the places anywhere; not x"):
        circuit.on(named_places(["x"] * clean.n_pos))


@pytest.mark.parametrize("places", ["anywhere", "role"])
@pytest.mark.parametrize("architecture", ["absolute", "parallel", "grouped"])
def test_json_makes_the_same_circuit(architecture, places):
    clean = prompts()
    circuit = some(architecture, clean, places)
    again = circuit_from_json(json.loads(json.dumps(circuit.to_json())))
    assert torch.equal(again.kept, circuit.kept)
    assert torch.equal(again.graph.possible, circuit.graph.possible)
    assert again.scores is not None
    assert circuit.scores is not None
    assert torch.equal(again.scores, circuit.scores)
    for name in ("writers", "readers", "places", "shared"):
        assert getattr(again.graph, name) == getattr(circuit.graph, name)
    assert again.details == circuit.details
    assert again.edges() == circuit.edges()
    bare = Circuit(circuit.graph, circuit.kept)
    assert circuit_from_json(json.loads(json.dumps(bare.to_json()))).scores is None
    none = Circuit(circuit.graph, torch.zeros_like(circuit.kept))
    assert len(circuit_from_json(json.loads(json.dumps(none.to_json())))) == 0


def damaged() -> Iterator[tuple[str, object]]:
    """A circuit's JSON with one thing wrong each."""
    good = some("absolute", prompts(), "role").to_json()
    for key in ("schema", "edges", "writers", "readers", "places", "possible", "shared", "details"):
        yield f"no {key}", {k: v for k, v in good.items() if k != key}

    def but(**changed: object) -> dict:
        return {**copy.deepcopy(good), **changed}

    first = good["edges"][0]
    others = good["edges"][1:]
    at = first["index"]
    yield "another schema", but(schema=99)
    yield "a list", [good]
    yield "nothing", None
    yield "writers of another kind", but(writers=[["bias", None, None], *good["writers"][1:]])
    yield "a writer too few", but(writers=good["writers"][:-1])
    yield "a writer that is a number", but(writers=[3, *good["writers"][1:]])
    yield "a place too many", but(places=[*good["places"], "there"])
    yield "possible cut short", but(possible=[line[:-1] for line in good["possible"]])
    yield "possible of other letters", but(possible=["x" * len(line) for line in good["possible"]])
    yield "an index below 0", but(edges=[{**first, "index": [-1, *at[1:]]}, *others])
    yield "an index too high", but(edges=[{**first, "index": [*at[:2], 999]}, *others])
    last = [good["places"].index("output label"), len(good["readers"]) - 1]  # read by the logits from every writer
    yield "indices of two numbers", but(edges=[{**e, "index": last} for e in good["edges"]])
    yield "an index of four", but(edges=[{**first, "index": [*at, 0]}, *others])
    yield "an edge that is named otherwise", but(edges=[{**first, "writer": "L9H9"}, *others])
    yield "an edge at another place", but(edges=[{**first, "place": "nowhere"}, *others])
    yield "a score that is a word", but(edges=[{**first, "score": "high"}, *others])
    yield "some scores missing", but(edges=[{**first, "score": None}, *others])
    yield "an edge that is none", but(edges=[None, *others])


@pytest.mark.parametrize(("what", "data"), [pytest.param(*case, id=case[0]) for case in damaged()])
def test_damaged_json_is_refused(what, data):
    with pytest.raises(ValueError, match=r"circuit|node|kind|possible|index|pass|place"):
        circuit_from_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["absolute", "parallel", "grouped"])
def test_as_a_graph_of_networkx(architecture):
    clean = prompts()
    circuit = some(architecture, clean, "role")
    found = circuit.to_networkx()
    shared = 2 if architecture == "grouped" else 1
    assert set(found.nodes) <= {
        "embed",
        "logits",
        *(f"L{i} MLP" for i in range(3)),
        *(f"L{i}H{h}" for i in range(3) for h in range(4)),
    }
    assert found.nodes["embed"] == {"kind": "embed"}
    assert found.nodes["logits"] == {"kind": "logits"}
    assert found.nodes["L0H1"] == {"kind": "head", "layer": 0, "head": 1}
    assert found.nodes["L0 MLP"] == {"kind": "mlp", "layer": 0}
    expected = []
    for edge, score in circuit.edges():
        reads = edge.reader.kind
        owners = [str(edge.reader).removesuffix(f" {reads}")]
        if reads in ("k", "v"):
            assert edge.reader.head is not None
            owners = [f"L{edge.reader.layer}H{edge.reader.head * shared + i}" for i in range(shared)]
        expected += [(str(edge.writer), owner, reads, edge.place, score) for owner in owners]
    edges = [(u, v, d["reads"], d["place"], d["score"]) for u, v, d in found.edges(data=True)]
    assert sorted(edges) == sorted(expected)
    assert networkx.is_directed_acyclic_graph(found)


def test_graphml_can_be_read_back():
    found = some("absolute", prompts(), "role").to_networkx()
    written = io.BytesIO()
    networkx.write_graphml(found, written)
    again = networkx.read_graphml(io.BytesIO(written.getvalue()), force_multigraph=True)
    assert dict(again.nodes(data=True)) == dict(found.nodes(data=True))

    def listed(graph) -> list:
        return sorted((u, v, d["reads"], d["place"], round(d["score"], 5)) for u, v, d in graph.edges(data=True))

    assert listed(again) == listed(found)
