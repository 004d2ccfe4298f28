"""Prompts of text on a model without a task."""

import re

import pytest
import torch

from interp.attribution import gradient_x_input, integrated_gradients
from interp.capturing import capture
from interp.models.anatomy import anatomy_of
from interp.patching import (
    Interchange,
    Joint,
    Knockout,
    Metric,
    Receiver,
    Sender,
    accuracy,
    interchange,
    kl,
    knock_out,
    logit_diff,
    margin,
    patch,
    path_patch,
    plan,
    probability,
)
from interp.patching.cells import Cell
from interp.patching.metric import bind_metric
from interp.patching.reference import literal, record
from interp.tasks import Prompts, prompts
from tests.interp.patching.own_text import CLEAN, CORRUPTED, model, run, tokenizer

DIFF = logit_diff("Mary", "John")


def ids(text: str) -> torch.Tensor:
    return torch.tensor([tokenizer().encode(text)])


def test_two_strings_are_patched_as_the_literal_loop():
    effect = patch(run(), [CLEAN], [CORRUPTED], site="resid_pre", metric=DIFF)
    assert effect.labels["pos"][1] == "1: 'Mary'"
    anatomy, metric = anatomy_of(model()), bind_metric(DIFF, run(), prompts(run(), CLEAN))
    for layer in range(2):
        given = record(anatomy, ids(CLEAN), "resid_pre", layer)
        for pos in range(effect.values.shape[1]):
            cell = Cell(layer, (pos,))
            expected = literal(anatomy, ids(CORRUPTED), "resid_pre", cell, given, metric, torch.arange(1))
            assert torch.allclose(effect.values[layer, pos], expected, atol=1e-5)
    assert effect.change.abs().max() > 1e-3


def test_token_ids_and_prompts_give_the_same_as_strings():
    expected = patch(run(), CLEAN, CORRUPTED, "z", DIFF).values
    answer, other = (int(ids(name)[0, 0]) for name in ("Mary", "John"))
    by_ids = patch(model(), ids(CLEAN), ids(CORRUPTED), "z", logit_diff([answer], torch.tensor([other])))
    pair = prompts(run(), CLEAN, CORRUPTED)
    assert torch.equal(by_ids.values, expected)
    assert torch.equal(patch(model(), pair.clean, pair.corrupted, "z", DIFF).values, expected)


def test_spans_are_places():
    clean, corrupted = (
        Prompts(ids(text), spans={"name": (1, 9), "verb": (10,)}, tokenizer=tokenizer()) for text in (CLEAN, CORRUPTED)
    )
    everywhere = patch(run(), clean, corrupted, "resid_pre", DIFF, layers=0).values
    some = patch(run(), clean, corrupted, "resid_pre", DIFF, layers=0, positions="name")
    assert torch.equal(some.values, everywhere[:, [1, 9]])
    joint = plan(run(), clean, corrupted, "resid_pre", DIFF, layers=0, positions=[Joint("name"), "verb", 3])
    assert [cell.positions for cell in joint.cells] == [(1, 9), (10,), (3,)]
    assert joint.labels["pos"][0] == "name"
    cut = knock_out(run(), clean, [Knockout("name", (13,)), Knockout(9, 13, mode="mean")], DIFF)
    assert cut.labels["knockout"] == ("name -> position 13 (renormalise)", "position 9 -> position 13 (mean)")
    assert cut.change[0].abs().max() > 1e-4


def test_the_other_functions_take_text():
    sent = path_patch(run(), CLEAN, CORRUPTED, Sender("head", 0, 1), Receiver("logits"), DIFF)
    assert sent.values.shape == (1, 1)
    swapped = interchange(run(), CLEAN, {"all": [Interchange("resid_pre", CORRUPTED, layers=(0,))]}, DIFF)
    other = interchange(run(), CORRUPTED, {"self": [Interchange("v", CORRUPTED)]}, DIFF)
    assert torch.allclose(swapped.values[0], other.base, atol=1e-5)
    assert capture(run(), CLEAN, pattern=[1]).pattern[1].shape == (1, 2, 14, 14)
    maps = gradient_x_input(run(), CLEAN, metric=DIFF)
    assert maps.values.shape == (1, 1, 14)
    path = integrated_gradients(run(), CLEAN, CORRUPTED, n=64, metric=DIFF)
    assert path.gap is not None
    assert path.gap.abs().max() < 1e-3
    assert (path.values[0, 0].nonzero().flatten() == 9).all()  # the only token that differs
    with pytest.raises(ValueError, match="give metric="):
        gradient_x_input(run(), CLEAN)


def test_metrics_of_text_are_those_of_the_logits():
    logits = model()(ids(CLEAN)).logits.detach()[:, -1]
    mary, john = (tokenizer().convert_tokens_to_ids(name) for name in ("Mary", "John"))
    best = logits.scatter(-1, torch.tensor([[mary]]), -torch.inf).amax(dim=-1)
    uniform = torch.zeros_like(logits)
    expected = {
        logit_diff("Mary", "John"): logits[:, mary] - logits[:, john],
        margin("Mary", "John"): logits[:, mary] - logits[:, john],
        margin("Mary"): logits[:, mary] - best,
        probability("Mary"): logits.softmax(dim=-1)[:, mary],
        accuracy(int(logits.argmax())): torch.ones(1),
        kl(CLEAN): torch.zeros(1),
        kl(uniform): -logits.log_softmax(dim=-1).mean(dim=-1) - torch.tensor(float(logits.shape[-1])).log(),
    }
    for metric, value in expected.items():
        bound = bind_metric(metric, run(), prompts(run(), CLEAN))
        assert bound.positions.tolist() == [13]
        assert torch.allclose(bound.measure(logits.unsqueeze(1), torch.arange(1)), value, atol=1e-5), metric


def test_answers_and_positions_may_be_one_per_prompt():
    both = prompts(run(), [CLEAN, CORRUPTED])
    metric = bind_metric(logit_diff(["Mary", "John"], ["John", "Mary"], position=[13, -2]), run(), both)
    logits = model()(both.tokens).logits.detach()
    mary, john = (tokenizer().convert_tokens_to_ids(name) for name in ("Mary", "John"))
    expected = torch.stack([logits[0, 13, mary] - logits[0, 13, john], logits[1, 12, john] - logits[1, 12, mary]])
    assert torch.allclose(metric.measure(logits[:, metric.positions], torch.arange(2)), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corrupted": CORRUPTED + " him"}, "must have the same number of tokens; got 14 and 15: clean: When|"),
        ({"corrupted": [CORRUPTED, CORRUPTED]}, "must have the same number of prompts; got 1 and 2"),
        ({"clean": torch.rand(1, 14)}, "clean: tokens must be a tensor of integers; got torch.float32"),
        ({"clean": torch.full((1, 14), 999)}, "clean: token id 999 is outside 0 to"),
        ({"metric": logit_diff("Mary John", "John")}, "answer 'Mary John' is 2 tokens"),
        ({"metric": logit_diff("Mary", "Mary")}, "answer and other are the same token"),
        ({"metric": logit_diff(["Mary", "John"], "John")}, "a token id, or one of these per prompt (1); got 2 of them"),
        ({"metric": logit_diff(999, "John")}, "answer has token id 999; the model has 0 to"),
        (
            {"metric": logit_diff("Mary", "John", position=15)},
            "position 15 is past the end; these prompts have 0 to 13",
        ),
        ({"metric": logit_diff("Mary", "John", position="verb")}, "no span 'verb'"),
        ({"positions": "verb"}, "no span 'verb'"),
        ({"positions": 99}, "position 99 is outside 0 to 13"),
        ({"site": "scores"}, "unknown site 'scores'; sites are resid_pre"),
        ({"model": model()}, "text needs a tokenizer"),
        ({"model": "gpt2"}, "model must be a run"),
    ],
)
def test_bad_input_is_one_line(change, message):
    given = {"model": run(), "clean": CLEAN, "corrupted": CORRUPTED, "site": "resid_pre", "metric": DIFF, **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        patch(**given)


def test_a_metric_of_the_wrong_shape_is_one_line():
    metric = Metric("all tokens", torch.tensor([13]), lambda logits, rows: logits[..., 0, :])
    for call in (
        lambda: patch(run(), CLEAN, CORRUPTED, "z", metric),
        lambda: knock_out(run(), CLEAN, Knockout(1, 13), metric),
    ):
        with pytest.raises(ValueError, match="metric 'all tokens' must return one number per prompt"):
            call()


def test_autocast_and_inference_mode_are_refused_by_name_or_work():
    with torch.autocast("cpu", torch.bfloat16):
        for call in (
            lambda: patch(run(), CLEAN, CORRUPTED, "z", DIFF),
            lambda: knock_out(run(), CLEAN, Knockout(1, 13), DIFF),
            lambda: capture(run(), CLEAN, pattern=[0]),
            lambda: gradient_x_input(run(), CLEAN, metric=DIFF),
        ):
            with pytest.raises(ValueError, match=r"does not run under torch\.autocast"):
                call()
    expected = patch(run(), CLEAN, CORRUPTED, "z", DIFF).values
    with torch.inference_mode():
        assert torch.equal(patch(run(), CLEAN, CORRUPTED, "z", DIFF).values, expected)
        assert knock_out(run(), CLEAN, Knockout(1, 13), DIFF).change.abs().max() > 0
        with pytest.raises(ValueError, match=r"needs gradients, which torch\.inference_mode\(\) forbids"):
            integrated_gradients(run(), CLEAN, CORRUPTED, n=2, metric=DIFF)


def test_results_are_shown_in_one_line():
    effect = patch(run(), CLEAN, CORRUPTED, "z", DIFF)
    for shown in (effect, gradient_x_input(run(), CLEAN, metric=DIFF), plan(run(), CLEAN, CORRUPTED, "z", DIFF), DIFF):
        assert "\n" not in repr(shown)
        assert len(repr(shown)) < 200
