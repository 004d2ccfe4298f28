"""Prompts give the positions of roles and spans, and a name for each position."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from interp.tasks import Batch, Pair, Prompts, Role, default_vocabulary, sample
from interp.tasks.inputs import token_text
from tests.interp.tasks.tokenizers import byte_level, sentence_piece

TOKENS = torch.tensor([[5, 6, 7], [5, 8, 7]])


def test_names_follow_the_tokens_the_spans_or_the_positions():
    tokenizer = byte_level()
    rows = torch.tensor([tokenizer(text).input_ids for text in ("Mary gave a book", "Mary gave a drink")])
    assert Prompts(rows, tokenizer=tokenizer).names == ("Mary", " gave", " a", "pos 3")
    assert Prompts(rows, tokenizer=tokenizer, spans={"gift": (3,)}).names == ("Mary", " gave", " a", "gift")
    assert Prompts(rows).names == ("pos 0", "pos 1", "pos 2", "pos 3")
    assert Prompts(rows[:1], tokenizer=tokenizer).names == ("Mary", " gave", " a", " book")
    assert Prompts(rows, names=("w", "x", "y", "z")).name(-1) == "z"


def test_names_follow_other_tokens_unless_they_were_given():
    tokenizer = byte_level()
    clean, other = (torch.tensor([tokenizer(text).input_ids]) for text in ("Mary gave", "John gave"))
    assert Prompts(clean, tokenizer=tokenizer).with_tokens(other).names == ("John", " gave")
    assert Prompts(clean, tokenizer=tokenizer, names=("who", "what")).with_tokens(other).names == ("who", "what")


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_joined_token_texts_are_the_text(make):
    """Tokens keep their leading space, whose loss is the usual mistake: decoding ids one by one drops it."""
    tokenizer, text = make(), "Mary gave a drink to Alexandra"
    ids = tokenizer(text).input_ids
    assert "".join(token_text(tokenizer, i) for i in ids).removeprefix(" ") == text
    assert Prompts(torch.tensor([ids]), tokenizer=tokenizer).text().removeprefix(" ") == text
    if make is sentence_piece:
        assert "".join(tokenizer.decode([i]) for i in ids) != text  # the "before" half
    assert token_text(tokenizer, 10**6) == f"<{10**6}>"


def test_positions_of_spans_and_roles():
    spans = Prompts(TOKENS, spans={"b": (2, 0), "c": ()})
    assert spans.at("b").tolist() == [2, 0]
    assert spans.at("c").tolist() == []
    roles = Prompts(TOKENS, role=torch.tensor([0, 2, 2]), step=torch.tensor([-1, 1, 2]))
    assert roles.at(Role.INPUT).tolist() == [1, 2]
    assert roles.at(Role.INPUT, 2).tolist() == [2]
    assert roles.names == ("start", "input 1", "input 2")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prompts(TOKENS.float()), r"^tokens must be a tensor of integers; got torch.float32$"),
        (lambda: Prompts(TOKENS.bool()), r"^tokens must be a tensor of integers; got torch.bool$"),
        (lambda: Prompts(np.zeros((2, 3), int)), r"^tokens must be a tensor of integers; got ndarray$"),  # type: ignore[arg-type]
        (lambda: Prompts(TOKENS[0]), r"^tokens must be \[batch pos\] with at least one position; got \(3,\)$"),
        (lambda: Prompts(TOKENS[:, :0]), r"at least one position; got \(2, 0\)"),
        (lambda: Prompts(TOKENS, names=("a", "b")), r"names must be 3 strings, one per position; got 2"),
        (lambda: Prompts(TOKENS, names=("a", "b", 3)), r"names must be 3 strings"),  # type: ignore[arg-type]
        (lambda: Prompts(TOKENS, spans={"b": (3,)}), r"^span 'b' has position 3; positions run from 0 to 2$"),
        (lambda: Prompts(TOKENS, spans={"b": (-1,)}), r"span 'b' has position -1"),
        (lambda: Prompts(TOKENS, spans={"b": (True,)}), r"span 'b' has position True"),
        (lambda: Prompts(TOKENS, role=torch.zeros(2, dtype=torch.long)), r"role must be \[pos\] = \[3\]; got \(2,\)"),
        (lambda: Prompts(TOKENS, role=torch.full((3,), 99)), r"role must hold values of Role, from 0 to 9"),
        (lambda: Prompts(TOKENS).at("b"), r"^no span 'b'; there are no spans; template\(...\) makes them$"),
        (lambda: Prompts(TOKENS, spans={"a": (0,)}).at("b"), r"^no span 'b'; spans are a$"),
        (lambda: Prompts(TOKENS, spans={"a": (0,)}).at("a", 1), r"a span has no steps"),
        (
            lambda: Prompts(TOKENS).at(Role.INPUT),
            r"^these prompts have no roles; there are no spans; template\(...\) makes them$",
        ),
        (lambda: Prompts(TOKENS).name(3), r"^position 3 is outside 0 to 2$"),
        (lambda: Pair(Prompts(TOKENS), Prompts(TOKENS[:1])), r"must have one shape; got \(2, 3\) and \(1, 3\)"),
    ],
)
def test_mistakes_are_one_line_each(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_batch_is_prompts_with_names_from_its_roles():
    batch = sample("parity-aligned", 3, 2, seed=0)
    assert isinstance(batch, Prompts)
    assert batch.names == tuple(batch.name(pos) for pos in range(batch.n_pos))
    assert (batch.bos, dict(batch.spans)) == (False, {})
    plain = Prompts(batch.tokens, role=batch.role, step=batch.step)
    for role in (Role.INPUT, Role.OUTPUT_LABEL):
        assert torch.equal(plain.at(role), batch.at(role))
    assert isinstance(batch.rows(slice(1)), Batch)


def test_prompts_are_frozen_and_can_be_copied():
    prompts = Prompts(TOKENS, spans={"b": (1,)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompts.bos = True  # type: ignore[misc]
    for copied in (copy.deepcopy(prompts), pickle.loads(pickle.dumps(prompts))):
        assert torch.equal(copied.tokens, prompts.tokens)
        assert (copied.names, copied.spans) == (prompts.names, prompts.spans)
    assert repr(prompts) == "Prompts(2 x 3 tokens of text)"
    assert repr(sample("parity-aligned", 2, 3, 0)) == "Batch(2 x 14 tokens of parity-aligned)"


def test_symbols_without_a_tokenizer_are_ids():
    assert Prompts(TOKENS).symbols(1) == ["<5>", "<8>", "<7>"]
    assert sample("parity-scratchpad", 1, 1, 0).symbol(default_vocabulary()["==="]) == "==="


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_tokens_of_any_integer_type_are_read(dtype):
    assert Prompts(torch.tensor([[1, 2, 3]], dtype=dtype)).tokens.dtype == torch.int64
