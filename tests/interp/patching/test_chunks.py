import pytest

from interp.patching.chunks import Chunks


def tried(chunks: Chunks, seconds: dict[int, float], times: int) -> list[int]:
    """The sizes that are used, one after the other, when a chunk of a size takes these seconds per FLOP."""
    sizes = []
    for _ in range(times):
        sizes.append(chunks.size())
        chunks.took(sizes[-1], sizes[-1], flops=1.0, seconds=seconds[sizes[-1]])
    return sizes


def test_every_size_is_tried_once_then_the_fastest_is_kept():
    assert tried(Chunks(most=20), {2: 5.0, 4: 2.0, 8: 1.0, 16: 3.0}, 6) == [8, 16, 4, 2, 8, 8]
    assert tried(Chunks(most=40, positions=64), {4: 4.0, 8: 3.0, 16: 2.0, 32: 1.0}, 5) == [8, 16, 32, 4, 32]


def test_speed_is_for_the_work_done():
    chunks = Chunks(most=4)
    chunks.took(2, 2, flops=10.0, seconds=10.0)
    chunks.took(4, 4, flops=1.0, seconds=2.0)
    assert chunks.best == 2


def test_of_nearly_equal_sizes_the_larger_one_starts_fewer_operators():
    chunks = Chunks(most=4)
    chunks.took(2, 2, 1.0, 1.0)
    chunks.took(4, 4, 1.0, 1.01)
    assert chunks.best == 4


def test_an_incomplete_chunk_neither_hides_nor_replaces_a_measurement():
    chunks = Chunks(most=8)
    chunks.took(8, 1, 1.0, 5.0)
    assert chunks.size() == 4  # sizes that are never filled are not tried for ever
    chunks.took(8, 8, 1.0, 1.0)
    chunks.took(8, 1, 1.0, 0.1)
    assert chunks.times[8] == 1.0


def test_a_stack_of_few_positions_is_never_small():
    assert Chunks(most=64, positions=14).candidates == [32]
    assert Chunks(most=64, positions=82).candidates == [4, 8, 16, 32]
    assert Chunks(most=64, positions=8 * 82).candidates == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("most", [1, 3, 5000])
def test_other_devices_stack_what_fits(most):
    chunks = Chunks(most, "cuda")
    chunks.took(most, most, 1.0, 1.0)
    assert chunks.size() == most


def test_a_budget_for_one_row_means_one():
    assert Chunks(most=1).size() == 1
