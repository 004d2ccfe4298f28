"""A template records the exact token positions of its placeholders."""

import pytest
import torch

from interp.tasks import Prompts, prompts, template
from tests.interp.tasks.test_fitting import tokenizer_of
from tests.interp.tasks.tokenizers import byte_level, sentence_piece

TEXT = "When {a} and {b} went to the {place}, {b} gave a drink to"
ROWS = [{"a": "Mary", "b": "John", "place": "store"}, {"a": "Ann", "b": "Jim", "place": "school"}]
LONG = {"a": "Mary", "b": "Zebra", "place": "store"}


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_spans_hold_the_words_that_were_filled_in(make, adds_bos):
    tokenizer = make(adds_bos=adds_bos)
    filled = template(TEXT, ROWS, tokenizer)
    assert torch.equal(filled.tokens, prompts(tokenizer, [TEXT.format(**row) for row in ROWS]).tokens)
    assert set(filled.spans) == {"a", "b", "b.0", "b.1", "place"}
    assert filled.spans["b"] == filled.spans["b.0"] + filled.spans["b.1"]
    for row, values in enumerate(ROWS):
        words = filled.symbols(row)
        for name in ("a", "b.0", "b.1", "place"):
            assert (
                "".join(words[pos] for pos in filled.at(name).tolist()).strip()
                == values[name[0] if name != "place" else name]
            )
    assert filled.bos == adds_bos
    assert [filled.name(pos) for pos in filled.spans["b"]] == ["b.0", "b.1"]


def test_a_word_of_several_tokens_has_them_all():
    tokenizer = byte_level()
    filled = template(TEXT, [LONG], tokenizer)
    word = "".join(filled.symbols(0)[pos] for pos in filled.spans["b.1"])
    assert (word.strip(), len(filled.spans["b"])) == ("Zebra", 2 * len(filled.spans["b.0"]))
    assert len(filled.spans["b.0"]) > 1


def test_rows_of_other_lengths_are_refused_with_a_table_or_grouped():
    tokenizer = byte_level()
    with pytest.raises(ValueError, match="same number of tokens in every row; use group=True") as error:
        template(TEXT, [*ROWS, LONG], tokenizer)
    table = [[cell.strip() for cell in line.split("|")] for line in str(error.value).splitlines()[1:]]
    assert table[0] == ["row", "a", "b", "place", "tokens"]
    assert table[1][:2] == ["0", "' Mary'"]
    assert table[2][0] == "2"
    groups = template(TEXT, [ROWS[0], LONG, ROWS[1]], tokenizer, group=True)
    assert [len(group) for group in groups] == [2, 1]
    assert all(isinstance(group, Prompts) for group in groups)
    assert torch.equal(groups[0].tokens, template(TEXT, ROWS, tokenizer).tokens)


def test_equal_lengths_with_spans_elsewhere_are_not_one_layout():
    """Both rows have as many tokens, but the second name begins later in one: positions would be mixed up."""
    tokenizer = byte_level()
    rows = [{"a": "Mary", "b": "Zebra"}, {"a": "Zebra", "b": "Mary"}]
    assert len({len(tokenizer("The {a} and {b}".format(**row)).input_ids) for row in rows}) == 1
    assert len(template("The {a} and {b}", rows, tokenizer, group=True)) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: template(TEXT, ROWS), r"text needs a tokenizer"),
        (lambda: template("no placeholder", ROWS, byte_level()), r"no placeholder such as \{a\}"),
        (lambda: template("{a", ROWS, byte_level()), r"is not a template"),
        (lambda: template("{} x", ROWS, byte_level()), r"must be a plain name"),
        (lambda: template("{a:>3}", [{"a": "x"}], byte_level()), r"must be a plain name"),
        (lambda: template(TEXT, [{"a": "Mary"}], byte_level()), r"row 0 must have the placeholders a, b, place; got a"),
        (lambda: template("{a}", [{"a": " "}], byte_level()), r"a of row 0 must be text"),
        (lambda: template("{a}", {"a": "x"}, byte_level()), r"rows must be a list"),  # type: ignore[arg-type]
        (lambda: template("{a}", iter([{"a": "x"}]), byte_level()), r"rows must be a list .*; got list_iterator"),  # type: ignore[arg-type]
        (lambda: template("{a}", None, byte_level()), r"rows must be a list .*; got NoneType"),  # type: ignore[arg-type]
        (lambda: template("{a}", [], byte_level()), r"^rows is empty; give one dictionary per prompt$"),
        (lambda: template("{a}", (), byte_level(), group=True), r"^rows is empty"),
        (lambda: template("Mar{a} gave", [{"a": "y"}], byte_level()), r"the token 'Mary' of row 0 covers 'a' and text"),
    ],
)
def test_mistakes_are_one_line_each(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_slow_tokenizer_is_refused_with_the_reason(monkeypatch):
    tokenizer = tokenizer_of(["a", "b"])
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda self: False))
    with pytest.raises(ValueError, match="spans need a fast tokenizer, which maps tokens to characters"):
        template("{a} b", [{"a": "a"}], tokenizer)
