"""Edges are counted by hand, and named alike at every length."""

import pytest
import torch

from interp.circuits import Edge, Graph, Places, named_places, places_around
from interp.circuits.graph import graph_of
from interp.circuits.places import places_of
from interp.models.anatomy import anatomy_of
from interp.patching.nodes import Receiver, Sender
from interp.tasks import Prompts, Role, sample
from tests.interp.patching.models import ARCHITECTURES, prompts, tiny


def graph_at(architecture: str, names: list[str], read: list[int]) -> Graph:
    return graph_of(anatomy_of(tiny(architecture)), named_places(names), torch.tensor(read))


@pytest.mark.parametrize(
    ("architecture", "kv_heads", "parallel"),
    [
        *((name, 4, False) for name in ("alibi", "rotary", "none", "absolute")),
        ("parallel", 4, True),
        ("grouped", 2, False),
    ],
)
def test_edges_are_counted_by_hand(architecture, kv_heads, parallel):
    """Three layers of four heads: before layer l stand the embedding and five writers a layer."""
    by_hand = 0
    for writers in (1, 6, 11):
        by_hand += writers * (4 + 2 * kv_heads)  # q, k and v
        by_hand += writers if parallel else writers + 4  # the MLP, after its layer's heads or beside them
    by_hand += 16  # the logits
    graph = graph_at(architecture, ["here"] * 4, [3])
    assert len(graph) == by_hand == len(list(graph.edges()))
    assert len(graph.writers) == 16
    assert len(graph.readers) == 3 * (4 + 2 * kv_heads + 1) + 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_edge_goes_from_before_to_after_and_back_to_its_index(architecture):
    graph = graph_at(architecture, ["a", "b", "a", "b"], [3])
    for edge in graph.edges():
        at = graph.index(edge)
        assert graph.edge(*at) == edge
        writer = -1 if edge.writer.layer is None else edge.writer.layer
        reader = 3 if edge.reader.layer is None else edge.reader.layer
        within = writer == reader and edge.reader.kind == "mlp" and edge.writer.kind == "head"
        assert writer < reader or (within and architecture != "parallel")
    kept = graph.mask(list(graph.edges())[::7])
    assert list(graph.edges(kept)) == list(graph.edges())[::7]


def test_only_places_that_the_logits_can_depend_on_have_edges():
    """Of three places the second is read; the third comes later. In the last layer q and the MLP count where read."""
    graph = graph_at("absolute", ["first", "read", "later"], [1])
    kinds = {
        (edge.place, edge.reader.kind) for edge in graph.edges() if edge.reader.layer == 2 or edge.reader.layer is None
    }
    assert kinds == {("first", "k"), ("first", "v"), *(("read", kind) for kind in ("q", "k", "v", "mlp", "logits"))}
    early = {(edge.place, edge.reader.kind) for edge in graph.edges() if edge.reader.layer == 0}
    assert early == {(place, kind) for place in ("first", "read") for kind in ("q", "k", "v", "mlp")}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_no_edge_does_not_reach_the_logits_that_are_read(architecture):
    """Every impossible edge cut at once, at places that are single positions: the same logits."""
    from interp.circuits.edge_forward import EdgeModel

    batch, other = prompts(), prompts(seed=1)
    places = named_places([str(i) for i in range(batch.n_pos)])
    anatomy = anatomy_of(tiny(architecture))
    read = torch.tensor([5, 7])
    edge_model = EdgeModel(anatomy, graph_of(anatomy, places, read), places)
    whole, _ = edge_model.forward(batch.tokens, None, torch.ones_like(edge_model.graph.possible))
    instead = edge_model.writer_outputs(other.tokens)
    held, _ = edge_model.forward(batch.tokens, instead, edge_model.graph.possible)
    torch.testing.assert_close(held[:, read], whole[:, read], atol=1e-5, rtol=1e-5)
    assert (held - whole)[:, 8:].abs().max() > 1e-2
    one_less = edge_model.graph.possible & (torch.arange(len(edge_model.graph.writers)) > 0)
    lost, _ = edge_model.forward(batch.tokens, instead, one_less)
    assert (lost - whole)[:, read].abs().max() > 1e-2


def test_queries_of_shared_keys_are_fed_by_their_own_q_and_the_shared_k_and_v():
    graph = graph_at("grouped", ["here"] * 3, [2])
    for head, shared in enumerate((0, 0, 1, 1)):
        fed = [str(graph.readers[i]) for i in graph.readers_of(Sender("head", 1, head))]
        assert fed == [f"L1H{head} q", f"L1H{shared} k", f"L1H{shared} v"]
    assert graph.readers_of(Sender("embed")) == ()
    assert [str(graph.readers[i]) for i in graph.readers_of(Sender("mlp", 2))] == ["L2 MLP"]


def test_places_around_a_step_have_the_same_names_at_every_length():
    found = [set(places_around(sample("parity-aligned", 2, n, 0), step).names) for n, step in ((4, 3), (7, 3), (9, 6))]
    assert found[0] == found[1] == found[2]
    batch = sample("parity-aligned", 2, 4, 0)
    places = places_around(batch, 3)
    assert "output, step before" in places.names
    for name, role, step in (
        ("output, step before", Role.OUTPUT, 2),
        ("output label, this step", Role.OUTPUT_LABEL, 3),
        ("input, this step", Role.INPUT, 3),
    ):
        at = (places.index == places.names.index(name)).nonzero().flatten()
        assert torch.equal(at, batch.at(role, step))
    others = (places.index == places.names.index("input, other steps")).nonzero().flatten().tolist()
    assert others == torch.cat([batch.at(Role.INPUT, s) for s in (1, 4)]).tolist()


def test_roles_are_places():
    batch = prompts()
    places = places_of(batch, "role")
    for position in range(batch.n_pos):
        assert places.names[int(places.index[position])] == Role(int(batch.role[position])).words
    assert places_of(Prompts(batch.tokens), "anywhere").names == ("anywhere",)
    assert places_of(batch, places) is places


def test_errors_name_the_choices():
    batch = prompts()
    graph = graph_at("absolute", ["a", "b"], [1])
    head = Sender("head", 0, 1)
    for edge, words in (
        (Edge(Sender("head", 0, 9), Receiver("logits"), "b"), "no writer 'L0H9' in this graph; there are embed, L0H0"),
        (Edge(head, Receiver("q", 7, 0), "b"), "no reader 'L7H0 q'.*L0H0 q"),
        (Edge(head, Receiver("logits"), "c"), "no place 'c' in this graph; there are a, b"),
        (Edge(head, Receiver("q", 0, 0), "b"), "L0H1 -> L0H0 q at b is not possible"),
        (Edge(head, Receiver("logits"), "a"), "is not possible"),
    ):
        with pytest.raises(ValueError, match=words):
            graph.index(edge)
    with pytest.raises(ValueError, match="'position' or Places; got 'roles'"):
        places_of(batch, "roles")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="have no roles"):
        places_of(Prompts(batch.tokens), "role")
    with pytest.raises(ValueError, match="have no spans"):
        places_of(batch, "span")
    with pytest.raises(ValueError, match="places are of 2 positions; the prompts have"):
        places_of(batch, named_places(["a", "b"]))
    with pytest.raises(ValueError, match="different names"):
        Places(("a", "a"), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="a number from 0 to 1"):
        Places(("a", "b"), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="step"):
        places_around(batch, 99)
    with pytest.raises(ValueError, match="the prompts have 2 positions"):
        graph_at("absolute", ["a", "b"], [2])
    with pytest.raises(ValueError, match="possible must be"):
        Graph(graph.writers, graph.readers, ("a",), graph.possible)
