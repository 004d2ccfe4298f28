"""Is the circuit of a planted model found again? Truth is read off its parts, and proved by intervention first."""

from __future__ import annotations

from functools import cache
from typing import Literal

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from interp.circuits import Circuit, EdgeScores, acdc, edge_scores, faithfulness
from interp.circuits.scoring import Method
from interp.patching import Metric, logit_diff
from interp.tasks import Batch, counterfactual, sample
from probes.planted import Dirt, Plan, Planted, plant
from tests.interp.circuits.planted_edges import needed_edges

Corruption = Literal["reordered", "redrawn"]
MECHANISMS = ("A1", "A2", "placeholder", "unused")
# Mechanism, architecture, and whether the residual stream is rotated; what is not has more heads, so is slower.
CASES = [
    pytest.param((m, a, r), marks=[] if r or (m, a) == ("A1", "gpt2") else [pytest.mark.slow], id=f"{m}-{a}-{r}")
    for m in MECHANISMS
    for a in ("gpt2", "gpt_neox")
    for r in (False, True)
]
ANCHORS = CASES[:8]
INTEGRATED: tuple[Method, ...] = ("eap-ig-inputs", "eap-ig-writers")


def reordered(batch: Batch, seed: int) -> Batch:
    """Other prompts, whose outputs cite the input labels in another order, so that each step reads elsewhere."""
    return counterfactual.reorder_labels(counterfactual.redraw(batch, seed), seed)


@cache
def planted_as(mechanism: str, architecture: str, rotated: bool) -> Planted:
    return plant(Plan(mechanism, architecture, 8, dirt=Dirt(rotation=rotated)))


@cache
def posed(mechanism: str, architecture: str, rotated: bool, corruption: Corruption) -> tuple[Batch, Batch, Metric]:
    clean = sample("parity-aligned", 6, 6, 0, planted_as(mechanism, architecture, rotated).vocabulary)
    corrupted = reordered(clean, 1) if corruption == "reordered" else counterfactual.redraw(clean, 1)
    return clean, corrupted, logit_diff(clean)


@cache
def scored(case: tuple, corruption: Corruption, method: Method) -> EdgeScores:
    clean, corrupted, metric = posed(*case, corruption)
    return edge_scores(planted_as(*case).model, clean, corrupted, metric, method)


@cache
def truth(case: tuple) -> Circuit:
    graph = scored(case, "reordered", "eap").graph
    return Circuit(graph, graph.mask(sorted(needed_edges(planted_as(*case)), key=str)))


@cache
def cut_alone(case: tuple, corruption: Corruption) -> Tensor:
    """For each edge of the full model, in order: the mean absolute change when it alone is cut, as a share."""
    clean, corrupted, metric = posed(*case, corruption)
    graph = truth(case).graph
    full = Circuit(graph, graph.possible)
    found = faithfulness(
        planted_as(*case).model, clean, corrupted, metric, [full.without(edge) for edge in graph.edges()]
    )
    return (found.values - found.full).abs().mean(dim=1) / (found.full - found.empty).mean()


def auroc(case: tuple, values: Tensor) -> float:
    """Of absolute values `[edge]`, in the graph's order."""
    right = truth(case)
    return float(roc_auc_score(right.kept[right.graph.possible].numpy(), values.abs().numpy()))


def auroc_of(case: tuple, corruption: Corruption, method: Method) -> float:
    scores = scored(case, corruption, method)
    return auroc(case, scores.values[scores.graph.possible])


@pytest.mark.parametrize(
    ("mechanism", "by_hand"),
    [
        (
            "A1",
            {
                "embed -> previous v",
                "embed -> match q",
                "previous -> match k",
                "embed -> match v",
                "previous -> L1 MLP",
                "match -> L1 MLP",
                "L1 MLP -> logits",
            },
        ),
        (
            "A2",
            {
                "embed -> previous v",
                "embed -> match q",
                "embed -> match k",
                "match -> read q",
                "embed -> read v",
                "previous -> L2 MLP",
                "read -> L2 MLP",
                "L2 MLP -> logits",
            },
        ),
    ],
)
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_the_truth_is_what_science_says_of_the_mechanism(mechanism, architecture, by_hand):
    case = (mechanism, architecture, True)
    edges = [edge for edge, _ in truth(case).edges()]
    found = {str(edge) for edge in edges}
    for layer, word in enumerate(("previous", "match", "read")):  # the mechanism has one head in each layer
        for head in {str(edge.writer) for edge in edges if edge.writer.kind == "head" and edge.writer.layer == layer}:
            found = {text.replace(head, word) for text in found}
    assert found == by_hand


@pytest.mark.parametrize("case", CASES)
def test_the_truth_holds_under_intervention(case):
    """All other edges can go at once, and no needed one can go alone."""
    clean, corrupted, metric = posed(*case, "reordered")
    right = truth(case)
    rest = Circuit(right.graph, right.graph.possible & ~right.kept)
    found = faithfulness(planted_as(*case).model, clean, corrupted, metric, [right, rest])
    gap = float((found.full - found.empty).mean())
    assert gap > 5
    assert (found.values[0] - found.full).abs().max() < 1e-3 * gap  # prompt by prompt
    assert (found.values[1] - found.empty).abs().max() < 1e-3 * gap
    alone = cut_alone(case, "reordered")
    needed = right.kept[right.graph.possible]
    assert alone[needed].min() > 0.5
    assert alone[~needed].max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("method", INTEGRATED)
@pytest.mark.parametrize("case", CASES)
def test_integrated_gradients_find_the_circuit(case, method):
    assert auroc_of(case, "reordered", method) >= 0.98


@pytest.mark.parametrize("case", CASES)
def test_exact_cuts_find_the_circuit(case):
    assert auroc(case, cut_alone(case, "reordered")) == pytest.approx(1)


@pytest.mark.parametrize("case", CASES)
def test_acdc_finds_the_edges_and_no_others(case):
    clean, corrupted, metric = posed(*case, "reordered")
    scores = scored(case, "reordered", "eap-ig-inputs")
    found = acdc(planted_as(*case).model, clean, corrupted, metric, 0.05, scores)
    assert torch.equal(found.kept, truth(case).kept)


@pytest.mark.parametrize("method", ["eap", "eap-clean"])
@pytest.mark.parametrize("case", CASES)
def test_a_gradient_at_one_end_misses_sharp_attention(case, method):
    """At an end the pattern is 0 or 1 and its gradient 0, so q and k of the head that matches score nothing."""
    scores, right = scored(case, "reordered", method), truth(case)
    of_patterns = torch.tensor([r.kind in ("q", "k") for r in right.graph.readers])[:, None] & right.kept
    gap = scores.clean - scores.corrupted
    if case[0] in ("A1", "A2"):
        assert scores.values[of_patterns].abs().max() < 1e-3 * gap
        assert auroc_of(case, "reordered", method) < 0.99
    else:
        assert auroc_of(case, "reordered", method) >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("case", ANCHORS)
def test_other_prompts_of_the_task_hide_the_address(case):
    """In prompts of the task, output i cites input i: attention is the same in all of them, so no gradient moves it.

    An exact cut gives the match another prompt's label at one of its ends, and so breaks it. But A2's pointer is the
    same in every prompt: its edge can be cut for nothing, and once it is, so can those that compute it. What is left
    is faithful, and not how the model does it: nothing that only redraws can show the address.
    """
    scores, right = scored(case, "redrawn", "eap-ig-inputs"), truth(case)
    gap = scores.clean - scores.corrupted
    of_patterns = torch.tensor([r.kind in ("q", "k") for r in right.graph.readers])[:, None] & right.kept
    assert scores.values[of_patterns].abs().max() < 1e-4 * gap
    assert scores.values[~of_patterns & right.kept].abs().min() > 0.1 * gap
    alone = cut_alone(case, "redrawn")
    needed, patterns = (mask[right.graph.possible] for mask in (right.kept, of_patterns))
    assert alone[needed & ~patterns].min() > 0.5
    of_pointer = torch.tensor([r.kind == "q" and r.layer == 2 for r in right.graph.readers])[:, None] & right.kept
    pointer = of_pointer[right.graph.possible]
    assert int(pointer.sum()) == (case[0] == "A2")
    assert alone[patterns & ~pointer].min() > 0.5
    assert (alone[pointer] < 1e-3).all()
    clean, corrupted, metric = posed(*case, "redrawn")
    found = acdc(planted_as(*case).model, clean, corrupted, metric, 0.05, scores)
    expected = right.kept if case[0] == "A1" else right.kept & ~of_patterns
    assert torch.equal(found.kept, expected)
    share = float(faithfulness(planted_as(*case).model, clean, corrupted, metric, found).share)
    assert share == pytest.approx(1, abs=1e-3)
