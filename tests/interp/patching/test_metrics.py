import math

import pytest
import torch

from interp.forward import predict
from interp.patching.metrics import Metric, accuracy, kl, logit_diff, probability
from interp.tasks import Role, counterfactual, sample
from tests.interp.patching.models import VOCAB, prompts, tiny

BATCH = prompts(3)


def logits_for(batch, at, right: float, wrong: float):
    """Logits `[batch read d_vocab]`: `right` on the batch's answer, `wrong` on the other bit, -50 elsewhere."""
    logits = torch.full((len(batch), len(at), VOCAB), -50.0)
    zero, one = batch.vocabulary.tokens(batch.format.outputs).tolist()
    answers = batch.tokens[:, at]
    logits.scatter_(2, answers.unsqueeze(-1), right)
    logits.scatter_(2, (zero + one - answers).unsqueeze(-1), wrong)
    return logits


@pytest.mark.parametrize("step", [None, 2])
def test_known_values(step):
    at = BATCH.at(Role.OUTPUT, step)
    logits, rows = logits_for(BATCH, at, 1.5, 0.5), torch.arange(3)
    expected = {logit_diff: 1.0, probability: math.e / (1 + math.e), accuracy: 1.0}
    for make, value in expected.items():
        metric = make(BATCH, step)
        assert torch.equal(metric.positions, at - 1)
        assert torch.allclose(metric.compute(logits, rows), torch.full((3,), value), atol=1e-5)
    assert torch.allclose(accuracy(BATCH, step).compute(-logits, rows), torch.zeros(3))
    same = kl(BATCH, logits, step).compute(logits, rows)
    assert torch.allclose(same, torch.zeros(3), atol=1e-6)
    p = math.e / (1 + math.e)
    turned = kl(BATCH, logits, step).compute(logits_for(BATCH, at, 0.5, 1.5), rows)
    assert torch.allclose(turned, torch.full((3,), 2 * p - 1), atol=1e-5)


def test_prompts_keep_their_own_answers_in_any_slice_and_stack():
    metric = logit_diff(BATCH, 3)
    logits = predict(tiny("alibi"), BATCH, metric.positions + 1)
    whole = metric.compute(logits, torch.arange(3))
    assert torch.allclose(metric.compute(logits[[2, 0]], torch.tensor([2, 0])), whole[[2, 0]])
    stacked = metric.compute(logits.expand(5, -1, -1, -1), torch.arange(3))
    assert torch.allclose(stacked, whole.expand(5, -1))


def test_against_another_batch():
    flipped = counterfactual.flip_input(BATCH, 3, scratchpad="recompute")
    metric = logit_diff(BATCH, 3, against=flipped)
    logits = predict(tiny("alibi"), BATCH, metric.positions + 1)
    rows = torch.arange(3)
    assert torch.allclose(metric.compute(logits, rows), logit_diff(BATCH, 3).compute(logits, rows))
    digits = sample("addition-none", 4, 2, seed=0)
    other = sample("addition-none", 4, 2, seed=1)
    assert logit_diff(digits, 1, against=other, role=Role.ANSWER).positions.shape == (1,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: logit_diff(BATCH, 9), "no output with step 9"),
        (lambda: logit_diff(BATCH, 1, role=Role.INPUT), "one of OUTPUT, ANSWER"),
        (lambda: logit_diff(sample("addition-none", 2, 2, 0), 1), "say against which"),
        (lambda: logit_diff(BATCH, 1, against=BATCH), "always zero"),
        (lambda: kl(BATCH, torch.zeros(3, 1, 5)), "reference must be"),
        (lambda: Metric("x", torch.tensor([3, 2]), lambda a, b: a), "rising order"),
        (lambda: Metric("x", torch.tensor([], dtype=torch.long), lambda a, b: a), "one or more"),
    ],
)
def test_bad_requests(make, words):
    with pytest.raises(ValueError, match=words):
        make()
