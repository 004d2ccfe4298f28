"""Exact scores are what is lost, or won, when one edge alone carries the other prompt."""

import pytest
import torch

from interp.circuits import Edge, exact_edge_scores
from interp.circuits.pairs import prepare
from interp.patching import logit_diff
from interp.patching.editing import measure
from interp.patching.nodes import Receiver, Sender
from interp.tasks import counterfactual
from tests.interp.patching.models import prompts
from tests.interp.patching.test_knockouts import KINDS, probe, tiny

CLEAN = prompts(2, 3)
CORRUPTED = counterfactual.redraw(CLEAN, 1)


@pytest.mark.parametrize("places", ["anywhere", "role"])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_the_loss_of_a_run_with_one_edge_cut(kind, places):
    raw, metric = tiny(kind), probe(CLEAN)
    scores = exact_edge_scores(raw, CLEAN, CORRUPTED, metric, "noise", places)
    prepared = prepare(raw, CLEAN, CORRUPTED, metric, places)
    edge_model, (clean, corrupted) = prepared.edge_model, prepared.tokens
    instead, rows, whole = (
        edge_model.writer_outputs(corrupted),
        torch.arange(2),
        torch.ones_like(edge_model.graph.possible),
    )
    full = measure(edge_model.anatomy, edge_model.forward(clean, instead, whole)[0], metric, rows)
    expected = torch.zeros_like(scores.values)
    for index in edge_model.graph.possible.nonzero().tolist():
        cut = whole.clone()
        cut[tuple(index)] = False
        final, _ = edge_model.forward(clean, instead, cut)
        expected[tuple(index)] = (full - measure(edge_model.anatomy, final, metric, rows)).mean()
    assert float(expected.abs().max()) > 0.05
    torch.testing.assert_close(scores.values, expected, rtol=0, atol=2e-5 * float(full.abs().max().clamp_min(1)))


def test_denoising_one_way_is_noising_the_other_way():
    raw, metric = tiny("grouped"), probe(CLEAN)
    one = exact_edge_scores(raw, CLEAN, CORRUPTED, metric, "denoise")
    other = exact_edge_scores(raw, CORRUPTED, CLEAN, metric, "noise")
    torch.testing.assert_close(one.values, -other.values)
    assert (one.clean, one.corrupted) == (other.corrupted, other.clean)


def test_the_last_edge_of_a_writer_is_named_and_signed():
    """In one layer whose MLP alone differs from nothing, all that the logits lose comes along its edge."""
    raw, metric = tiny("absolute", n_layers=1), logit_diff(CLEAN, step=2)
    scores = exact_edge_scores(raw, CLEAN, CORRUPTED, metric, "noise")
    edge = Edge(Sender("mlp", 0), Receiver("logits"))
    found = dict(scores.top(len(scores.graph)))
    assert found[edge] == pytest.approx(float(scores.values[scores.graph.index(edge)]))
    assert scores.method == "exact (noise)"


def test_nothing_moves_between_equal_prompts_and_progress_sees_every_reader():
    raw, seen = tiny("alibi"), []
    scores = exact_edge_scores(
        raw, CLEAN, CLEAN, probe(CLEAN), progress=lambda items: [seen.append(i) or i for i in items]
    )
    assert float(scores.values.abs().max()) < 1e-5
    assert len(seen) == int(scores.graph.possible.any(dim=-1).sum())


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="'denoise' or 'noise'; got 'both'"):
        exact_edge_scores(tiny("alibi"), CLEAN, CORRUPTED, probe(CLEAN), "both")  # pyright: ignore[reportArgumentType]
