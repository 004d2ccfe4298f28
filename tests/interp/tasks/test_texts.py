"""Text becomes the tokens that the tokenizer gives, start token included."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.arguments import prompts_of
from interp.models import ModelConfig, build_model, load
from interp.tasks import Pair, answer_id, default_tokenizer, prompts
from tests.interp.tasks.tokenizers import byte_level, sentence_piece
from tests.small_language_model import word_tokenizer

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"


def test_a_pair_of_prompts_has_the_tokenizer_s_tokens():
    tokenizer = byte_level()
    pair = prompts(tokenizer, [CLEAN], [CORRUPTED])
    assert isinstance(pair, Pair)
    for side, text in ((pair.clean, CLEAN), (pair.corrupted, CORRUPTED)):
        assert side.tokens.tolist() == [tokenizer(text).input_ids]
        assert side.text() == text
        assert side.names == tuple(side.symbols())
    differ = (pair.clean.tokens != pair.corrupted.tokens)[0].nonzero().flatten().tolist()
    assert [pair.clean.name(pos) for pos in differ] == [" John"]


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_the_start_token_is_what_the_tokenizer_adds(make):
    """The same text, with and without a start token: one more position, all others the same."""
    adding, silent = make(adds_bos=True), make()
    started, plain = prompts(adding, CLEAN), prompts(silent, CLEAN)
    assert (started.bos, plain.bos) == (True, False)
    assert started.tokens[0].tolist() == adding(CLEAN).input_ids
    assert started.tokens[:, 1:].tolist() == plain.tokens.tolist()
    assert (started.name(0), started.names[1:]) == ("<s>", plain.names)
    assert prompts(adding, CLEAN, bos=False).tokens.tolist() == plain.tokens.tolist()
    for tokenizer in (adding, silent):
        assert prompts(tokenizer, CLEAN, bos=True).tokens.tolist() == started.tokens.tolist()


def test_a_source_is_anything_with_a_tokenizer():
    tokenizer, tokens = byte_level(adds_bos=True), prompts(byte_level(adds_bos=True), CLEAN).tokens
    run = SimpleNamespace(tokenizer=tokenizer)
    assert torch.equal(prompts(run, CLEAN).tokens, tokens)
    assert torch.equal(prompts(None, CLEAN, tokenizer=tokenizer).tokens, tokens)
    without = SimpleNamespace(tokenizer=tokenizer, bos=False)  # load(..., bos=False)
    assert torch.equal(prompts(without, CLEAN).tokens, tokens[:, 1:])
    assert torch.equal(prompts(without, CLEAN, bos=True).tokens, tokens)


def test_token_ids_are_used_as_they_are():
    ids = torch.tensor(byte_level()(CLEAN).input_ids)
    assert torch.equal(prompts(None, ids).tokens, ids[None])
    assert torch.equal(prompts(byte_level(), ids[None]).tokens, ids[None])
    assert prompts(byte_level(), ids).names == prompts(byte_level(), CLEAN).names
    assert prompts(None, ids).bos is None
    assert isinstance(prompts(None, ids, ids.flip(0)), Pair)


def test_a_pair_of_the_same_tokens_is_warned_of():
    with pytest.warns(UserWarning, match="clean and corrupted have the same tokens, so that no patch changes anything"):
        prompts(byte_level(), [CLEAN, CLEAN], [CLEAN, CLEAN])


def test_prompts_of_another_tokenizer_are_refused():
    model = build_model(ModelConfig("rotary", 1, 16, 2), len(default_tokenizer()), seed=0)
    run = load(model, tokenizer=default_tokenizer())
    assert len(prompts_of(run, prompts(default_tokenizer(), "M1 0"))) == 1  # another object with the same tokens
    with pytest.raises(ValueError, match="clean are of another tokenizer than the model's"):
        prompts_of(run, prompts(byte_level(), CLEAN), "clean")


def test_words_that_the_tokenizer_does_not_know_are_warned_of():
    with pytest.warns(UserWarning, match="does not know words of 'A zorb': 'A', 'zorb'; it reads <unk>"):
        found = prompts(default_tokenizer(), "A zorb")
    assert found.tokens.tolist() == [[default_tokenizer().unk_token_id] * 2]
    prompts(default_tokenizer(), "<unk> M1")  # asked for


class Silent:
    """A run without a tokenizer."""

    @property
    def tokenizer(self) -> Any:
        raise ValueError("no tokenizer")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prompts(None, CLEAN), r"text needs a tokenizer and NoneType has none; pass tokenizer="),
        (lambda: prompts(Silent(), CLEAN), r"text needs a tokenizer: no tokenizer$"),
        (lambda: prompts(byte_level(), [CLEAN, CLEAN], [CORRUPTED]), r"clean has 2 prompts and corrupted 1"),
        (lambda: prompts(byte_level(), []), r"^there are no prompts$"),
        (lambda: prompts(byte_level(), CLEAN, []), r"^there are no prompts$"),
        (lambda: prompts(byte_level(), None), r"prompts must be text, a list of texts, or a tensor"),  # type: ignore[call-overload]
        (lambda: prompts(byte_level(), [1, 2]), r"prompts must be text"),  # type: ignore[list-item]
        (lambda: prompts(byte_level(), ""), r"'' has no tokens"),
        (lambda: prompts(byte_level(), torch.zeros(1, 2)), r"tokens must be a tensor of integers; got torch.float32"),
        (lambda: prompts(byte_level(), torch.tensor([-1, 2])), r"token id -1 is outside 0 to \d+"),
        (lambda: prompts(byte_level(), torch.tensor([10**6])), r"token id 1000000 is outside 0 to \d+"),
        (lambda: prompts(byte_level(), torch.zeros(1, 1, 1).long()), r"tokens must be \[batch pos\]"),
        (lambda: prompts(byte_level(), torch.zeros(0, 4).long()), r"there are no prompts"),
        (lambda: prompts(byte_level(), torch.tensor([1]), bos=True), r"bos applies to text"),
        (lambda: prompts(byte_level(), CLEAN, bos=1), r"bos must be 'auto', True or False; got 1"),  # type: ignore[call-overload]
        (lambda: prompts(byte_level(adds_bos=True), f"<s>{CLEAN}"), r"begins with '<s>', which the tokenizer adds"),
        (lambda: answer_id(byte_level(), " Zebra"), r"answer ' Zebra' is \d tokens: ' ', 'Z', .*; to use the first"),
        (lambda: answer_id(byte_level(), "Ann Mary"), r"answer 'Ann Mary' is \d tokens: .*; to use the first"),
        (
            lambda: answer_id(word_tokenizer(), "store"),
            r"answer 'store' is \d tokens: .*; with its leading space, ' store', it is",
        ),
        (lambda: answer_id(byte_level(), ""), r"an answer must be text"),
        (lambda: answer_id(sentence_piece(), "9"), r"answer '9'"),
    ],
)
def test_mistakes_are_one_line_each(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_different_token_counts_are_refused_with_the_tokens_side_by_side():
    tokenizer = byte_level()
    with pytest.raises(ValueError, match="same number of tokens; got 3 in clean 0, 8 in clean 1") as error:
        prompts(tokenizer, ["Mary gave Ann", "Mary gave Zebra"])
    lines = [[cell.strip() for cell in line.split("|")] for line in str(error.value).splitlines()[1:]]
    assert lines[0] == ["pos", "clean 0", "clean 1"]
    assert lines[1] == ["0", "'Mary'", "'Mary'"]
    assert lines[3][:2] == ["2", "' Ann'"]
    assert "they differ from here" in lines[3][-1]
    assert lines[-1] == ["count", "3", "8"]
    with pytest.raises(ValueError, match="corrupted 0"):
        prompts(tokenizer, "Mary gave", "Mary gave Ann")


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_an_answer_is_the_token_that_follows_in_text(make):
    """The id is that of the token which the tokenizer gives for the answer inside the sentence."""
    tokenizer = make()
    inside = tokenizer(f"{CLEAN} Mary").input_ids[-1]
    assert answer_id(tokenizer, " Mary") == inside
    assert answer_id(SimpleNamespace(tokenizer=tokenizer), " Mary") == inside
