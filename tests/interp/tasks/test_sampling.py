"""Random prompts are the same for the same arguments, differ between seeds, and are uniform."""

import time

import pytest
import torch
from scipy import stats

from interp.tasks import Role, default_vocabulary, known_formats, parse_format, sample, sequence_length
from tests.interp.tasks.test_formats import CASES, SHORT

DEFAULT = default_vocabulary()


@pytest.mark.parametrize(("name", "length"), SHORT)
def test_a_seed_gives_the_same_prompts_and_another_seed_others(name, length):
    first, again, other = (sample(name, 16, length, seed) for seed in (5, 5, 6))
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, other.tokens)
    assert torch.equal(first.role, other.role)
    assert torch.equal(first.step, other.step)


@pytest.mark.parametrize(("name", "length"), SHORT)
def test_the_global_random_state_is_neither_read_nor_touched(name, length):
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = sample(name, 4, length, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(sample(name, 4, length, seed=1).tokens, first.tokens)


@pytest.mark.parametrize(("name", "length"), SHORT)
def test_prompts_of_a_batch_differ(name, length):
    assert len(sample(name, 64, length, seed=0).tokens.unique(dim=0)) > 4


@pytest.mark.parametrize(("name", "length"), CASES)
def test_sequence_length_is_the_number_of_tokens(name, length):
    assert sequence_length(parse_format(name), length) == sample(name, 1, length, seed=0).n_pos


@pytest.mark.parametrize("name", ["addition-none", "addition-nonaligned", "addition-zeropad"])
def test_one_length_of_addition_is_that_of_both_operands(name):
    assert torch.equal(sample(name, 4, 5, seed=2).tokens, sample(name, 4, (5, 5), seed=2).tokens)
    assert sequence_length(parse_format(name), 5) == sequence_length(parse_format(name), (5, 5))


@pytest.mark.parametrize(("name", "length"), [("parity-aligned", 20), ("parity-aligned", 40), ("parity-gap2", 3)])
def test_labels_are_uniform_over_the_pool_and_never_held_out(name, length):
    batch = sample(name, 20_000, length, seed=8)
    for step in (1, length):
        labels = batch.tokens[:, batch.at(Role.INPUT_LABEL, step)].flatten()
        counts = torch.bincount(labels, minlength=len(DEFAULT.ids))
        assert counts[DEFAULT.held_out_pool].sum() == 0
        assert counts[DEFAULT.pool].sum() == len(labels)
        assert stats.chisquare(counts[DEFAULT.pool].numpy()).pvalue > 1e-3


def test_output_labels_of_nonaligned_parity_are_uniform_too():
    batch = sample("parity-nonaligned", 20_000, 20, seed=9)
    counts = torch.bincount(batch.tokens[:, batch.at(Role.OUTPUT_LABEL, 20)].flatten(), minlength=len(DEFAULT.ids))
    assert stats.chisquare(counts[DEFAULT.pool].numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        ("parity-aligned", 0, "a length must be at least 1; got 0"),
        ("parity-direct", -3, "a length must be at least 1; got -3"),
        ("addition-none", 0, "a length must be at least 1; got 0"),
        ("addition-none", (3, 0), r"a length must be at least 1; got \(3, 0\)"),
        ("addition-none", (-1, 3), "a length must be at least 1"),
        ("addition-none", (1, 2, 3), "addition-none takes one length"),
        ("parity-aligned", (3, 3), r"parity-aligned takes one length, a number; got \(3, 3\)"),
        ("recall-ordered", (3, 3), "recall-ordered takes one length"),
        ("parity-aligned", 129, "needs 129 different labels in a prompt; the vocabulary has 128"),
        ("parity-gap4", 129, "length 129 of parity-gap4 needs 129 different labels"),
        ("parity-nonaligned", 65, "needs 130 different labels"),
        ("addition-aligned", (3, 128), "needs 129 different labels"),
        ("addition-nonaligned", (64, 65), "needs 129 different labels"),
        ("parity-numeric", 129, "length 129 of parity-numeric needs the label '129'"),
        ("parity-cyclic70", 65, "length 65 of parity-cyclic70 needs the label 'c65'"),
    ],
)
def test_a_length_that_cannot_be_written_is_refused(name, length, message):
    with pytest.raises(ValueError, match=message):
        sample(name, 1, length, seed=0)


@pytest.mark.parametrize(
    ("name", "length"),
    [("parity-aligned", 128), ("parity-nonaligned", 64), ("parity-numeric", 128), ("parity-cyclic70", 64)],
)
def test_the_longest_lengths_can_be_written(name, length):
    assert sample(name, 1, length, seed=0).length == length


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        sample("parity-aligned", 0, 3, seed=0)
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        sample("parity-aligned", 1, 3, seed=-1)
    with pytest.raises(ValueError, match="unknown format 'parity-alined'; nearest: parity-aligned"):
        sample("parity-alined", 1, 3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", known_formats())
def test_a_million_tokens_a_second_on_one_thread(name):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = []
        for seed in range(10):
            start = time.perf_counter()
            batch = sample(name, 256, 10 if name.startswith("addition") else 20, seed)
            rates.append(batch.tokens.numel() / (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    assert max(rates) > 1e6
