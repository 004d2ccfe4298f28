"""M10: answers after a label that the model wrote by mistake, against hand-written prompts."""

from dataclasses import fields

import pytest
import torch

from interp.forward import generate
from interp.tasks import Batch, Role, parity, sample
from probes.arms import m10_mistakes
from probes.arms.m10_mistakes import FEWEST, measure_mistakes
from tests.probes.oracle_models import planted

LENGTH = 8


def with_mistakes(batch: Batch, follows: float, seed: int = 0) -> tuple[Batch, int]:
    """Steps 3 and 6 of each prompt get the label of another step; `follows`: how many prompts' answers follow it.

    From there on the answers are as if nothing had happened. Also counts the mistakes that tell the two apart.
    """
    bits = parity.read(batch).bits.tolist()
    labels = batch.tokens[:, batch.at(Role.INPUT_LABEL)]
    zero_one = batch.vocabulary.tokens(batch.format.outputs)
    tokens, telling = batch.tokens.clone(), 0
    for row in range(len(batch)):
        before = 0
        for i in range(LENGTH):
            j = {2: 4, 5: 1}.get(i, i)
            tokens[row, batch.at(Role.OUTPUT_LABEL)[i]] = labels[row, j]
            read = j if row < follows * len(batch) else i
            before ^= bits[row][read]
            tokens[row, batch.at(Role.OUTPUT)[i]] = zero_one[before]
            telling += bits[row][i] != bits[row][j]
    return batch.with_tokens(tokens), telling


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_mistakes_that_follow_the_label(share, monkeypatch: pytest.MonkeyPatch):
    batch = sample("parity-aligned", 40, LENGTH, seed=0)
    written, telling = with_mistakes(batch, share)
    monkeypatch.setattr(m10_mistakes, "written_by", lambda *_: written)
    (e,) = measure_mistakes(None, batch)  # type: ignore[arg-type]
    assert (e.n, e.value.value) == (telling, share)
    assert 20 <= telling <= 60  # about half of 80
    assert e.control is not None
    assert e.control.value == 1 - share
    assert e.length == LENGTH


def test_half_of_them(monkeypatch: pytest.MonkeyPatch):
    batch = sample("parity-aligned", 400, LENGTH, seed=0)
    monkeypatch.setattr(m10_mistakes, "written_by", lambda *_: with_mistakes(batch, 0.5)[0])
    (e,) = measure_mistakes(None, batch)  # type: ignore[arg-type]
    assert e.value.low < 0.5 < e.value.high
    assert e.control is not None
    assert e.value.value + e.control.value == pytest.approx(1)


def test_too_few_mistakes_say_nothing(monkeypatch: pytest.MonkeyPatch):
    batch = sample("parity-aligned", 40, LENGTH, seed=0)
    for size in range(2, 40):
        some = batch.rows(slice(0, size))
        written, telling = with_mistakes(some, 1.0)
        monkeypatch.setattr(m10_mistakes, "written_by", lambda *_, written=written, **__: written)
        assert bool(measure_mistakes(None, some)) == (telling >= FEWEST)  # type: ignore[arg-type]


def test_a_label_of_no_step_and_an_answer_that_is_none_do_not_count(monkeypatch: pytest.MonkeyPatch):
    batch = sample("parity-aligned", 40, LENGTH, seed=0)
    written, telling = with_mistakes(batch, 1.0)
    stray = written.tokens.clone()
    stray[:, batch.at(Role.OUTPUT_LABEL, 3)] = batch.vocabulary.held_out_pool[0]
    monkeypatch.setattr(m10_mistakes, "written_by", lambda *_: batch.with_tokens(stray))
    (e,) = measure_mistakes(None, batch)  # type: ignore[arg-type]
    assert 0 < e.n < telling
    spoilt = written.tokens.clone()
    spoilt[:, batch.at(Role.OUTPUT, 1)] = batch.vocabulary["==="]
    monkeypatch.setattr(m10_mistakes, "written_by", lambda *_: batch.with_tokens(spoilt))
    assert measure_mistakes(None, batch) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("fmt", ["parity-scratchpad", "parity-nonaligned"])
def test_a_model_that_writes_no_labels_makes_no_such_mistakes(fmt):
    assert measure_mistakes(None, sample(fmt, 4, LENGTH, seed=0)) == []  # type: ignore[arg-type]


def test_a_model_that_writes_right_labels_gives_no_occasion():
    model = planted("A1 written")
    assert measure_mistakes(model.model, sample("parity-aligned", 16, LENGTH, 0, model.vocabulary)) == []


def test_only_prompts_with_a_wrong_prediction_are_decoded(monkeypatch: pytest.MonkeyPatch):
    """In half of the prompts an answer is not what the model writes."""
    model = planted("A1 written")
    batch = sample("parity-aligned", 8, LENGTH, 0, model.vocabulary)
    tokens, at = batch.tokens.clone(), int(batch.at(Role.OUTPUT, 3)[0])
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    tokens[::2, at] = symbols.sum() - tokens[::2, at]
    changed, decoded = batch.with_tokens(tokens), []

    def counted(m, prompts, forced):
        decoded.append(len(prompts))
        return generate(m, prompts, forced)

    monkeypatch.setattr(m10_mistakes, "generate", counted)
    found = m10_mistakes.written_by(model.model, changed)
    assert decoded == [4]
    assert torch.equal(found.tokens, generate(model.model, changed, forced=False).tokens)
    assert not torch.equal(found.tokens, changed.tokens)


def test_a_planted_writer_follows_the_labels_that_it_writes():
    """The first output label is another step's, so the writer continues from there and reads the bits there."""
    model = planted("A1 written")
    batch = sample("parity-aligned", 64, LENGTH, 0, model.vocabulary)
    # Step 1's label is given as step 4's: what the model writes next are labels 5, 6, ... with their bits.
    tokens = batch.tokens.clone()
    tokens[:, batch.at(Role.OUTPUT_LABEL, 1)] = batch.tokens[:, batch.at(Role.INPUT_LABEL, 4)]
    astray = batch.with_tokens(tokens)
    real = m10_mistakes.generate

    def from_second_label(m, prompts):
        class Led(Batch):
            def predicted(self, forced=True):
                at = super().predicted(forced)
                return at[at != int(prompts.at(Role.OUTPUT_LABEL, 1)[0])]

        led = Led(**{f.name: getattr(astray, f.name) for f in fields(astray)})
        return real(m, led, forced=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(m10_mistakes, "written_by", from_second_label)
        (e,) = measure_mistakes(model.model, batch)
    assert e.n > 50
    assert e.value.value > 0.95
