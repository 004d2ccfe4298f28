"""Every addition prompt is the paper's, token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from interp.tasks import Role, default_vocabulary, known_formats, parse_format, sample
from interp.tasks.addition import AdditionContent, draw, read, write
from interp.tasks.layout import generator

ADDITION = [name for name in known_formats() if name.startswith("addition")]
DEFAULT = default_vocabulary()
# probes/README.md, Paper and formats: 12 + 9 = 021. Labels by place, units first;
# non-aligned: first operand, then second.
LITERAL = [
    ("addition-none", None, ">>> 1 2 + 9 === 1 2 0 ### 0 2 1"),
    (
        "addition-aligned",
        ("M2", "M1", "M3"),
        ">>> M1 1 M2 2 M3 + M2 9 M3 === M2 1 M1 2 M3 0 ### M3 0 M1 2 M2 1",
    ),
    (
        "addition-zeropad",
        ("M2", "M1", "M3"),
        ">>> M1 1 M2 2 M3 + M1 0 M2 9 M3 === M2 1 M1 2 M3 0 ### M3 0 M1 2 M2 1",
    ),
    (
        "addition-nonaligned",
        ("M2", "M1", "M3"),
        ">>> M1 1 M2 2 + M3 9 === M3 M2 1 M1 2 0 ### 0 M1 2 M3 M2 1",
    ),
]
# The same with the operands exchanged, 9 + 12: ours, by the same rules.
EXCHANGED = [
    ("addition-none", None, ">>> 9 + 1 2 === 1 2 0 ### 0 2 1"),
    (
        "addition-aligned",
        ("M2", "M1", "M3"),
        ">>> M2 9 M3 + M1 1 M2 2 M3 === M2 1 M1 2 M3 0 ### M3 0 M1 2 M2 1",
    ),
    (
        "addition-zeropad",
        ("M2", "M1", "M3"),
        ">>> M1 0 M2 9 M3 + M1 1 M2 2 M3 === M2 1 M1 2 M3 0 ### M3 0 M1 2 M2 1",
    ),
    (
        "addition-nonaligned",
        ("M3", "M2", "M1"),
        ">>> M3 9 + M1 1 M2 2 === M2 M3 1 M1 2 0 ### 0 M1 2 M2 M3 1",
    ),
]


def digits(number: int) -> list[int]:
    """Units first."""
    return [int(d) for d in reversed(str(number))]


def literal(name, labels, first=12, second=9):
    """A batch of one prompt with the content of the paper's example."""
    tokens = DEFAULT.tokens(labels)[None] if labels else None
    content = AdditionContent(torch.tensor([digits(first)]), torch.tensor([digits(second)]), tokens)
    return write(content, parse_format(name), DEFAULT)


@pytest.mark.parametrize(("name", "labels", "text"), LITERAL)
def test_the_paper_s_example_is_written_literally(name, labels, text):
    assert literal(name, labels).text() == text


@pytest.mark.parametrize(("name", "labels", "text"), EXCHANGED)
def test_the_shorter_number_may_come_first(name, labels, text):
    assert literal(name, labels, 9, 12).text() == text


def test_an_overflow_digit_may_be_one():
    assert literal("addition-none", None, 95, 7).text() == ">>> 9 5 + 7 === 2 0 1 ### 1 0 2"


@given(st.integers(0, 10**18), st.integers(0, 10**18))
@settings(deadline=None, max_examples=50)
def test_the_total_is_the_sum(first, second):
    content = AdditionContent(torch.tensor([digits(first)]), torch.tensor([digits(second)]))
    places = max(len(str(first)), len(str(second))) + 1
    assert content.total[0].tolist() == digits(int(str(first + second)))[:places] + [0] * (
        places - len(str(first + second))
    )


def test_a_carry_runs_through_every_place():
    content = AdditionContent(torch.full((1, 20), 9), torch.tensor([[1]]))
    assert content.total[0].tolist() == [0] * 20 + [1]


@pytest.mark.parametrize("name", ADDITION)
@pytest.mark.parametrize("length", [(1, 1), (2, 1), (1, 2), (3, 5), (5, 3), (14, 14)])
def test_read_undoes_write(name, length):
    fmt = parse_format(name)
    content = draw(fmt, DEFAULT, 16, length, generator(3))
    back = read(write(content, fmt, DEFAULT))
    for field in ("first", "second", "labels"):
        before, after = getattr(content, field), getattr(back, field)
        assert (before is None) == (after is None)
        assert before is None or torch.equal(before, after)


@pytest.mark.parametrize("name", ADDITION)
def test_read_does_not_look_at_the_outputs(name):
    batch = sample(name, 4, (3, 2), seed=0)
    tokens = batch.tokens.clone()
    for role in (Role.OUTPUT, Role.ANSWER):
        tokens[:, batch.at(role)] = DEFAULT["0"]
    back = read(batch.with_tokens(tokens))
    assert torch.equal(back.first, read(batch).first)
    assert torch.equal(back.second, read(batch).second)


def test_read_refuses_an_input_that_is_no_digit():
    batch = sample("addition-aligned", 4, (3, 2), seed=0)
    tokens = batch.tokens.clone()
    tokens[1, batch.at(Role.INPUT, 1)[1]] = DEFAULT["_"]
    with pytest.raises(AssertionError, match="no digit"):
        read(batch.with_tokens(tokens))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 1), (2, 4)])
def test_numbers_have_exactly_their_digits_and_all_are_as_likely(n, m):
    content = draw(parse_format("addition-none"), DEFAULT, 5000, (n, m), generator(1))
    for number, places in ((content.first, n), (content.second, m)):
        assert number.shape == (5000, places)
        for place in range(places):
            lowest = 1 if places > 1 and place == places - 1 else 0
            counts = torch.bincount(number[:, place], minlength=10)
            assert counts[:lowest].sum() == 0
            assert stats.chisquare(counts[lowest:].numpy()).pvalue > 1e-3
