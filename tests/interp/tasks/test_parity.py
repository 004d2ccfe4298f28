"""Every parity prompt is the paper's, token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.tasks import Role, default_vocabulary, known_formats, parse_format, sample
from interp.tasks.layout import generator
from interp.tasks.parity import ParityContent, draw, read, write

PARITY = [name for name in known_formats() if name.startswith("parity")]
DEFAULT = default_vocabulary()
BITS = (0, 1, 1)
IN, OUT, NEXT = ("M17", "M4", "M52"), ("M9", "M30", "M61"), ("M4", "M5", "M6")
# probes/README.md, Paper and formats; bits 0 1 1: format, input labels, output labels, text.
LITERAL = [
    ("parity-direct", (), (), ">>> 0 1 1 === 0"),
    ("parity-scratchpad", (), (), ">>> 0 1 1 === 0 1 0"),
    ("parity-interleaved", (), (), ">>> 0 [0] 1 [1] 1 [0]"),
    ("parity-aligned", IN, IN, ">>> M17 0 M4 1 M52 1 === M17 0 M4 1 M52 0"),
    ("parity-nonaligned", IN, OUT, ">>> M17 0 M4 1 M52 1 === M9 0 M30 1 M61 0"),
    ("parity-numeric", "123", "123", ">>> 1 a 2 b 3 b === 1 a 2 b 3 a"),
    ("parity-constant", "###", "###", ">>> # 0 # 1 # 1 === # 0 # 1 # 0"),
    ("parity-cyclic2", ("c1", "c2", "c1"), ("c1", "c2", "c1"), ">>> c1 0 c2 1 c1 1 === c1 0 c2 1 c1 0"),
    ("parity-gap1", IN, IN, ">>> M17 _ 0 M4 _ 1 M52 _ 1 === M17 _ 0 M4 _ 1 M52 _ 0"),
    ("parity-hints", NEXT, NEXT, ">>> M4 0 M5 1 M6 1 === M4 0 M5 1 M6 0"),
    ("parity-suffix", IN, IN, ">>> 0 M17 1 M4 1 M52 === 0 M17 1 M4 0 M52"),
    ("parity-gap2", IN, IN, ">>> M17 _ _ 0 M4 _ _ 1 M52 _ _ 1 === M17 _ _ 0 M4 _ _ 1 M52 _ _ 0"),
]
FIXED = [case for case in LITERAL if parse_format(case[0]).labels != "pool"]


def literal(name, into, out, bits=BITS):
    """A batch of one prompt with the content of the paper's example."""
    labels = [DEFAULT.tokens(x)[None] if x else None for x in (into, out)]
    return write(ParityContent(torch.tensor([bits]), *labels), parse_format(name), DEFAULT)


@pytest.mark.parametrize(("name", "into", "out", "text"), LITERAL)
def test_the_paper_s_example_is_written_literally(name, into, out, text):
    assert literal(name, into, out).text() == text


@pytest.mark.parametrize(("name", "into", "out", "text"), FIXED)
def test_labels_that_are_the_same_in_every_prompt_are_drawn_as_the_paper_writes_them(name, into, out, text):
    batch = sample(name, 200, 3, seed=0)
    assert text in [batch.text(row) for row in range(len(batch))]


def test_every_format_has_a_literal_example():
    assert {parse_format(name).name for name, *_ in LITERAL} == {parse_format(name).name for name in PARITY}


@given(st.lists(st.integers(0, 1), min_size=1, max_size=40))
@settings(deadline=None, max_examples=30)
def test_running_parities_count_ones(bits):
    parities = ParityContent(torch.tensor([bits])).parities[0].tolist()
    assert parities == [sum(bits[: i + 1]) % 2 for i in range(len(bits))]


@pytest.mark.parametrize("name", PARITY)
@pytest.mark.parametrize("length", [1, 2, 9])
def test_read_undoes_write(name, length):
    fmt = parse_format(name)
    content = draw(fmt, DEFAULT, 8, length, generator(3))
    back = read(write(content, fmt, DEFAULT))
    for field in ("bits", "input_labels", "output_labels"):
        before, after = getattr(content, field), getattr(back, field)
        assert (before is None) == (after is None)
        assert before is None or torch.equal(before, after)


def test_read_does_not_look_at_the_outputs():
    batch = sample("parity-aligned", 4, 5, seed=0)
    tokens = batch.tokens.clone()
    tokens[:, batch.at(Role.OUTPUT)] = DEFAULT["0"]
    assert torch.equal(read(batch.with_tokens(tokens)).bits, read(batch).bits)


def test_read_refuses_an_input_that_is_no_bit():
    batch = sample("parity-aligned", 4, 5, seed=0)
    tokens = batch.tokens.clone()
    tokens[2, batch.at(Role.INPUT, 3)] = DEFAULT["_"]
    with pytest.raises(AssertionError, match="no bit"):
        read(batch.with_tokens(tokens))


@pytest.mark.parametrize("name", PARITY)
def test_bits_are_fair_and_independent(name):
    bits = draw(parse_format(name), DEFAULT, 4000, 6, generator(0)).bits.double()
    assert (bits.mean(dim=0) - 0.5).abs().max() < 0.03
    assert (torch.corrcoef(bits.T) - torch.eye(6)).abs().max() < 0.06
