"""Every function of circuits on prompts of no task: token ids, spans, single positions; and the check on prompts."""

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.circuits import (
    METHODS,
    Ablation,
    acdc,
    check_validity,
    describe_heads,
    direct_logit_attribution,
    edge_scores,
    exact_edge_scores,
    faithfulness,
    find_circuit,
    greedy,
    logit_lens,
    node_scores,
)
from interp.circuits.places import named_places, places_of
from interp.patching import accuracy, logit_diff
from interp.tasks import Prompts, Role, sample
from probes.intervals import wilson
from tests.interp.patching.models import VOCAB, tiny

TOKENS = torch.randint(40, (6, 9), generator=torch.Generator().manual_seed(0))
OTHER = TOKENS.clone()
OTHER[:, 3] = (OTHER[:, 3] + 1) % 40
# Another last token, so that the answers of TOKENS are less likely.
WORSE = TOKENS.clone()
WORSE[:, -1] = (WORSE[:, -1] + 7) % 40
METRIC = logit_diff(answer=[1, 2, 3, 4, 5, 6], other=[7] * 6)
SPANS = {"subject": (1, 2), "name": (3,)}
LATE = 9


def margins(raw: Any, tokens: Tensor) -> Tensor:
    """By the raw model's logits."""
    with torch.no_grad():
        logits = raw(tokens).logits[:, -1]
    return (logits[torch.arange(6), torch.arange(1, 7)] - logits[:, 7]).double()


def spanned(tokens: Tensor) -> Prompts:
    return Prompts(tokens, spans=SPANS)


@pytest.mark.parametrize("places", ["anywhere", "span", "position"])
@pytest.mark.parametrize("architecture", ["rotary", "grouped"])
def test_circuits_of_token_ids(architecture, places):
    raw = tiny(architecture)
    clean, corrupted = spanned(TOKENS), spanned(OTHER)
    scores = edge_scores(raw, clean, corrupted, METRIC, n=4, places=places)
    assert scores.clean == pytest.approx(float(margins(raw, TOKENS).mean()), abs=1e-5)
    assert scores.corrupted == pytest.approx(float(margins(raw, OTHER).mean()), abs=1e-5)
    everything = greedy(scores, len(scores.graph))
    measured = faithfulness(raw, clean, corrupted, METRIC, everything)
    torch.testing.assert_close(measured.full, margins(raw, TOKENS), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(measured.empty, margins(raw, OTHER), atol=1e-5, rtol=1e-5)
    some = greedy(scores, len(scores.graph) // 2)
    half = faithfulness(raw, clean, corrupted, METRIC, some).values[0]
    with some.installed(raw, clean, corrupted) as model:
        torch.testing.assert_close(margins(model, TOKENS), half, atol=1e-5, rtol=1e-5)
    assert len(acdc(raw, clean, corrupted, METRIC, 1e6, some)) == 0


def test_spans_are_places():
    places = places_of(spanned(TOKENS), "span")
    assert places.names == ("elsewhere", "subject", "name")
    assert places.index.tolist() == [0, 1, 1, 2, 0, 0, 0, 0, 0]
    overlapping = Prompts(TOKENS, spans={"a": (1, 2), "b": (2,)})
    assert places_of(overlapping, "span").names == ("elsewhere", "a", "a and b")
    with pytest.raises(ValueError, match="have no spans"):
        edge_scores(tiny("rotary"), TOKENS, OTHER, METRIC, "eap", places="span")
    with pytest.raises(ValueError, match="have no roles"):
        edge_scores(tiny("rotary"), TOKENS, OTHER, METRIC, "eap", places="role")


def test_a_corruption_within_a_span_is_read_at_that_span_alone():
    scores = edge_scores(tiny("rotary"), spanned(TOKENS), spanned(OTHER), METRIC, "eap", places="span")
    name = scores.graph.places.index("name")
    from_embedding = scores.values[:, :, 0].abs().sum(dim=1)
    assert from_embedding[name] > 0
    assert float(from_embedding.sum()) == pytest.approx(float(from_embedding[name]))


def test_nodes_exact_scores_lens_and_attribution():
    raw = tiny("rotary")
    nodes = node_scores(raw, TOKENS, OTHER, METRIC)
    assert nodes.values.abs().max() > 1e-3
    exact = exact_edge_scores(raw, TOKENS, OTHER, METRIC, "noise")
    assert exact.clean == pytest.approx(float(margins(raw, TOKENS).mean()), abs=1e-5)
    answers = {"answer": [1, 2, 3, 4, 5, 6], "other": 7}
    parts = direct_logit_attribution(raw, TOKENS, **answers)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(parts.margin[:, 0], margins(raw, TOKENS), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts.parts.sum(dim=0), parts.margin, atol=1e-4, rtol=1e-4)
    lens = logit_lens(raw, TOKENS, **answers)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(lens.margin[-1], parts.margin, atol=1e-4, rtol=1e-4)
    alone = direct_logit_attribution(raw, spanned(TOKENS), answer=3, position="name")
    with torch.no_grad():
        expected = raw(TOKENS).logits[:, 3, 3].double()
    torch.testing.assert_close(alone.margin[:, 0], expected, atol=1e-5, rtol=1e-5)
    assert len(alone.to_dataframe()) == len(alone.components)
    with pytest.raises(ValueError, match="not of a task; give answer"):
        direct_logit_attribution(raw, TOKENS)


def test_heads_without_roles():
    """Statistics that need no roles, in groups of positions; a planted duplicate is counted by hand."""
    raw = tiny("rotary")
    tokens = TOKENS.clone()
    tokens[:, 7] = tokens[:, 2]
    found = describe_heads(raw, Prompts(tokens, spans={"again": (7,)}))
    assert found.places == ("elsewhere", "again")
    with torch.no_grad():
        patterns = raw(tokens, output_attentions=True).attentions
    for statistic, source in (("previous_token", 6), ("first_token", 0), ("itself", 7)):
        expected = float(patterns[1][:, 2, 7, source].mean())
        assert found.value(1, 2, "again", statistic) == pytest.approx(expected, abs=1e-5)
    same = (tokens[:, :7] == tokens[:, 7:8]).float()
    expected = float((patterns[1][:, 2, 7, :7] * same).sum(dim=1).mean())
    assert found.value(1, 2, "again", "duplicate_token") == pytest.approx(expected, abs=1e-5)
    after = torch.nn.functional.pad(same[:, :6], (1, 0))
    expected = float((patterns[1][:, 2, 7, :7] * after).sum(dim=1).mean())
    assert found.value(1, 2, "again", "induction") == pytest.approx(expected, abs=1e-5)
    assert set(found.names()) == {(layer, head) for layer in range(3) for head in range(4)}
    with pytest.raises(ValueError, match="there are elsewhere, again"):
        found.value(0, 0, "input", "itself")


def test_heads_of_prompts_with_roles_but_of_no_task():
    role = torch.full((9,), int(Role.INPUT))
    role[4:] = int(Role.OUTPUT)
    found = describe_heads(tiny("rotary"), Prompts(TOKENS, role=role))
    by_hand = describe_heads(tiny("rotary"), TOKENS, named_places(["input"] * 4 + ["output"] * 5))
    assert found.places == by_hand.places == (Role.INPUT.words, Role.OUTPUT.words)
    assert found.answered_at == Role.OUTPUT.words
    torch.testing.assert_close(found.mean, by_hand.mean, equal_nan=True)


def test_a_vocabulary_that_the_model_does_not_have():
    batch = sample("parity-aligned", 2, 3, seed=0)
    raw: Any = copy.deepcopy(tiny("rotary"))
    raw.resize_token_embeddings(int(batch.tokens.max()) + 1)
    assert raw.config.vocab_size < VOCAB
    with pytest.raises(ValueError, match="the task's vocabulary has token id"):
        describe_heads(raw, batch)
    raw.resize_token_embeddings(int(batch.tokens.max()))
    with pytest.raises(ValueError, match="token id"):
        describe_heads(raw, batch)


def late_hook(raw: Any) -> Any:
    """Acts from the tenth token on, which the self-test of seven tokens does not see."""

    def hook(module, inputs, out):
        out = out[0] if isinstance(out, tuple) else out
        return torch.cat([out[:, :LATE], out[:, LATE:] + 3.0 * torch.linspace(-1, 1, out.shape[-1])], 1)

    return raw.gpt_neox.layers[0].register_forward_hook(hook)


def test_a_hook_that_acts_late_is_refused_by_all():
    raw: Any = copy.deepcopy(tiny("rotary"))
    tokens = torch.cat([TOKENS, TOKENS.flip(1)], dim=1)
    other = torch.cat([OTHER, TOKENS.flip(1)], dim=1)
    circuit = greedy(edge_scores(raw, tokens, other, METRIC, "eap"), 40)
    handle = late_hook(raw)
    calls: list[Any] = [
        *(partial(edge_scores, raw, tokens, other, METRIC, method, 1) for method in METHODS),
        lambda: node_scores(raw, tokens, other, METRIC),
        lambda: exact_edge_scores(raw, tokens, other, METRIC),
        lambda: faithfulness(raw, tokens, other, METRIC, circuit),
        lambda: acdc(raw, tokens, other, METRIC, 0.1, circuit),
        lambda: find_circuit(raw, tokens, other, METRIC),
        lambda: circuit.installed(raw, tokens, other).__enter__(),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="differs from the raw model"):
            call()
    handle.remove()
    assert faithfulness(raw, tokens, other, METRIC, circuit).full.isfinite().all()


def test_modes_that_change_the_arithmetic_are_refused():
    raw = tiny("rotary")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="edge_scores does not run under"):
        edge_scores(raw, TOKENS, OTHER, METRIC, "eap")
    with torch.inference_mode(), pytest.raises(ValueError, match="node_scores needs gradients"):
        node_scores(raw, TOKENS, OTHER, METRIC)


def test_zero_ablation_is_a_run_of_zeros():
    """With no edge the logits read zero: those of the last norm's bias."""
    raw: Any = tiny("absolute")
    scores = edge_scores(raw, TOKENS, OTHER, METRIC, "eap")
    measured = faithfulness(raw, TOKENS, Ablation("zero"), METRIC, greedy(scores, len(scores.graph)))
    with torch.no_grad():
        logits = raw.get_output_embeddings()(raw.transformer.ln_f(torch.zeros(16)))
    expected = (logits[1:7] - logits[7]).double()
    torch.testing.assert_close(measured.empty, expected, atol=1e-6, rtol=1e-5)
    assert float(measured.share) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="'zero' takes no prompts"):
        Ablation("zero", TOKENS)
    with pytest.raises(ValueError, match="'mean' needs prompts"):
        Ablation("mean")


# Validity, and a circuit in one call


def separating(raw: Any, sign: int = 1) -> Any:
    """A logit difference that is higher on TOKENS than on WORSE, in every prompt; with sign -1 lower."""
    with torch.no_grad():
        change = sign * (raw(TOKENS).logits - raw(WORSE).logits)[:, -1]
    return logit_diff(answer=change.argmax(dim=-1), other=change.argmin(dim=-1))


def test_pairs_that_cannot_support_a_circuit_are_invalid():
    raw = tiny("rotary")
    up, down = separating(raw), separating(raw, -1)
    likeliest = raw(TOKENS).logits[:, -1].argmax(dim=-1)
    good = check_validity(raw, TOKENS, WORSE, up, accuracy(answer=likeliest))
    assert good.valid
    expected = wilson(len(likeliest), len(likeliest))
    assert good.accuracy == pytest.approx((expected.value, expected.low, expected.high))
    assert good.clean > good.corrupted
    cases = {
        "lower on clean": (TOKENS, WORSE, down, None),
        "nothing separates them": (TOKENS, TOKENS, up, None),
        "nothing separates clean from corrupted": (TOKENS, OTHER, METRIC, None),
        "the model cannot do the task": (TOKENS, WORSE, up, accuracy(answer=(likeliest + 1) % VOCAB)),
    }
    for words, arguments in cases.items():
        found = check_validity(raw, *arguments)
        assert words in str(found.reason)
        assert not found.valid
        assert str(found).startswith("INVALID")
        assert found.to_json()["valid"] is False


def hooks_of(raw: Any) -> list[tuple[str, list[int]]]:
    """The identifiers of every module's hooks."""
    return [(name, [*m._forward_hooks, *m._forward_pre_hooks]) for name, m in raw.named_modules()]


def test_one_call_finds_a_circuit_and_leaves_the_model_as_it_was():
    raw: Any = copy.deepcopy(tiny("rotary"))
    for i, weight in enumerate(raw.parameters()):
        weight.requires_grad_(i % 2 == 0)
    before = {name: (w.detach().clone(), w.requires_grad, w.dtype) for name, w in raw.named_parameters()}
    hooks = hooks_of(raw)  # Transformers leaves some of its own after output_attentions=True
    metric = separating(raw)
    found = find_circuit(raw, TOKENS, WORSE, metric, points=4, share=0.3, n_random=9)
    assert found.validity.valid
    assert found.held_out
    assert 0 < len(found.circuit) <= 0.3 * len(found.circuit.graph)
    assert found.share is not None
    assert found.interval is not None
    assert found.interval[0] < found.share < found.interval[1]
    assert found.random is not None
    assert len(found.random.shares) == 9
    assert "INVALID" not in repr(found)
    assert len(found.to_dataframe()) == len(found.circuit)
    assert found.to_networkx().graph["subtitle"] == found.summary()
    for name, weight in raw.named_parameters():
        assert torch.equal(weight, before[name][0])
        assert (weight.requires_grad, weight.dtype) == before[name][1:]
        assert weight.grad is None
    assert hooks_of(raw) == hooks


def test_a_search_names_its_parts_and_goes_on_from_those_that_are_done(tmp_path, monkeypatch):
    raw, parts = tiny("rotary"), []
    metric = separating(raw)

    def search(**more: Any):
        def progress(part: str):
            parts.append(part)
            return iter

        return find_circuit(raw, TOKENS, WORSE, metric, points=4, share=0.3, n_random=0, progress=progress, **more)

    whole = search()
    assert parts == ["scores", "scores of the other half", "pruning"]
    monkeypatch.setattr("interp.circuits.finding.acdc", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(keep=tmp_path)
    monkeypatch.undo()
    parts.clear()
    again = search(keep=tmp_path)
    assert parts == ["pruning"]
    assert torch.equal(again.circuit.kept, whole.circuit.kept)
    assert torch.equal(again.scores.values, whole.scores.values)
    assert again.scores.details == whole.scores.details
    assert (again.share, again.stability) == (whole.share, whole.stability)
    parts.clear()
    other = search(keep=tmp_path, method="eap")  # the folder holds the scores of another method
    assert parts == ["scores", "scores of the other half", "pruning"]
    assert other.scores.method == "eap"
    parts.clear()
    search(keep=tmp_path)  # and still those of the first
    assert parts == ["pruning"]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="keep must be a folder; "):
        search(keep=tmp_path / "file")


@pytest.mark.filterwarnings("ignore:the circuit will be invalid")
def test_repeated_pairs_are_warned_of_and_settings_without_sense_are_refused():
    raw = tiny("rotary")
    metric = separating(raw)
    same = TOKENS[:1].expand(len(TOKENS), -1), WORSE[:1].expand(len(TOKENS), -1)
    with pytest.warns(UserWarning, match="5 of 6 pairs repeat others: they count as new, also as held out"):
        find_circuit(raw, *same, metric, points=2, share=0.3, n_random=0)
    wrong = (("threshold", math.nan), ("threshold", math.inf), ("chance", math.nan), ("share", math.nan))
    for name, value in wrong:
        options: Any = {name: value}
        with pytest.raises(ValueError, match=name):
            find_circuit(raw, TOKENS, WORSE, metric, **options)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_invalid_circuit_says_so_first_and_beside_its_numbers():
    with pytest.warns(UserWarning, match="the circuit will be invalid: nothing separates"):
        found = find_circuit(tiny("rotary"), TOKENS, OTHER, METRIC, points=2, n_random=0)
    assert repr(found).startswith("CircuitSearch(INVALID: nothing separates")
    with pytest.warns(UserWarning, match="nothing separates them"):
        same = find_circuit(tiny("rotary"), TOKENS[:1], TOKENS[:1], logit_diff(answer=1, other=7), points=2)
    assert same.share is None
    assert same.interval is None
    assert not same.held_out
