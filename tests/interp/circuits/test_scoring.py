"""Edge scores are TransformerLens's, finite differences of exact interventions, and add up to what they promise."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, Node, attribution_patch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from interp.circuits import METHODS, EdgeScores, edge_scores
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import Edge
from interp.circuits.pairs import prepare
from interp.circuits.places import ANYWHERE, named_places, places_of
from interp.circuits.reader_gradients import ReaderGradients
from interp.models.anatomy import Anatomy
from interp.models.bridge import boot_bridge
from interp.patching.metrics import Metric, accuracy, logit_diff
from interp.patching.nodes import Receiver, Sender
from interp.tasks import Role, counterfactual, sample
from probes.planted import Plan, Planted, plant
from tests.interp.circuits.small import (
    CLEAN,
    CORRUPTED,
    HAND_CLEAN,
    HAND_CORRUPTED,
    HAND_EAP,
    HAND_EAP_CLEAN,
    HAND_EXACT,
    HAND_METRIC,
    by_hand,
    cut,
    edge_model_of,
    measured,
    model,
)
from tests.interp.patching.test_knockouts import KINDS, VOCAB, probe

METRIC = probe(CLEAN)


def by_name(scores: EdgeScores) -> dict[str, float]:
    return {str(edge): float(scores.values[scores.graph.index(edge)]) for edge in scores.graph.edges()}


# TransformerLens: where both apply


def comparable(kind: str) -> Any:
    """Fresh, because booting takes a model over."""
    if kind != "llama":
        return copy.deepcopy(model(kind))
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "vocab_size": VOCAB,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "attn_implementation": "eager",
    }
    return LlamaForCausalLM(LlamaConfig(**options)).eval()


@cache
def from_transformer_lens(kind: str) -> dict[tuple[Sender, Receiver], dict[int, float]]:
    """Its edge scores, by position."""
    found = attribution_patch(
        boot_bridge(comparable(kind)),
        CLEAN.tokens,
        CORRUPTED.tokens,
        lambda logits: METRIC.compute(logits[:, METRIC.positions], torch.zeros(1, dtype=torch.long)).sum(),
        EdgeAttributionConfig(granularity="edge"),
    )
    edges: dict[tuple[Sender, Receiver], dict[int, float]] = {}
    for (writer, reader), score in found.edge_scores.items():
        edges.setdefault((_sender(writer), _receiver(reader)), {})[writer.position] = score
    return edges


def _sender(node: Node) -> Sender:
    kind: Any = {"embed": "embed", "attn_head_out": "head", "mlp_out": "mlp"}[node.kind]
    return Sender(kind, node.layer, node.head)


def _receiver(node: Node) -> Receiver:
    if node.kind == "logits":
        return Receiver("logits")
    kind: Any = "mlp" if node.kind == "mlp_in" else node.kind.removesuffix("_input")
    return Receiver(kind, node.layer, node.head)


@pytest.mark.parametrize("places", ["anywhere", "role"])
@pytest.mark.parametrize("kind", ["alibi", "rotary", "none", "absolute", "llama", "parallel"])
def test_eap_is_transformer_lens_edge_by_edge(kind, places):
    ours = edge_scores(comparable(kind), CLEAN, CORRUPTED, METRIC, "eap", places=places)
    theirs = from_transformer_lens(kind)
    pairs = {(edge.writer, edge.reader) for edge in ours.graph.edges()}
    assert pairs == set(theirs)  # no edge is theirs alone
    where = places_of(CLEAN, places)
    largest = float(ours.values.abs().max())
    assert largest > 1e-3
    for (writer, reader), by_position in theirs.items():
        for i, place in enumerate(where.names):
            expected = sum(score for position, score in by_position.items() if int(where.index[position]) == i)
            number = (i, ours.graph.numbers[reader], ours.graph.numbers[writer])
            assert float(ours.values[number]) == pytest.approx(expected, abs=1e-5 * largest), (writer, reader, place)


# Brute force: one edge alone moves by a little


def _exact_norm(norm: LlamaRMSNorm, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


@pytest.mark.parametrize("method", ["eap", "eap-clean"])
@pytest.mark.parametrize("kind", KINDS)
def test_eap_is_the_slope_of_an_edge_that_moves_alone(kind, method, monkeypatch):
    """Central differences of exact interventions, in float64."""
    # NeoX, BLOOM and Llama compute patterns in float32, Llama its norms too: rounding would drown a small step.
    softmax = Anatomy.softmax
    monkeypatch.setattr(Anatomy, "softmax", lambda self, *a: softmax(replace(self, softmax_dtype=None), *a))
    monkeypatch.setattr(LlamaRMSNorm, "forward", _exact_norm)
    raw, step = copy.deepcopy(model(kind)).double(), 1e-4
    scores = edge_scores(raw, CLEAN, CORRUPTED, METRIC, method, places="role")
    edge_model = edge_model_of(raw, METRIC, "role")
    given = [edge_model.writer_outputs(batch.tokens) for batch in (CLEAN, CORRUPTED)]
    base, tokens = (given[1], CORRUPTED.tokens) if method == "eap" else (given[0], CLEAN.tokens)
    gen = torch.Generator().manual_seed(0)
    graph, largest = edge_model.graph, float(scores.values.abs().max())
    drawn = graph.possible.nonzero()[torch.randperm(len(graph), generator=gen)[:40]].tolist()
    drawn += [graph.index(edge) for edge, _ in scores.top(20)]
    for index in map(tuple, drawn):
        ends = [
            measured(
                edge_model, METRIC, tokens, base + sign * step * (given[0] - given[1]), cut(edge_model, index)
            ).mean()
            for sign in (1, -1)
        ]
        slope = float(ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(float(scores.values[index]), abs=1e-6 * largest), str(graph.edge(*index))


@pytest.mark.parametrize(("method", "expected"), [("eap", HAND_EAP), ("eap-clean", HAND_EAP_CLEAN)])
def test_by_hand_gradients(method, expected):
    scores = edge_scores(by_hand(), HAND_CLEAN, HAND_CORRUPTED, HAND_METRIC, method)
    assert (scores.clean, scores.corrupted) == pytest.approx((1 + 4 / 3 + 14, 2 / 3 + 30 * 17 / 24))
    for name, value in by_name(scores).items():
        assert value == pytest.approx(expected.get(name, 0.0), rel=1e-6, abs=1e-6), name


def test_by_hand_integrated_gradients():
    """The embedding's edges add up; those that are linear have their exact worth, and the key has the rest."""
    inputs = edge_scores(by_hand(), HAND_CLEAN, HAND_CORRUPTED, HAND_METRIC, "eap-ig-inputs", n=128)
    found = by_name(inputs)
    assert found["embed -> logits"] + found["embed -> L0H0 v"] + found["embed -> L1H0 k"] == pytest.approx(
        inputs.clean - inputs.corrupted, rel=1e-4
    )
    activations = by_name(edge_scores(by_hand(), HAND_CLEAN, HAND_CORRUPTED, HAND_METRIC, "eap-ig-writers", n=128))
    for name in ("L0H0 -> logits", "L1H0 -> logits", "L0H0 -> L1H0 v"):  # these writers' edges are linear
        assert activations[name] == pytest.approx(HAND_EXACT[name], rel=1e-5)


# What scores add up to


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_input_scores_add_up_as_points_grow_dense(kind):
    gaps = [
        edge_scores(model(kind), CLEAN, CORRUPTED, METRIC, "eap-ig-inputs", n).details["gap"] for n in (4, 16, 64, 256)
    ]
    scores = edge_scores(model(kind), CLEAN, CORRUPTED, METRIC, "eap-ig-inputs", 256)
    whole = float(scores.values[:, :, 0].abs().sum())
    assert abs(gaps[-1]) < 1e-3 * whole
    assert abs(gaps[-1]) < max(abs(gaps[0]) / 10, 1e-5 * whole)
    assert float(scores.values[:, :, 0].sum()) - gaps[-1] == pytest.approx(
        scores.clean - scores.corrupted, abs=1e-5 * whole
    )


@cache
def planted(mechanism: str, architecture: str) -> Planted:
    return plant(Plan(mechanism, architecture, longest=8))


def integrated(mechanism: str, architecture: str, changed: str, n: int, method: Any = "eap-ig-inputs") -> EdgeScores:
    """Of step 5's answer, when the prompts are redrawn, bit 5 is flipped, or output labels 4 and 5 are swapped."""
    model = planted(mechanism, architecture)
    clean = sample("parity-aligned", 4, 8, 0, model.vocabulary)
    match changed:
        case "redraw":
            corrupted = counterfactual.redraw(clean, 1)
        case "flip":
            corrupted = counterfactual.flip_input(clean, 5)
        case _:
            corrupted = counterfactual.swap_labels(clean, 5, 4, role=Role.OUTPUT_LABEL)
    return edge_scores(model.model, clean, corrupted, logit_diff(clean, 5), method, n)


def relative_gap(scores: EdgeScores) -> float:
    return scores.details["gap"] / (scores.clean - scores.corrupted)


@pytest.mark.parametrize("changed", ["redraw", "flip"])
@pytest.mark.parametrize("architecture", ["gpt2", pytest.param("gpt_neox", marks=pytest.mark.slow)])
@pytest.mark.parametrize("mechanism", ["A1", "A2"])
def test_input_scores_of_planted_models_add_up(mechanism, architecture, changed):
    scores = integrated(mechanism, architecture, changed, 32)
    assert abs(scores.clean - scores.corrupted) > 1
    assert abs(relative_gap(scores)) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_swapped_labels_are_found_where_even_points_step_over_them(architecture):
    """Half way between two labels a head at sharpness 40 and more matches neither: its gradient is a spike.

    A1 reads the bit by one such match; even points miss 35 % of it with 32 and need 128. A2 reads it at what another
    match points to, and both must be passed at once: 1024 even points miss 99 % (gpt2) and 61 % (gpt_neox).
    """
    for mechanism, at_32, at_128 in (("A1", 0.03, 0.01), ("A2", 0.05, 0.015)):
        assert abs(relative_gap(integrated(mechanism, architecture, "swap", 32))) < at_32
        assert abs(relative_gap(integrated(mechanism, architecture, "swap", 128))) < at_128
    assert abs(relative_gap(integrated("A2", architecture, "swap", 16))) > 0.5  # too few, and the gap says so
    activations = by_name(integrated("A2", architecture, "swap", 128, "eap-ig-writers"))
    assert activations["L1H4 -> L2H0 q"] == pytest.approx(activations["L2 MLP -> logits"], rel=0.05)
    assert activations["embed -> L1H4 q"] == pytest.approx(activations["L2 MLP -> logits"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_activation_scores_of_a_group_are_what_it_alone_loses(kind):
    raw = model(kind)
    coarse, fine = (edge_scores(raw, CLEAN, CORRUPTED, METRIC, "eap-ig-writers", n, places="role") for n in (4, 256))
    edge_model = edge_model_of(raw, METRIC, "role")
    replacement, whole = edge_model.writer_outputs(CORRUPTED.tokens), torch.ones_like(edge_model.graph.possible)
    full = measured(edge_model, METRIC, CLEAN.tokens, None, whole).mean()
    losses, errors = [], []
    for group in groups(edge_model):
        kept = whole.clone()
        kept[:, :, group] = False
        losses.append(float(full - measured(edge_model, METRIC, CLEAN.tokens, replacement, kept).mean()))
        errors.append([abs(float(s.values[:, :, group].sum()) - losses[-1]) for s in (coarse, fine)])
    largest = max(map(abs, losses))
    assert largest > 0.01
    assert max(fine_error for _, fine_error in errors) < 2e-3 * largest
    assert max(fine_error for _, fine_error in errors) < max(0.2 * max(e for e, _ in errors), 1e-5 * largest)


def groups(edge_model: EdgeModel) -> list[list[int]]:
    """Numbers of the writers that are moved together: the embedding, the heads of a layer, each MLP."""
    found: dict[tuple, list[int]] = {}
    for i, writer in enumerate(edge_model.graph.writers):
        found.setdefault((writer.kind, writer.layer), []).append(i)
    return list(found.values())


# Zeros


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["alibi", "parallel", "grouped"])
def test_the_same_prompts_twice_score_nothing(kind, method):
    scores = edge_scores(model(kind), CLEAN, CLEAN, METRIC, method, n=3)
    assert not scores.values.any()
    assert scores.clean == scores.corrupted
    assert scores.details.get("gap", 0.0) == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_head_that_writes_nothing_has_no_outgoing_score(method):
    raw = copy.deepcopy(model("absolute"))
    with torch.no_grad():
        raw.transformer.h[0].attn.c_proj.weight[8:] = 0  # rows of head 1's z
    scores = edge_scores(raw, CLEAN, CORRUPTED, METRIC, method, n=3)
    silent, speaking = (scores.values[:, :, scores.graph.numbers[Sender("head", 0, h)]] for h in (1, 0))
    assert not silent.any()
    assert speaking.any()


@pytest.mark.parametrize("method", METHODS)
def test_edges_past_the_answer_score_nothing_and_are_none(method):
    """A metric of an early position: what is read after it is no edge, and its gradient is zero anyway."""
    at = CLEAN.at(Role.OUTPUT, 1) - 1
    names = ["after" if p > int(at) else "before" for p in range(CLEAN.n_pos)]
    scores = edge_scores(
        model("rotary"), CLEAN, CORRUPTED, probe(CLEAN, at.tolist()), method, n=3, places=named_places(names)
    )
    after = scores.graph.places.index("after")
    assert not scores.graph.possible[after].any()
    assert not scores.values[after].any()
    assert scores.values.any()


# What a result tells


def test_top_is_sorted_and_names_possible_edges():
    scores = edge_scores(model("grouped"), CLEAN, CORRUPTED, METRIC, "eap", places="role")
    top = scores.top(12)
    sizes = [abs(value) for _, value in top]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == float(scores.values.abs().max())
    assert all(float(scores.values[scores.graph.index(edge)]) == value for edge, value in top)
    assert len(scores.top(10**6)) == len(scores.graph)
    table = scores.to_dataframe()
    assert list(table.columns) == ["writer", "reader", "place", "score"]
    assert len(table) == len(scores.graph)
    assert scores.of_writers()[Sender("embed")] == pytest.approx(float(scores.values[:, :, 0].sum()), rel=1e-5)


def test_scores_of_places_add_up_to_those_of_anywhere():
    one, many = (edge_scores(model("alibi"), CLEAN, CORRUPTED, METRIC, "eap", places=p) for p in ("anywhere", "role"))
    summed = many.values.sum(dim=0, keepdim=True)
    assert torch.allclose(summed, one.values, rtol=0, atol=1e-5 * float(one.values.abs().max()))


def test_prompts_in_parts_score_as_at_once(monkeypatch):
    once = edge_scores(model("absolute"), CLEAN, CORRUPTED, METRIC, "eap-ig-inputs", n=3)
    monkeypatch.setattr("interp.circuits.edge_forward.numbers", lambda share, device: 1)
    parts = edge_scores(model("absolute"), CLEAN, CORRUPTED, METRIC, "eap-ig-inputs", n=3)
    assert torch.allclose(once.values, parts.values, rtol=0, atol=1e-6 * float(once.values.abs().max()))
    assert parts.clean == pytest.approx(once.clean, rel=1e-6)


def test_points_of_a_prompt_do_not_depend_on_the_others_of_its_chunk(monkeypatch):
    prepared = prepare(model("alibi"), CLEAN, CORRUPTED, METRIC, "anywhere")
    edge_model, rows = prepared.edge_model, torch.arange(len(CLEAN))
    clean, corrupted = (edge_model.writer_outputs(tokens)[0] for tokens in prepared.tokens)

    def integrated(rows: Tensor, closed: float) -> Tensor:
        monkeypatch.setattr("interp.circuits.reader_gradients.CLOSED", closed)
        start, change = corrupted[rows], (clean - corrupted)[rows]
        return ReaderGradients(edge_model, METRIC, rows).integrated(3, 0, lambda f: (start + f * change, None))

    even, mixed = integrated(rows, torch.inf), 0
    for closed in (0.3, 0.1, 0.03, 0.01, 0.003):
        together = integrated(rows, closed)
        alone = torch.cat([integrated(row, closed) for row in rows.split(1)], dim=1)
        assert torch.allclose(together, alone, rtol=0, atol=1e-6 * float(alone.abs().max()))
        same = (together == even).all(dim=3).all(dim=2).all(dim=0)
        mixed += 0 < int(same.sum()) < len(rows)
    assert mixed  # some prompts keep even points beside others that do not


# Mistakes


def test_mistakes_are_named():
    raw, longer = model("absolute"), sample("parity-aligned", 3, 4, 0)

    def scored(clean: Any = CLEAN, corrupted: Any = CORRUPTED, metric: Metric = METRIC, **options: Any) -> EdgeScores:
        return edge_scores(raw, clean, corrupted, metric, **options)

    with pytest.raises(ValueError, match="accuracy at step 2 has no gradient; use logit_diff"):
        scored(metric=accuracy(CLEAN, 2))
    with pytest.raises(ValueError, match=r"method must be one of eap, eap-clean, .*; got 'acdc'"):
        scored(method="acdc")
    with pytest.raises(ValueError, match="at least 1; got 0"):
        scored(n=0)
    with pytest.raises(ValueError, match="same number of tokens; got 14 and 18"):
        scored(corrupted=longer)
    with pytest.raises(ValueError, match="must have the same roles and steps"):
        scored(corrupted=replace(CORRUPTED, role=CORRUPTED.role.flip(0)))
    with pytest.raises(ValueError, match="places are of 5 positions; the prompts have 14"):
        scored(places=named_places(["a"] * 5))
    with pytest.raises(ValueError, match="places must be 'anywhere', 'role', 'span', 'position' or Places; got 'step'"):
        scored(places="step")
    with pytest.raises(ValueError, match="these prompts have no roles"):
        scored(CLEAN.tokens, CORRUPTED.tokens, places="role")
    with pytest.raises(ValueError, match="reads position 17; these prompts have 0 to 13"):
        scored(metric=probe(longer))
    with pytest.raises(ValueError, match="training mode"):
        edge_scores(copy.deepcopy(raw).train(), CLEAN, CORRUPTED, METRIC)


def test_scores_that_are_not_finite_are_refused_with_their_edge():
    scores = edge_scores(model("absolute"), CLEAN, CORRUPTED, METRIC, "eap")
    edge = Edge(Sender("head", 0, 1), Receiver("k", 1, 0), ANYWHERE)
    values = scores.values.clone()
    values[scores.graph.index(edge)] = torch.nan
    with pytest.raises(ValueError, match="the score of L0H1 -> L1H0 k is NaN or infinite"):
        EdgeScores(scores.graph, values, "eap", "probe", 0.0, 0.0)
    with pytest.raises(ValueError, match="values must be"):
        EdgeScores(scores.graph, values[0], "eap", "probe", 0.0, 0.0)


@pytest.mark.parametrize(("points", "shift"), [("even", 1.0), ("adaptive", 0.5)])
def test_points_of_a_smooth_path_are_even(points, shift, monkeypatch):
    """The ends of even intervals, as in EAP-IG's code, or their middles, by gradients of single runs."""
    n = 3
    monkeypatch.setattr("interp.circuits.reader_gradients.CLOSED", 1.0)  # three points need not add up well
    found = edge_scores(model("absolute"), CLEAN, CORRUPTED, METRIC, "eap-ig-inputs", n, points=points)
    prepared = prepare(model("absolute"), CLEAN, CORRUPTED, METRIC, "anywhere")
    edge_model, rows = prepared.edge_model, torch.arange(len(CLEAN))
    clean, corrupted = (edge_model.writer_outputs(tokens) for tokens in prepared.tokens)
    gradients = ReaderGradients(edge_model, prepared.metric, rows)
    runs = [gradients.of_run(corrupted[0] + (k + shift) / n * (clean - corrupted)[0]) for k in range(n)]
    expected = torch.einsum("rbpd,wbpd->rw", torch.stack(runs).mean(dim=0), clean - corrupted) / len(CLEAN)
    assert torch.allclose(found.values[0], (expected * edge_model.graph.possible[0]).to(found.values), atol=1e-6)
    assert found.details.get("points") == ("even" if points == "even" else None)


def test_even_points_have_the_same_limit_and_are_an_option_of_one_method():
    near, limit = (
        edge_scores(model("absolute"), CLEAN, CORRUPTED, METRIC, "eap-ig-inputs", 256, points=p).values
        for p in ("even", "adaptive")
    )
    assert (near - limit).abs().max() < 0.02 * limit.abs().max()
    with pytest.raises(ValueError, match="even points are an option of 'eap-ig-inputs'"):
        edge_scores(model("absolute"), CLEAN, CORRUPTED, METRIC, "eap", points="even")
    with pytest.raises(ValueError, match="points must be one of adaptive, even; got 'odd'"):
        edge_scores(model("absolute"), CLEAN, CORRUPTED, METRIC, points="odd")  # pyright: ignore[reportArgumentType]
