"""What stands in for what is cut: pairs, other prompts, or the mean."""

import pytest
import torch

from interp.circuits import Ablation, Circuit, Edge, faithfulness
from interp.circuits.ablation import ablation_of
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import graph_of
from interp.circuits.places import places_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.patching import logit_diff
from interp.patching.nodes import Receiver, Sender
from interp.tasks import Prompts
from tests.interp.patching.models import ARCHITECTURES, prompts, tiny


def edge_model_of(anatomy: Anatomy, batch) -> EdgeModel:
    places = places_of(batch, "anywhere")
    return EdgeModel(anatomy, graph_of(anatomy, places, torch.tensor([batch.n_pos - 1])), places)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_mean_is_that_of_what_is_written(architecture):
    """The edge from the embedding to the logits alone, by hand: its mean over the prompts, position by position."""
    raw = tiny(architecture, torch.float64)
    anatomy, batch, others = anatomy_of(raw), prompts(4), prompts(5, seed=3)
    metric = logit_diff(batch)
    edge_model = edge_model_of(anatomy, batch)
    edge = Edge(Sender("embed"), Receiver("logits"))
    circuit = Circuit(edge_model.graph, edge_model.graph.possible).without(edge)
    found = faithfulness(raw, batch, Ablation("mean", others), metric, circuit)

    given = edge_model.writer_outputs(batch.tokens)
    final = edge_model.resid_before(given, 3) - anatomy.embed(batch.tokens) + anatomy.embed(others.tokens).mean(dim=0)
    by_hand = metric.compute(anatomy.unembed(final[:, metric.positions]), torch.arange(4))
    torch.testing.assert_close(found.values[0], by_hand.detach(), atol=1e-9, rtol=0)
    assert (found.values[0] - found.full).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ["absolute", "grouped"])
def test_the_mean_of_every_writer_is_a_literal_mean(architecture):
    anatomy, others = anatomy_of(tiny(architecture, torch.float64)), prompts(5, seed=3)
    edge_model = edge_model_of(anatomy, others)
    mean = Ablation("mean", others).replacement(edge_model, prompts(2).tokens)[torch.tensor([0, 1])]
    literal = torch.stack([edge_model.writer_outputs(row.unsqueeze(0))[:, 0] for row in others.tokens]).mean(dim=0)
    torch.testing.assert_close(mean[:, 0], literal, atol=1e-12, rtol=0)


def test_corrupted_is_the_prompt_of_the_same_number_whatever_the_chunk():
    batch, others = prompts(4), prompts(4, seed=3)
    edge_model = edge_model_of(anatomy_of(tiny("absolute")), batch)
    replacement = ablation_of(others, tiny("absolute")).replacement(edge_model, batch.tokens)
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(replacement[rows], edge_model.writer_outputs(others.tokens[rows]))
    own = ablation_of(batch, tiny("absolute")).replacement(edge_model, batch.tokens)[rows]
    assert (replacement[rows] - own).abs().max() > 1e-2


@pytest.mark.parametrize("seed", range(5))
def test_resampling_never_gives_the_prompt_itself(seed):
    batch = prompts(6)
    edge_model = edge_model_of(anatomy_of(tiny("absolute")), batch)
    replacement = Ablation("resample", batch, seed).replacement(edge_model, batch.tokens)
    assert (replacement.tokens != batch.tokens).any(dim=1).all()
    rows = (replacement.tokens.unsqueeze(1) == batch.tokens).all(dim=-1)
    assert rows.any(dim=1).all()  # and nothing that is not among them
    again = Ablation("resample", batch, seed).replacement(edge_model, batch.tokens)
    assert torch.equal(again.tokens, replacement.tokens)


def test_resampling_looks_past_copies_of_the_prompt():
    tokens = prompts(2).tokens
    copies = torch.cat([tokens[:1].expand(7, -1), tokens[1:]])
    edge_model = edge_model_of(anatomy_of(tiny("absolute")), prompts(2))
    for seed in range(8):
        replacement = Ablation("resample", Prompts(copies), seed).replacement(edge_model, tokens[:1])
        assert torch.equal(replacement.tokens, tokens[1:])
    with pytest.raises(ValueError, match="is the prompt itself"):
        Ablation("resample", Prompts(copies[:7])).replacement(edge_model, tokens[:1])


def test_seeds_of_resampling_differ():
    batch = prompts(8)
    edge_model = edge_model_of(anatomy_of(tiny("absolute")), batch)
    drawn = {
        tuple(Ablation("resample", batch, s).replacement(edge_model, batch.tokens).tokens.flatten().tolist())
        for s in range(4)
    }
    assert len(drawn) == 4


def test_ablations_that_do_not_fit_are_refused():
    batch = prompts(3)
    edge_model = edge_model_of(anatomy_of(tiny("absolute")), batch)
    with pytest.raises(ValueError, match="corrupted, resample, mean, zero; got 'none'"):
        Ablation("none", batch)  # type: ignore[arg-type]
    for kind in ("resample", "mean"):
        with pytest.raises(ValueError, match="two or more prompts"):
            Ablation(kind, prompts(1))
        with pytest.raises(ValueError, match="lengths must be equal"):
            Ablation(kind, prompts(3, length=4)).replacement(edge_model, batch.tokens)
        Ablation(kind, prompts(5, seed=2)).replacement(edge_model, batch.tokens)  # another number is fine
    with pytest.raises(ValueError, match="for 'corrupted' their numbers"):
        Ablation("corrupted", prompts(5)).replacement(edge_model, batch.tokens)
