"""Trained models in which a role of labels is impossible or necessary by their weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from experiments import load
from experiments.forced import CASES, SEEDS, TIED, load_forced, tie_labels
from experiments.forced.checks import LABELS, attention_to, check_batch, measure_truth
from experiments.forced.judging import judge_model, read_forced
from experiments.forced.masks import write_bars
from experiments.forced.models import EVERY, NOISY, blank, path_of, posed, vocabulary, write_case
from experiments.forced.training import store
from interp.forward import correct
from interp.tasks import Batch, Role, sample

LENGTH, PROMPTS = 8, 48
# The one head that can attend to labels.
READS_LABELS = {"resting place": NOISY, "resting place, null key": NOISY}
STORED = [(name, seed) for name in CASES for seed in SEEDS if path_of(name, seed).is_file()]


def relabelled(batch: Batch) -> torch.Tensor:
    """Return the tokens with all label positions of a prompt in another order."""
    tokens = batch.tokens.clone()
    at = torch.cat([batch.at(role) for role in (Role.INPUT_LABEL, Role.OUTPUT_LABEL)])
    tokens[:, at] = tokens[:, at[torch.randperm(len(at), generator=torch.Generator().manual_seed(0))]]
    return tokens


def logits_of(raw, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits of the raw model."""
    with torch.no_grad():
        return raw(tokens, use_cache=False).logits


@pytest.mark.parametrize("name", TIED)
def test_tied_labels_have_no_identity(name):
    run = load(name)
    tied = tie_labels(run)
    own = sample("parity-constant", PROMPTS, LENGTH, 1, run.vocabulary)
    batch = sample("parity-aligned", PROMPTS, LENGTH, 1, run.vocabulary)
    accuracy = correct(tied.raw, batch, batch.predicted(forced=True)).float().mean()
    assert accuracy == correct(run.raw, own, own.predicted(forced=True)).float().mean() >= 0.99
    with torch.no_grad():
        assert torch.equal(tied.raw(relabelled(batch)).logits, tied.raw(batch.tokens).logits)
        # Without the tie, labels that were never trained are told apart.
        assert not torch.allclose(run.raw(relabelled(batch)).logits, run.raw(batch.tokens).logits, atol=1e-2)


def test_what_cannot_be_tied_is_refused():
    with pytest.raises(ValueError, match="one label throughout"):
        tie_labels(load("parity-aligned-alibi"))
    with pytest.raises(ValueError, match="no random labels"):
        tie_labels(load(TIED[0]), "parity-scratchpad")


@pytest.mark.parametrize("name", CASES)
def test_bars_are_exact_whatever_is_trained(name):
    case = CASES[name]
    raw: Any = blank(3)
    batch = sample("parity-aligned", 4, LENGTH, 1, vocabulary())
    assert any(attention_through(raw, batch, bar).max() > 0.01 for bar in case.bars())
    # Other weights than those of the start, and a stream ten times as large, which LayerNorm divides the flags by.
    with torch.no_grad():
        for weight in raw.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        raw.transformer.wte.weight.mul_(10)
    write_case(raw, case)
    for bar in case.bars():
        assert attention_through(raw, batch, bar).max() == 0


def attention_through(raw, batch: Batch, bar) -> torch.Tensor:
    """Return the attention from the queries of a bar to its keys, in its heads."""
    keys = torch.zeros(batch.n_pos, dtype=torch.bool)
    keys[list(bar.keys)] = True
    found = attention_to(raw.eval(), batch, keys)
    # A query whose every earlier key is barred has nothing else to attend to; there is none.
    return torch.stack([found[layer, :, head][:, list(bar.queries)] for layer, head in bar.heads])


def test_bars_change_nothing_but_what_they_bar():
    case = CASES["barred"]
    raw: Any = blank(1)
    other: Any = blank(1)
    write_bars(raw, case.bars())
    (bar,) = case.bars()
    write_bars(other, (replace(bar, heads=()),))  # the flags, without a head that reads them
    block, d_head = other.transformer.h[0].attn.c_attn, 16
    with torch.no_grad():
        for column in range(d_head - 1, 128, d_head):  # the last dimension of q and k in each head
            block.weight[:, column], block.bias[column] = 0, 0
    batch = sample("parity-aligned", 4, LENGTH, 1, vocabulary())
    keys = torch.isin(batch.role, LABELS)
    with torch.no_grad():
        barred, free = (m.eval()(batch.tokens, output_attentions=True).attentions[0] for m in (raw, other))
    expected = free.masked_fill(keys, 0)
    torch.testing.assert_close(barred, expected / expected.sum(dim=-1, keepdim=True), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "seed"), STORED)
def test_stored_models_do_what_is_stated(name, seed):
    run, case = load_forced(name, seed), CASES[name]
    found, batch = measure_truth(run), check_batch(run)
    stored = read_forced()[f"{name}, seed {seed}"]["checked"]
    assert found == pytest.approx(stored, abs=1e-4)
    assert found["answers"] > 0.99
    for bar in case.bars():
        assert attention_through(run.raw, batch, bar).max() == 0
    if name == "barred":
        inputs, at = batch.tokens.clone(), batch.at(Role.INPUT_LABEL)
        inputs[:, at] = relabelled(batch)[:, at]
        answering = batch.predicted(forced=True) - 1
        moved, still = (logits_of(run.raw, tokens)[:, answering] for tokens in (inputs, batch.tokens))
        assert torch.equal(moved, still)
        assert found["attention on labels"] == 0
        assert found["answers without labels"] == found["answers"]
        return
    assert torch.equal(logits_of(run.raw, relabelled(batch)), logits_of(run.raw, batch.tokens))
    if name == "only path":
        assert found["answers without labels, from step 2"] < 0.6
    if name == "resting place":
        assert found["attention on labels, last head"] > 0.9
        assert found["answers without labels"] < 0.8
    if name in READS_LABELS:
        on_labels = attention_to(run.raw, batch, torch.isin(batch.role, LABELS))
        for layer, head in EVERY:
            assert (on_labels[layer, :, head].max() > 0) == ((layer, head) == READS_LABELS[name])


def test_weights_survive_storing(tmp_path):
    raw, case = blank(1), CASES["barred"]
    write_case(raw, case)
    store(raw, tmp_path / "w.safetensors", {})
    assert (tmp_path / "w.safetensors").stat().st_size < 200_000
    assert posed(raw, case, 1).format.name == "aligned"


def test_unknown_and_missing_models_are_refused():
    with pytest.raises(ValueError, match="unknown case 'sink'; cases are barred"):
        load_forced("sink", 1)
    with pytest.raises(ValueError, match=r"is not stored; train it: python -m experiments.forced train 'barred' 99"):
        load_forced("barred", 99)
    with pytest.raises(ValueError, match="unknown model 'barred'"):
        judge_model("barred")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["barred, seed 1", "only path, seed 1", "resting place, seed 1"])
def test_verdicts_are_those_stored(name):
    found, stored = judge_model(name), read_forced()[name]
    for key in ("label", "statuses"):
        assert found[key] == stored[key], key
