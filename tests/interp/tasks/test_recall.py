"""Every recall prompt returns the values that it stored."""

import pytest
import torch

from interp.tasks import default_vocabulary, parse_format, sample
from interp.tasks.layout import generator
from interp.tasks.recall import RecallContent, draw, write

DEFAULT = default_vocabulary()
LITERAL = [
    ("recall-shuffled", [1, 0], "??? M17 c M4 h === M4 h M17 c"),
    ("recall-ordered", [0, 1], "??? M17 c M4 h === M17 c M4 h"),
]


@pytest.mark.parametrize(("name", "order", "text"), LITERAL)
def test_the_example_is_written_literally(name, order, text):
    content = RecallContent(torch.tensor([[0, 5]]), DEFAULT.tokens(["M17", "M4"])[None], torch.tensor([order]))
    assert write(content, parse_format(name), DEFAULT).text() == text


def test_no_other_task_uses_the_letters_of_recall():
    values = set(parse_format("recall-ordered").inputs)
    assert len(values) == 16
    for name in ("parity-numeric", "parity-interleaved", "parity-cyclic", "addition-aligned"):
        fmt = parse_format(name)
        assert not values & {*fmt.structure, *fmt.inputs, *fmt.outputs, *fmt.fixed_labels(20)}


def test_ordered_is_in_order_and_shuffled_takes_every_order_as_often():
    assert (draw(parse_format("recall-ordered"), DEFAULT, 9, 5, generator(0)).order == torch.arange(5)).all()
    order = draw(parse_format("recall-shuffled"), DEFAULT, 6000, 3, generator(0)).order
    counts = torch.bincount((order * torch.tensor([9, 3, 1])).sum(dim=1))
    counts = counts[counts > 0]
    assert len(counts) == 6
    assert (counts - 1000).abs().max() < 120


def test_all_values_are_drawn():
    values = draw(parse_format("recall-ordered"), DEFAULT, 500, 10, generator(0)).values
    counts = torch.bincount(values.flatten(), minlength=16)
    assert len(counts) == 16
    assert (counts - 312.5).abs().max() < 80


def test_the_prompt_starts_with_a_sign_of_its_own():
    assert sample("recall-ordered", 1, 2, seed=0).symbols()[0] == "???"


def test_held_out_labels_are_rehearsed_too():
    labels = draw(parse_format("recall-ordered"), DEFAULT, 500, 10, generator(0)).labels
    assert set(labels.flatten().tolist()) == {*DEFAULT.pool.tolist(), *DEFAULT.held_out_pool.tolist()}
