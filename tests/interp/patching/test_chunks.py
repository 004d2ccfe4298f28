from interp.patching.chunks import Chunks


def test_every_size_is_tried_once_then_the_fastest_is_kept():
    chunks, seconds = Chunks(most=20), {2: 4.0, 4: 2.0, 8: 1.0, 16: 3.0}
    tried = []
    for _ in range(6):
        size = chunks.size()
        tried.append(size)
        chunks.took(size, size, flops=1.0, seconds=seconds[size])
    assert tried == [2, 4, 8, 16, 8, 8]
    assert chunks.best == 8


def test_speed_is_for_the_work_done():
    chunks = Chunks(most=4)
    chunks.took(2, 2, flops=10.0, seconds=10.0)
    chunks.took(4, 4, flops=1.0, seconds=2.0)
    assert chunks.best == 2


def test_a_nearly_equal_smaller_size_is_preferred():
    chunks = Chunks(most=4)
    chunks.took(2, 2, 1.0, 1.04)
    chunks.took(4, 4, 1.0, 1.0)
    assert chunks.best == 2


def test_an_incomplete_chunk_neither_hides_nor_replaces_a_measurement():
    chunks = Chunks(most=8)
    chunks.took(2, 1, 1.0, 5.0)
    assert chunks.size() == 4  # sizes that are never filled are not tried for ever
    chunks.took(2, 2, 1.0, 1.0)
    chunks.took(2, 1, 1.0, 0.1)
    assert chunks.times[2] == 1.0


def test_a_budget_for_one_row_means_one():
    assert Chunks(most=1).size() == 1
