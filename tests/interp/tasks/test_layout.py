"""Columns keep their order, and random numbers are drawn uniformly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from interp.tasks import Role, default_vocabulary, parse_format
from interp.tasks.layout import Column, assemble, constant, draw_without_repeats, fixed, generator, shuffled

DEFAULT = default_vocabulary()


def test_assemble_puts_columns_left_to_right():
    columns = [constant(7, 2, Role.START), Column(torch.tensor([3, 4]), Role.INPUT, 1)]
    batch = assemble(columns, parse_format("parity-direct"), 1, DEFAULT)
    assert batch.tokens.tolist() == [[7, 3], [7, 4]]
    assert batch.tokens.dtype == torch.long
    assert [batch.name(0), batch.name(1)] == ["start", "input 1"]


def test_fixed_repeats_one_row():
    assert fixed(torch.tensor([5, 6]), 3).tolist() == [[5, 6]] * 3


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, -(2**70)])
def test_a_seed_outside_the_range_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed must be an integer from 0 to .*; got {seed}"):
        generator(seed)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_a_seed_gives_the_same_numbers_again(seed):
    first, second = (torch.randint(10**6, (8,), generator=generator(seed)) for _ in range(2))
    assert torch.equal(first, second)


def numbers(seed):
    return torch.randint(10**6, (8,), generator=generator(seed)).tolist()


def test_seeds_give_different_numbers():
    assert len({tuple(numbers(seed)) for seed in (0, 1, 2, 10**6, 2**31, 2**32 - 1)}) == 6


@given(st.integers(1, 60), st.integers(0, 2**31), st.data())
@settings(deadline=None, max_examples=40)
def test_a_draw_has_no_repeats_and_is_of_the_pool(size, seed, data):
    count = data.draw(st.integers(1, size))
    pool = torch.arange(size) * 3 + 100
    drawn = draw_without_repeats(pool, 9, count, generator(seed))
    assert drawn.shape == (9, count)
    assert torch.isin(drawn, pool).all()
    assert all(len(set(row)) == count for row in drawn.tolist())


def test_more_than_the_pool_cannot_be_drawn():
    with pytest.raises(ValueError, match="needs 4 different labels; the vocabulary has 3"):
        draw_without_repeats(torch.arange(3), 1, 4, generator(0))


# (pool, count): 4 * count < pool draws and repairs; otherwise the pool is shuffled.
BRANCHES = [(128, 5), (128, 31), (128, 32), (128, 128), (9, 2), (8, 2), (2, 1)]


@pytest.mark.parametrize(("size", "count"), BRANCHES)
def test_each_place_of_a_draw_is_uniform_over_the_pool(size, count):
    """Places of one draw depend on each other, so each is tested alone, at a level that covers them all."""
    drawn = draw_without_repeats(torch.arange(size), 20_000, count, generator(5))
    p_values = [stats.chisquare(torch.bincount(drawn[:, i], minlength=size).numpy()).pvalue for i in range(count)]
    assert min(p_values) > 1e-3 / count


@pytest.mark.parametrize("size", [9, 8])
def test_each_ordered_pair_is_as_likely(size):
    drawn = draw_without_repeats(torch.arange(size), 50_000, 2, generator(6))
    counts = torch.bincount(drawn @ torch.tensor([size, 1]), minlength=size**2)
    pairs = counts[~torch.eye(size, dtype=torch.bool).flatten()]
    assert pairs.sum() == 50_000
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3


def test_orders_are_permutations_and_all_as_likely():
    orders = shuffled(4, 12_000, generator(7))
    assert torch.equal(orders.sort(dim=1).values, torch.arange(4).expand(12_000, 4))
    counts = torch.unique(orders, dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
