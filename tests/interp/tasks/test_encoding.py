"""Text that no tokenizer can read is refused in one line, wherever it is given."""

import pytest

from interp.tasks import prompts, template
from interp.tasks.encoding import answer_id, spaced_answer
from tests.interp.tasks.tokenizers import byte_level, sentence_piece
from tests.small_language_model import word_tokenizer

# What Python makes of the byte b"\\xe9", which is not UTF-8, on a command line or in a file name.
HALF = "\udce9"


@pytest.mark.parametrize("tokenizer", [byte_level(), sentence_piece()], ids=["byte level", "SentencePiece"])
@pytest.mark.parametrize(
    "make",
    [
        lambda own: prompts(own, f"Mary caf{HALF}"),
        lambda own: prompts(own, ["Mary gave", f"Mary {HALF}"]),
        lambda own: prompts(own, "Mary gave", f"Mary {HALF}"),
        lambda own: answer_id(own, f" caf{HALF}"),
        lambda own: template("{a} gave", [{"a": f"caf{HALF}"}], own),
        lambda own: template(f"{HALF} {{a}} gave", [{"a": "Mary"}], own),
    ],
)
def test_text_with_half_of_a_surrogate_pair(make, tokenizer):
    with pytest.raises(ValueError, match=r"'.*\\udce9.*' is not UTF-8 text: it has half of a surrogate pair") as error:
        make(tokenizer)
    assert "\n" not in str(error.value)


WORDS = word_tokenizer(("Mary Mary 5 5 . .", "\nMary\n5\n."))  # each is a token with and without a space before it


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("the name is", "Mary", " Mary"),
        ("Answer:", "Mary", " Mary"),
        ("she said (softly)", "Mary", " Mary"),
        ("there are", "5", " 5"),
        ("the name is", " Mary", None),
        ("the name is ", "Mary", None),  # the space is there
        ("Names\n", "Mary", None),
        ("the name is (", "Mary", None),  # no space follows
        ('the name is "', "Mary", None),
        ("the name is", ".", None),  # no space precedes
        ("the name is", "Zebra", None),  # not one token
        ("", "Mary", None),
        ("the name is", "", None),
    ],
)
def test_an_answer_lacks_the_space_with_which_the_text_goes_on(text, answer, expected):
    assert spaced_answer(WORDS, text, answer) == expected


def test_the_space_of_sentencepiece_is_no_other_token():
    """It puts a space of its own before each text, so both forms are the same token."""
    assert answer_id(sentence_piece(), "Mary") == answer_id(sentence_piece(), " Mary")
    assert spaced_answer(sentence_piece(), "the name is", "Mary") is None
    assert spaced_answer(None, "the name is", "Mary") is None  # the metric names the missing tokenizer
