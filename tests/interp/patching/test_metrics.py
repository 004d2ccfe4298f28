import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPTJConfig, GraniteConfig

from interp.forward import predict
from interp.models.anatomy import anatomy_of
from interp.patching import patch
from interp.patching.answer_metrics import logit_diff as by_text
from interp.patching.metric import bind_metric
from interp.patching.metrics import Metric, accuracy, kl, logit_diff, margin, probability
from interp.patching.step_metrics import lead
from interp.tasks import Prompts, Role, counterfactual, sample
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
    # Logits of some prompts at a time, here of one that stands twice.
    asked = []
    by_part = kl(BATCH, lambda rows: (asked.append(rows.tolist()), logits[rows])[1], step)
    rows = torch.tensor([2, 0, 2])
    other = logits_for(BATCH, at, 0.5, 1.5)[rows]
    assert torch.equal(by_part.compute(other, rows), kl(BATCH, logits, step).compute(other, rows))
    assert asked == [[0, 2]]


def test_a_reference_of_another_shape_is_refused():
    logits, rows = logits_for(BATCH, BATCH.at(Role.OUTPUT), 1.5, 0.5), torch.arange(3)
    with pytest.raises(ValueError, match=r"\[row=3 read=3 d_vocab=\d+\] for these prompts; got \(3, 3, 5\)"):
        kl(BATCH, logits[..., :5]).compute(logits, rows)
    with pytest.raises(ValueError, match=r"\[row=2 read=3 d_vocab=\d+\] for these prompts; got \(3, 3, \d+\)"):
        kl(BATCH, lambda rows: logits).compute(logits[:2], rows[:2])


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
        (lambda: logit_diff(sample("addition-none", 2, 2, 0), 1), "pass `against`"),
        (lambda: logit_diff(BATCH, 1, against=BATCH), "always zero"),
        (lambda: kl(BATCH, torch.zeros(3, 1, 5)), "reference must be"),
        (lambda: Metric("x", torch.tensor([3, 2]), lambda a, b: a), "rising order"),
        (lambda: Metric("x", torch.tensor([], dtype=torch.long), lambda a, b: a), "one or more"),
    ],
)
def test_bad_requests(make, words):
    with pytest.raises(ValueError, match=words):
        make()


STEPS = torch.tensor([3, 1, 2])
ZERO, ONE = BATCH.vocabulary.tokens(BATCH.format.outputs).tolist()


def test_a_margin_is_at_each_prompts_own_step_for_its_own_tokens():
    """By hand from the raw model's logits."""
    answers, others = torch.tensor([ONE, ZERO, ONE]), torch.tensor([ZERO, ONE, 7])
    metric = margin(BATCH, STEPS, answers, others)
    logits = tiny("alibi")(BATCH.tokens).logits.detach()
    expected = []
    for row, step in enumerate(STEPS.tolist()):
        at = int(BATCH.at(Role.OUTPUT, step)[0]) - 1
        expected.append(logits[row, at, answers[row]] - logits[row, at, others[row]])
    read, rows = logits[:, metric.positions], torch.arange(3)
    assert torch.allclose(metric.compute(read, rows), torch.stack(expected))
    assert metric.positions.tolist() == sorted(int(BATCH.at(Role.OUTPUT, s)[0]) - 1 for s in (1, 2, 3))
    # Any slice of prompts and any stack of runs.
    assert torch.allclose(metric.compute(read[[2, 0]], torch.tensor([2, 0])), torch.stack(expected)[[2, 0]])
    stacked = torch.stack([read, 2 * read])
    assert torch.allclose(metric.compute(stacked, rows), torch.stack(expected) * torch.tensor([[1.0], [2.0]]))


def test_a_margin_of_one_step_for_all_is_the_logit_difference():
    answers = BATCH.tokens[:, BATCH.at(Role.OUTPUT, 2)].squeeze(1)
    metric = margin(BATCH, torch.full((3,), 2), answers, ZERO + ONE - answers)
    logits = predict(tiny("rotary"), BATCH, metric.positions + 1)
    rows = torch.arange(3)
    assert torch.allclose(metric.compute(logits, rows), logit_diff(BATCH, 2).compute(logits, rows))
    assert metric.compute(logits, rows).abs().min() > 1e-4


def test_a_margin_may_be_of_labels():
    steps = torch.tensor([2, 2, 3])
    own = torch.stack([BATCH.tokens[r, int(BATCH.at(Role.OUTPUT_LABEL, s)[0])] for r, s in enumerate(steps.tolist())])
    metric = margin(BATCH, steps, own, torch.full((3,), ZERO), role=Role.OUTPUT_LABEL)
    assert metric.positions.tolist() == [int(BATCH.at(Role.OUTPUT_LABEL, s)[0]) - 1 for s in (2, 3)]


@pytest.mark.parametrize(
    ("steps", "answers", "others", "words"),
    [
        ([1, 2], [ONE] * 3, [ZERO] * 3, r"must each be \[batch\]=3; got \(2,\), \(3,\), \(3,\)"),
        ([1, 2, 3], [ONE], [ZERO] * 3, r"must each be \[batch\]=3"),
        ([1, 2, 3], [ONE, ONE, ZERO], [ZERO, ZERO, ZERO], "prompt 2 has the same token as answer and other"),
        ([1, 2, 9], [ONE] * 3, [ZERO] * 3, "no output with step 9"),
    ],
)
def test_bad_margins(steps, answers, others, words):
    with pytest.raises(ValueError, match=words):
        margin(BATCH, torch.tensor(steps), torch.tensor(answers), torch.tensor(others))


@pytest.mark.parametrize("step", [None, 2])
def test_among_answers_only_the_formats_symbols_compete(step):
    """A third token outbids both answers: nothing is right in the whole vocabulary, all is among the answers."""
    at, rows = BATCH.at(Role.OUTPUT, step), torch.arange(3)
    logits = logits_for(BATCH, at, 1.5, 0.5)
    logits[..., 3] = 9.0
    p = math.e / (1 + math.e)
    assert (accuracy(BATCH, step).compute(logits, rows) == 0).all()
    assert (accuracy(BATCH, step, among_answers=True).compute(logits, rows) == 1).all()
    assert (probability(BATCH, step).compute(logits, rows) < 0.01).all()
    among = probability(BATCH, step, among_answers=True).compute(logits, rows)
    assert torch.allclose(among, torch.full((3,), p), atol=1e-5)
    turned = logits_for(BATCH, at, 0.5, 1.5)
    assert (accuracy(BATCH, step, among_answers=True).compute(turned, rows) == 0).all()
    assert torch.allclose(
        probability(BATCH, step, among_answers=True).compute(turned, rows), torch.full((3,), 1 - p), atol=1e-5
    )
    assert accuracy(BATCH, step, among_answers=True).name != accuracy(BATCH, step).name
    assert probability(BATCH, step, among_answers=True).name != probability(BATCH, step).name


def test_among_answers_is_the_whole_vocabulary_where_nothing_else_competes():
    rows = torch.arange(3)
    logits = logits_for(BATCH, BATCH.at(Role.OUTPUT), 1.5, 0.5)
    for make in (accuracy, probability):
        whole, among = (make(BATCH, among_answers=a).compute(logits, rows) for a in (False, True))
        assert torch.allclose(whole, among, atol=1e-6)
    digits = sample("addition-none", 3, 2, seed=0)
    uniform = torch.zeros(3, len(digits.at(Role.OUTPUT)), VOCAB)
    found = probability(digits, among_answers=True).compute(uniform, rows)
    assert torch.allclose(found, torch.full((3,), 0.1))


def of_type(model_type: str) -> Any:
    """A random model: Gemma 2 caps its logits, Cohere and Granite scale them, GPT-J's unembedding has a bias."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": 0}
    sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    match model_type:
        case "gptj":
            config = GPTJConfig(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=4, rotary_dim=4, n_positions=64)
        case "gemma2":
            config = Gemma2Config(**sizes, intermediate_size=32, head_dim=4, final_logit_softcapping=0.5)
        case "cohere":
            config = CohereConfig(**sizes, intermediate_size=32, logit_scale=0.25)
        case "granite":
            config = GraniteConfig(**sizes, intermediate_size=32, logits_scaling=3.0)
        case _:
            return tiny(model_type)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, std=0.3) if weight.ndim > 1 or name == "lm_head.bias" else None
    return model


@pytest.mark.parametrize("model_type", ["gemma2", "gptj", "cohere", "granite", "alibi", "absolute"])
@torch.no_grad()
def test_logits_of_the_declared_tokens_are_those_of_the_whole_unembedding(model_type: str):
    anatomy = anatomy_of(of_type(model_type))
    metrics = [
        logit_diff(BATCH),
        lead(BATCH, 2),
        margin(BATCH, torch.tensor([1, 2, 3]), torch.tensor([5, 6, 7]), torch.tensor([8, 9, 4])),
        probability(BATCH, among_answers=True),
        accuracy(BATCH, 1, among_answers=True),
        bind_metric(by_text(answer=[9, 8, 7], other=11), anatomy.raw, BATCH),
    ]
    resid = torch.randn(2, 3, BATCH.n_pos, 16, generator=torch.Generator().manual_seed(0))
    for metric in metrics:
        assert metric.tokens is not None
        at = resid[:, :, metric.positions]
        few = metric.measure_read(anatomy.unembed(at, metric.tokens), torch.arange(3))
        whole = metric.measure(anatomy.unembed(at), torch.arange(3))
        assert torch.allclose(few, whole, atol=1e-5 * max(1.0, float(whole.abs().max()))), metric
    for metric in (probability(BATCH), accuracy(BATCH)):  # these read every token
        assert metric.tokens is None


@pytest.mark.parametrize("answers", [9, [9, 9, 9], [9, 8, 7]])
@pytest.mark.parametrize("position", [-2, [3, -2, 3]])
def test_each_prompt_reads_its_own_answer_at_its_own_position(answers: int | list[int], position: int | list[int]):
    metric = bind_metric(by_text(answer=answers, other=[11, 12, 11], position=position), of_type("alibi"), BATCH)
    each = (x if isinstance(x, list) else 3 * [x] for x in (answers, position))
    own = [(a, p % BATCH.n_pos, o) for a, p, o in zip(*each, [11, 12, 11], strict=True)]
    assert metric.positions.tolist() == sorted({p for _, p, _ in own})
    assert metric.tokens is not None
    assert metric.tokens.tolist() == sorted({t for a, _, o in own for t in (a, o)})
    logits = torch.randn(2, 3, BATCH.n_pos, 20, generator=torch.Generator().manual_seed(0))
    for rows in ([0, 1, 2], [2, 0]):
        expected = torch.stack([logits[:, r, p, a] - logits[:, r, p, o] for r in rows for a, p, o in [own[r]]])
        read = logits[:, rows][:, :, metric.positions]
        assert torch.equal(metric.measure(read, torch.tensor(rows)), expected.T)
        assert torch.equal(metric.measure_read(read[..., metric.tokens], torch.tensor(rows)), expected.T)


def test_a_hook_on_the_unembedding_sees_the_whole_vocabulary():
    model = of_type("granite")
    anatomy, resid = anatomy_of(model), torch.randn(3, 16)
    handle = model.lm_head.register_forward_hook(lambda _, __, out: out - out.mean(dim=-1, keepdim=True))
    tokens = torch.tensor([2, 5])
    try:
        assert torch.allclose(anatomy.unembed(resid, tokens), anatomy.unembed(resid)[:, tokens], atol=1e-6)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("tokens", "words"),
    [(None, "belong together"), (torch.tensor([3, 3]), "rising order"), (torch.tensor([[1]]), "ris")],
)
def test_bad_tokens_are_refused(tokens, words):
    with pytest.raises(ValueError, match=words):
        Metric("m", torch.tensor([1]), sum, tokens=tokens, compute_tokens=sum)


def test_the_unpatched_run_of_a_batch_is_a_reference_too():
    raw, flipped = tiny("alibi"), counterfactual.flip_input(BATCH, 3)
    of_batch = patch(raw, BATCH, flipped, "resid_pre", kl(BATCH))
    of_prompts = patch(raw, BATCH, flipped, "resid_pre", kl(Prompts(BATCH.tokens)))
    assert torch.equal(of_batch.change, of_prompts.change)
    assert of_batch.source.abs().max() < 1e-6
    assert of_batch.change.max() > 1e-3
    last = patch(raw, BATCH, flipped, "resid_pre", kl(BATCH, -1))
    assert torch.equal(last.change, of_batch.change)


def test_answers_of_another_number_of_prompts_are_refused():
    """They are read by number: of fewer prompts some are missing, and of more they are those of others."""
    few = prompts(3)
    at, ones = few.at(Role.OUTPUT), torch.ones(3, dtype=torch.long)
    zero, one = few.vocabulary.tokens(few.format.outputs).tolist()
    made = [
        *(make(few, 2) for make in (logit_diff, lead, probability, accuracy)),
        *(make(few, 2, among_answers=True) for make in (probability, accuracy)),
        kl(few, predict(tiny("alibi"), few, at)),
        margin(few, ones, zero * ones, one * ones),
    ]
    for metric in made:
        assert metric.prompts == 3
        for size in (2, 8):
            message = f"has the answers of 3 prompts, and {size} are measured; make it from the same batch"
            with pytest.raises(ValueError, match=message):
                patch(tiny("alibi"), prompts(size), prompts(size, seed=1), "resid_pre", metric)


def test_a_metric_of_ones_own_with_answers_of_fewer_prompts_says_so():
    answers = torch.tensor([5, 7])

    def compute(logits, rows):
        return logits[..., 0, :].gather(-1, answers[rows].unsqueeze(-1)).squeeze(-1)

    own = Metric("logit of two", torch.tensor([3]), compute)
    logits = torch.randn(3, 1, 10)
    assert torch.equal(own.measure(logits[:2], torch.arange(2)), logits[[0, 1], 0, answers])
    with pytest.raises(
        ValueError, match=r"metric 'logit of two' of prompts 0 to 2: .*; has it the answers of fewer prompts"
    ):
        own.measure(logits, torch.arange(3))
