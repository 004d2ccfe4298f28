"""Does each symbol have one token, of the house tokenizer and of any other?"""

import json
from itertools import islice, product

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from interp.tasks import (
    Role,
    Vocabulary,
    default_tokenizer,
    default_vocabulary,
    fit_vocabulary,
    parse_format,
    sample,
)
from tests.interp.tasks import oracle
from tests.interp.tasks.test_formats import FORMATS, SHORT

HOUSE = default_vocabulary()
LABELLED = [name for name in FORMATS if parse_format(name).labels == "pool"]
WORDS = tuple("".join(x) for x in product("bdfgklmnprst", "aeiou", "bdfgklmnprst"))
PUNCTUATION = tuple("!\"$%&'()*,-./:;<=>?@")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")


def tokenizer_of(words, model="wordlevel", special=("<unk>",)):
    """A real fast tokenizer with these tokens, in this order."""
    ids = {word: i for i, word in enumerate(dict.fromkeys((*special, *words)))}
    if model == "bpe":
        tokens = Tokenizer(BPE(ids, [], unk_token="<unk>"))
        tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokens.decoder = decoders.ByteLevel()
    else:
        tokens = Tokenizer(WordLevel(ids, unk_token="<unk>"))
        tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>")


def byte_level_words():
    """As GPT-2: punctuation, digits and letters bare, words with and without a space mark, some symbols."""
    bare = [*PUNCTUATION, *"0123456789", *LETTERS, *(x.upper() for x in LETTERS)]
    marked = ["Ġ" + w for w in WORDS[:150]]
    return [*bare, "é", "Ġ", *marked, "Ġ===", "Ġ>>>", "===", "##", "Ġ+", "ĠM7", *WORDS[100:400], "Ġ10", "11", "Ð¿"]


FOREIGN = {
    "some symbols": tokenizer_of(
        [
            *[">>>", "===", "0", "1", "[0]", "a", "+", "3", "M4", "M17", "#", "c2", "c5"],
            *PUNCTUATION,
            *LETTERS,
            *WORDS[:300],
        ]
    ),
    "byte level": tokenizer_of(byte_level_words(), "bpe"),
    "no digits": tokenizer_of([*PUNCTUATION, *LETTERS, *WORDS[300:600]]),
    "words alone": tokenizer_of(WORDS, special=("<unk>", "<s>")),
}
FITS = [(kind, name) for kind in FOREIGN for name in FORMATS]


def text_of(tokenizer, token) -> str:
    return tokenizer.convert_ids_to_tokens(token)


@pytest.mark.parametrize(("name", "length"), SHORT)
def test_the_house_tokenizer_and_the_prompt_agree_both_ways(name, length):
    tokenizer, batch = default_tokenizer(), sample(name, 4, length, seed=0)
    for row in range(len(batch)):
        assert tokenizer.encode(batch.text(row)) == batch.tokens[row].tolist()
        assert tokenizer.decode(batch.tokens[row]) == batch.text(row)


def test_every_symbol_of_the_house_survives_its_tokenizer():
    tokenizer = default_tokenizer()
    assert tokenizer.get_vocab() == HOUSE.ids
    assert len(tokenizer) == len(HOUSE.ids)
    for symbol, token in HOUSE.ids.items():
        assert tokenizer.encode(symbol) == [token]
        assert tokenizer.decode([token]) == HOUSE.symbol(token) == symbol


def test_unknown_words_and_special_tokens_of_the_house():
    tokenizer = default_tokenizer()
    assert tokenizer.encode("Mxyz") == [tokenizer.unk_token_id]
    special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert special == (0, 1, 2, 3)


def test_the_house_tokenizer_survives_saving(tmp_path):
    before, batch = default_tokenizer(), sample("addition-zeropad", 1, (5, 2), seed=0)
    before.save_pretrained(tmp_path)
    for after in (PreTrainedTokenizerFast.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert after.get_vocab() == before.get_vocab()
        assert after.special_tokens_map == before.special_tokens_map
        assert after.encode(batch.text()) == batch.tokens[0].tolist()
        assert after.decode(batch.tokens[0]) == batch.text()


def test_the_house_has_enough_labels_and_holds_some_out():
    assert len(set(HOUSE.ids.values())) == len(HOUSE.ids)
    assert sorted(HOUSE.ids.values()) == list(range(len(HOUSE.ids)))
    assert len(HOUSE.labels) >= 2 * 60
    assert len(HOUSE.held_out) >= 60
    assert not set(HOUSE.labels) & set(HOUSE.held_out)
    assert HOUSE.pool.tolist() == [HOUSE.ids[x] for x in HOUSE.labels]
    assert HOUSE.held_out_pool.tolist() == [HOUSE.ids[x] for x in HOUSE.held_out]
    assert {*HOUSE.labels} == {f"M{i}" for i in oracle.POOL}
    assert {*HOUSE.held_out} == {f"M{i}" for i in oracle.HELD_OUT}


@pytest.mark.parametrize("name", FORMATS)
def test_the_house_has_every_symbol_of_every_format(name):
    fmt = parse_format(name)
    for symbol in (*fmt.structure, *fmt.inputs, *fmt.outputs, *fmt.fixed_labels(60)):
        assert HOUSE[symbol] == HOUSE.ids[symbol]


def test_mistakes_in_a_vocabulary_are_refused():
    with pytest.raises(ValueError, match="symbols '0' and '1' share token id 4"):
        Vocabulary({"0": 4, "1": 4}, ())
    with pytest.raises(ValueError, match="labels without a token: M1, M2"):
        Vocabulary({"0": 4}, ("M1",), ("M2",))
    with pytest.raises(ValueError, match="no symbol 'zzz'"):
        HOUSE["zzz"]
    with pytest.raises(ValueError, match="no symbol 'zzz'"):
        HOUSE.tokens(["0", "zzz"])
    for bad in (-1, "3", 2.0, None):
        with pytest.raises(ValueError, match="must be integers from 0"):
            Vocabulary.from_json({"ids": {"0": bad}, "labels": [], "held_out": []})


def test_symbols_and_tokens_are_inverse():
    assert HOUSE.tokens(["M3", "0", "M3"]).tolist() == [HOUSE.ids["M3"], HOUSE.ids["0"], HOUSE.ids["M3"]]
    assert HOUSE.tokens([]).dtype == torch.long
    assert HOUSE.symbol(10**6) == "<1000000>"


def same(a: Vocabulary, b: Vocabulary) -> bool:
    return (a.ids, a.labels, a.held_out) == (b.ids, b.labels, b.held_out)


@pytest.mark.parametrize(("kind", "name"), FITS)
def test_a_fitted_vocabulary_has_every_symbol_once_and_no_special_token(kind, name):
    tokenizer, fmt = FOREIGN[kind], parse_format(name)
    fitted = fit_vocabulary(tokenizer, fmt)
    needed = {*fmt.structure, *fmt.inputs, *fmt.outputs, *fmt.fixed_labels(64)}
    assert set(fitted.ids) == needed | set(fitted.labels) | set(fitted.held_out)
    assert len(set(fitted.ids.values())) == len(fitted.ids)
    assert not set(fitted.ids.values()) & set(tokenizer.all_special_ids)
    assert all(0 <= token < len(tokenizer) for token in fitted.ids.values())


@pytest.mark.parametrize(("kind", "name"), FITS)
def test_a_symbol_that_is_a_token_by_name_keeps_it(kind, name):
    tokenizer = FOREIGN[kind]
    fitted, known = fit_vocabulary(tokenizer, parse_format(name)), tokenizer.get_vocab()
    for symbol, token in fitted.ids.items():
        if symbol in known:
            assert token == known[symbol]
        elif "Ġ" + symbol in known:
            assert token == known["Ġ" + symbol]


@pytest.mark.parametrize(("kind", "name"), FITS)
def test_what_stands_for_a_symbol_is_of_its_kind(kind, name):
    tokenizer, fmt = FOREIGN[kind], parse_format(name)
    fitted = fit_vocabulary(tokenizer, fmt)
    for symbol, token in fitted.ids.items():
        text = text_of(tokenizer, token).lstrip("Ġ")
        if text == symbol:
            continue
        assert text.isascii(), (symbol, text)
        is_label = symbol in (*fitted.labels, *fitted.held_out, *fmt.fixed_labels(64))
        if is_label:
            assert text.isalpha(), (symbol, text)
        elif symbol in fmt.structure and kind != "words alone":
            assert not any(c.isalnum() for c in text), (symbol, text)
        elif kind != "words alone":
            assert text.isalpha(), (symbol, text)
            assert len(text) == 1, (symbol, text)


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("kind", FOREIGN)
def test_two_thirds_of_the_labels_are_the_pool_and_the_rest_are_held_out(kind, name):
    fitted = fit_vocabulary(FOREIGN[kind], parse_format(name))
    assert (len(fitted.labels), len(fitted.held_out)) == (128, 64)
    assert not set(fitted.labels) & set(fitted.held_out)
    assert not set(fitted.pool.tolist()) & set(fitted.held_out_pool.tolist())


@pytest.mark.parametrize(("kind", "name"), FITS)
def test_a_fitted_vocabulary_is_deterministic_and_survives_json(kind, name):
    tokenizer, fmt = FOREIGN[kind], parse_format(name)
    fitted = fit_vocabulary(tokenizer, fmt)
    assert same(fit_vocabulary(tokenizer, fmt), fitted)
    assert same(Vocabulary.from_json(json.loads(json.dumps(fitted.to_json()))), fitted)


@pytest.mark.parametrize(("kind", "name"), FITS)
def test_prompts_of_a_fitted_vocabulary_pass_the_oracle(kind, name):
    fitted = fit_vocabulary(FOREIGN[kind], parse_format(name))
    for length in ((4, 2), (1, 3)) if name.startswith("addition") else (1, 6, 40):
        batch = sample(name, 3, length, seed=0, vocabulary=fitted)
        assert batch.tokens.max() < len(FOREIGN[kind])
        for row in range(len(batch)):
            assert oracle.complaints(batch.text(row), name) == []


def test_the_house_tokenizer_is_fitted_by_its_names():
    for name in FORMATS:
        fitted = fit_vocabulary(default_tokenizer(), parse_format(name))
        assert all(HOUSE.ids[symbol] == token for symbol, token in fitted.ids.items())
        if parse_format(name).labels == "pool":
            assert (fitted.labels, fitted.held_out) == (HOUSE.labels, HOUSE.held_out)


def test_some_fits_in_full():
    words = ["x", "===", ",", ".", "Ġ0", "foo", "bar", "foo?", "ĠFoo", "baz", "bäh", "M2", "7"]  # ids from 1
    fitted = fit_vocabulary(tokenizer_of(words), parse_format("parity-gap1"))
    assert fitted.ids == {"===": 2, "0": 5, ">>>": 3, "_": 4, "1": 1, "M1": 6, "M2": 12, "M3": 7, "M4": 10}
    assert (fitted.labels, fitted.held_out) == (("M1", "M2", "M3"), ("M4",))


def test_a_bare_token_goes_before_a_marked_one():
    fitted = fit_vocabulary(tokenizer_of(["Ġ0", "▁1", "0", ">>>", "==="]), parse_format("parity-scratchpad"))
    assert (fitted.ids["0"], fitted.ids["1"]) == (3, 2)


TINY = [
    ("parity-aligned", [">>>", "===", "0", "1", "foo", "bar"], "needs single-token words for labels.* has 2"),
    ("parity-aligned", [">>>", "===", "0", "1", "Ġfoo", "foo", "Foo", "bar"], "has 2"),
    ("parity-scratchpad", [">>>", "===", "0"], "no single token left for '1' of parity-scratchpad"),
    ("parity-scratchpad", ["===", "0", "1"], "no single token left for '>>>'"),
    ("parity-numeric", [">>>", "===", "a", "b", *WORDS[:63]], "no single token left for '64' of parity-numeric"),
    ("addition-none", [">>>", "===", "###", "+", *"012345678"], "no single token left for '9'"),
    ("parity-scratchpad", [">>>", "===", "0", "é", "12"], "no single token left for '1'"),
]


@pytest.mark.parametrize(("name", "words", "message"), TINY)
def test_a_tokenizer_with_too_few_tokens_is_refused(name, words, message):
    with pytest.raises(ValueError, match=message):
        fit_vocabulary(tokenizer_of(words), parse_format(name))


def test_fewer_words_than_the_pool_make_a_smaller_pool_that_sampling_respects():
    tokenizer = tokenizer_of([">>>", "===", "0", "1", *islice(WORDS, 30)])
    fitted = fit_vocabulary(tokenizer, parse_format("parity-aligned"))
    assert (len(fitted.labels), len(fitted.held_out)) == (20, 10)
    assert sample("parity-aligned", 50, 20, seed=0, vocabulary=fitted).at(Role.INPUT_LABEL, 20).tolist() == [39]
    with pytest.raises(ValueError, match="needs 21 different labels in a prompt; the vocabulary has 20"):
        sample("parity-aligned", 1, 21, seed=0, vocabulary=fitted)


def test_a_vocabulary_fitted_to_another_format_is_refused():
    fitted = fit_vocabulary(FOREIGN["some symbols"], parse_format("parity-scratchpad"))
    with pytest.raises(ValueError, match=r"no symbol '2'; it was fitted to another format"):
        sample("addition-none", 1, 3, seed=0, vocabulary=fitted)


def test_fixed_labels_are_fitted_to_the_longest_length_asked_for():
    fitted = fit_vocabulary(FOREIGN["words alone"], parse_format("parity-numeric"), longest=5)
    assert sample("parity-numeric", 1, 5, seed=0, vocabulary=fitted).length == 5
    with pytest.raises(ValueError, match="needs the label '6', which the vocabulary lacks"):
        sample("parity-numeric", 1, 6, seed=0, vocabulary=fitted)


STRUCTURE = (">>>", "===", "0", "1")


def named(count, first=1):
    return [f"M{i}" for i in range(first, first + count)]


def test_labels_by_name_are_taken_alone_where_there_are_enough():
    """Other words would mean nothing to a model that was trained on these."""
    words = list(WORDS[:300])
    for count in (64, 128, 150, 192):
        fitted = fit_vocabulary(tokenizer_of([*STRUCTURE, *words, *named(count)]), parse_format("parity-aligned"))
        assert fitted.labels == tuple(named(min(count, 128)))
        assert fitted.held_out == tuple(named(count)[128:])
        assert set(fitted.ids) == {*STRUCTURE, *named(count)}
        assert fitted.ids["M1"] == len(STRUCTURE) + 300 + 1


def test_the_rule_goes_by_the_length_that_is_asked_for():
    """A large tokenizer that happens to know ten such names: enough for 10 bits, filled up with words for more."""
    words = [*WORDS, *(f"{a}{b}" for a, b in product(WORDS, "bdfgkl"))]
    large = tokenizer_of([*STRUCTURE, *words, *named(10)])
    assert len(large) > 4096
    own = fit_vocabulary(large, parse_format("parity-aligned"), longest=10)
    assert own.labels == tuple(named(10))
    for longest in (11, 64):
        filled = fit_vocabulary(large, parse_format("parity-aligned"), longest=longest)
        assert (len(filled.labels), len(filled.held_out)) == (128, 64)
        assert filled.ids["M1"] == large.get_vocab()["M1"]
        assert text_of(large, filled.ids["M11"]) in WORDS
    # Non-aligned parity takes two labels a bit.
    assert len(fit_vocabulary(large, parse_format("parity-nonaligned"), longest=10).labels) == 128
    assert len(fit_vocabulary(large, parse_format("parity-nonaligned"), longest=5).labels) == 10


@pytest.mark.parametrize(("count", "own"), [(2, False), (3, True), (20, True)])
def test_a_small_tokenizer_has_no_labels_but_its_own(count, own):
    """Made for such a task, with fewer labels than the longest length takes; with fewer than three, words help out."""
    names = named(count, first=7)
    fitted = fit_vocabulary(tokenizer_of([*STRUCTURE, *WORDS[:60], *names]), parse_format("parity-gap1"))
    assert (set(fitted.labels + fitted.held_out) == set(names)) == own
    if own:
        assert (fitted.labels, fitted.held_out) == (tuple(names), ())
        length = count
        assert sample("parity-gap1", 4, length, seed=0, vocabulary=fitted).length == length
        with pytest.raises(ValueError, match=f"the vocabulary has {count}"):
            sample("parity-gap1", 1, count + 1, seed=0, vocabulary=fitted)
    else:
        assert {"M7", "M8"} < set(fitted.ids)
        assert len(fitted.labels) + len(fitted.held_out) > 40


def test_labels_by_name_come_in_the_order_of_their_numbers_marked_or_not():
    words = [*STRUCTURE, "M3", "ĠM1", "M10", "M2", "M2x", "M0", "M193", "ĠM3"]
    fitted = fit_vocabulary(tokenizer_of(words), parse_format("parity-aligned"))
    assert fitted.labels == ("M1", "M2", "M3", "M10")
    assert [fitted.ids[m] for m in fitted.labels] == [6, 8, 5, 7]  # a bare token goes before a marked one
