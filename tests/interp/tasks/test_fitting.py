"""A vocabulary fitted to a foreign tokenizer has one token per symbol, of one kind, that reads unambiguously."""

import json
from itertools import islice, product

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from interp.tasks import (
    Role,
    Vocabulary,
    default_tokenizer,
    default_vocabulary,
    fit_vocabulary,
    parse_format,
    sample,
)
from interp.tasks.fitting import is_uniquely_decodable
from interp.tasks.inputs import token_text
from tests.interp.tasks import oracle
from tests.interp.tasks.test_formats import FORMATS

DEFAULT = default_vocabulary()
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
    marked = ["Ġ" + w for w in WORDS[:220]]
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


def kind_of(piece: str, symbol: str) -> tuple[str, bool]:
    """The kind of a token, and whether it has a leading space."""
    text, marked = piece.lstrip("Ġ"), piece.startswith("Ġ")
    if text == symbol:
        return "name", marked
    if not text.isalpha():
        return "punctuation", marked
    return ("letter" if len(text) == 1 else "word"), marked


@pytest.mark.parametrize(("kind", "name"), FITS)
def test_the_symbols_of_a_group_are_of_one_kind(kind, name):
    tokenizer, fmt = FOREIGN[kind], parse_format(name)
    fitted = fit_vocabulary(tokenizer, fmt)
    labels = (*fitted.labels, *fitted.held_out, *dict.fromkeys(fmt.fixed_labels(64)))
    for group in (fmt.inputs, fmt.outputs, labels):
        kinds = {kind_of(text_of(tokenizer, fitted.ids[symbol]), symbol) for symbol in group}
        assert len(kinds) == bool(group), kinds
        assert kinds <= {("name", True), ("name", False), ("letter", False), ("word", kind == "byte level")}, kinds
    for symbol in fmt.structure:
        allowed = {"name", "punctuation"} if kind != "words alone" else {"word"}
        assert kind_of(text_of(tokenizer, fitted.ids[symbol]), symbol)[0] in allowed


def joined(tokenizer, batch, row=0) -> str:
    return "".join(token_text(tokenizer, token) for token in batch.tokens[row].tolist())


@pytest.mark.parametrize("name", FORMATS)
def test_joined_tokens_of_a_byte_level_tokenizer_read_in_one_way(name):
    """The prompt is recovered from its text alone, by trying every split."""
    tokenizer, fmt = FOREIGN["byte level"], parse_format(name)
    fitted = fit_vocabulary(tokenizer, fmt)
    batch = sample(name, 1, 4, seed=0, vocabulary=fitted)
    texts = {token_text(tokenizer, token): token for token in fitted.ids.values()}
    text = joined(tokenizer, batch)
    splits: list[list[list[int]]] = [[[]], *([] for _ in text)]
    for end in range(1, len(text) + 1):
        for piece, token in texts.items():
            if text[:end].endswith(piece):
                splits[end] += [[*split, token] for split in splits[end - len(piece)]]
    assert splits[-1] == [batch.tokens[0].tolist()]


def large_byte_level(extra):
    """Of more than 4096 tokens, so that names do not count as a task's own."""
    words = ["Ġ" + w for w in (*WORDS, *(a + b for a, b in product(WORDS, "bdfgklm")))]
    bare = ["<unk>", ">>>", "===", *"0123456789", "_", *LETTERS, "M"]
    return tokenizer_of([*bare, *words, *extra], "bpe")


def test_labels_by_name_that_read_as_other_labels_are_not_used():
    """M9 followed by bit 0 reads as M90: without a leading space, such names must not be labels."""
    named = [f"M{i}" for i in range(1, 129)]
    assert not is_uniquely_decodable([*named, "0", "1"])  # the "before" half
    tokenizer = large_byte_level(named)
    fitted = fit_vocabulary(tokenizer, parse_format("parity-aligned"))
    text = joined(tokenizer, sample("parity-aligned", 1, 3, seed=0, vocabulary=fitted))
    assert "M" not in text
    assert text.count(" ") == 6
    # With a leading space before the bits as well as the labels, the names are read in one way.
    spaced = large_byte_level(["Ġ" + m for m in (*named, "0", "1")])
    own = fit_vocabulary(spaced, parse_format("parity-aligned"))
    assert text_of(spaced, own.ids["M9"]) == "ĠM9"
    assert joined(spaced, sample("parity-aligned", 1, 2, seed=0, vocabulary=own)).count(" M") == 4


@pytest.mark.parametrize(
    ("texts", "unique"),
    [
        (["a", "b"], True),
        (["a", "ab", "b"], False),
        (["0", "01", "10"], False),
        (["a", "ab", "bb"], True),
        (["M9", "M90", "0"], False),
        ([" M9", " M90", " 0"], True),
        (["x", "x"], False),
        (["", "x"], False),
    ],
)
def test_unique_decodability_by_known_codes(texts, unique):
    """Textbook codes. {a, ab, bb} is decodable though no code of prefixes."""
    assert is_uniquely_decodable(texts) == unique


def test_prefixes_of_words_are_not_labels_while_words_are_enough():
    """A byte-pair tokenizer's pieces, such as " diffe", have neither a capital form nor a plural."""
    whole = [w + "k" for w in WORDS[:300]]
    pieces = [w + "f" for w in WORDS[:300]]
    forms = [form for w in whole for form in (w, w.capitalize(), w + "s")]
    tokenizer = tokenizer_of([">>>", "===", "0", "1", *("Ġ" + w for w in (*pieces, *forms))], "bpe")
    fitted = fit_vocabulary(tokenizer, parse_format("parity-aligned"))
    assert {text_of(tokenizer, fitted.ids[m]).lstrip("Ġ") for m in fitted.labels} <= set(whole)


def with_bos(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.convert_tokens_to_ids("<bos>"))]
    )
    return tokenizer


@pytest.mark.parametrize("name", FORMATS)
def test_prompts_begin_with_the_start_token_that_the_tokenizer_adds(name):
    fmt, length = parse_format(name), 3
    plain = sample(name, 4, length, seed=0)
    started = sample(name, 4, length, seed=0, vocabulary=fit_vocabulary(with_bos(default_tokenizer()), fmt))
    assert (started.n_pos, started.bos, plain.bos) == (plain.n_pos + 1, True, False)
    assert started.tokens[:, 0].tolist() == [1] * 4
    assert started.tokens[:, 1:].tolist() == plain.tokens.tolist()
    assert (started.name(0), started.symbols()[0], started.at(Role.BOS).tolist()) == ("bos", "<bos>", [0])
    assert started.at(Role.START).tolist() == [1]
    assert started.predicted().tolist() == (plain.predicted() + 1).tolist()
    with_text = with_bos(default_tokenizer())(plain.text(2)).input_ids
    assert started.tokens[2].tolist() == with_text  # as the tokenizer encodes the text


def test_bos_is_chosen_and_recorded():
    fmt, silent, adding = parse_format("parity-aligned"), default_tokenizer(), with_bos(default_tokenizer())
    starts = {
        (which, bos): fit_vocabulary(tokenizer, fmt, bos=bos).bos
        for which, tokenizer in (("silent", silent), ("adding", adding))
        for bos in ("auto", True, False)
    }
    assert starts == {
        ("silent", "auto"): None, ("silent", True): 1, ("silent", False): None,
        ("adding", "auto"): 1, ("adding", True): 1, ("adding", False): None,
    }  # fmt: skip
    vocabulary = fit_vocabulary(adding, fmt)
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))).bos == 1
    assert "bos" not in DEFAULT.to_json()
    with pytest.raises(ValueError, match="bos=True needs a start token, and this tokenizer has none"):
        fit_vocabulary(FOREIGN["words alone"], fmt, bos=True)
    with pytest.raises(ValueError, match="bos must be 'auto', True or False; got 'yes'"):
        fit_vocabulary(silent, fmt, bos="yes")  # type: ignore[arg-type]


def test_a_start_token_that_is_the_task_s_own_start_is_not_doubled():
    tokenizer = tokenizer_of([">>>", "===", "0", "1", *WORDS[:40]])
    tokenizer.bos_token = ">>>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=">>> $A", special_tokens=[(">>>", tokenizer.bos_token_id)]
    )
    batch = sample("parity-aligned", 1, 3, 0, fit_vocabulary(tokenizer, parse_format("parity-aligned")))
    assert batch.symbols()[:1] == [">>>"]
    assert (batch.bos, batch.n_pos) == (False, 14)


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


def test_the_default_tokenizer_is_fitted_by_its_names():
    for name in FORMATS:
        fitted = fit_vocabulary(default_tokenizer(), parse_format(name))
        assert all(DEFAULT.ids[symbol] == token for symbol, token in fitted.ids.items())
        if parse_format(name).labels == "pool":
            assert (fitted.labels, fitted.held_out) == (DEFAULT.labels, DEFAULT.held_out)


def test_some_fits_in_full():
    words = ["x", "===", ",", ".", "0", "foo", "bar", "foo?", "Foo", "baz", "bäh", "M2", "b", "1", "qux"]  # ids from 1
    fitted = fit_vocabulary(tokenizer_of(words), parse_format("parity-gap1"))
    assert fitted.ids == {">>>": 3, "===": 2, "_": 4, "0": 5, "1": 14, "M1": 6, "M2": 7, "M3": 10, "M4": 15}
    assert (fitted.labels, fitted.held_out) == (("M1", "M2", "M3"), ("M4",))
    without_one = fit_vocabulary(tokenizer_of([w for w in words if w != "1"]), parse_format("parity-gap1"))
    assert [without_one.symbol(token) for token in (13, 1)] == ["0", "1"]  # both letters, b and x


def test_all_values_have_a_leading_space_or_none_has():
    some = fit_vocabulary(tokenizer_of(["Ġ0", "0", "1", ">>>", "==="]), parse_format("parity-scratchpad"))
    assert (some.ids["0"], some.ids["1"]) == (2, 3)
    every = fit_vocabulary(tokenizer_of(["Ġ0", "0", "1", ">>>", "===", "Ġ1"]), parse_format("parity-scratchpad"))
    assert (every.ids["0"], every.ids["1"]) == (1, 6)


TINY = [
    (
        "parity-aligned",
        [">>>", "===", "0", "1", "foo", "bar"],
        "needs at least 3 labels of one kind, 64 for length 64; this tokenizer has 2 whole words",
    ),
    ("parity-aligned", [">>>", "===", "0", "1", "Ġfoo", "foo", "Foo", "bar"], "has 1 whole words with a leading"),
    (
        "parity-scratchpad",
        [">>>", "===", "0"],
        "needs 2 input values of one kind; this tokenizer has 1 of them by name, 0 wh",
    ),
    ("parity-scratchpad", ["===", "0", "1"], "no single token left for '>>>'"),
    (
        "parity-numeric",
        [">>>", "===", "a", "b", *WORDS[:63]],
        "parity-numeric needs 64 labels of one kind; .* 63 whole words",
    ),
    (
        "addition-none",
        [">>>", "===", "###", "+", *"012345678"],
        "needs 10 input values of one kind; this tokenizer has 9 of them by name",
    ),
    ("parity-scratchpad", [">>>", "===", "0", "é", "12"], "this tokenizer has 1 of them by name"),
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
    with pytest.raises(ValueError, match=r"no symbol '2': it was fitted to another format"):
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
    """A large tokenizer that happens to know ten such names: enough for 10 bits; for more, all labels are words."""
    words = [*WORDS, *(f"{a}{b}" for a, b in product(WORDS, "bdfgkl"))]
    large = tokenizer_of([*STRUCTURE, *words, *named(10)])
    assert len(large) > 4096
    own = fit_vocabulary(large, parse_format("parity-aligned"), longest=10)
    assert own.labels == tuple(named(10))
    for longest in (11, 64):
        filled = fit_vocabulary(large, parse_format("parity-aligned"), longest=longest)
        assert (len(filled.labels), len(filled.held_out)) == (128, 64)
        assert all(text_of(large, token) in words for token in filled.pool.tolist())
    # Non-aligned parity takes two labels a bit.
    assert len(fit_vocabulary(large, parse_format("parity-nonaligned"), longest=10).labels) == 128
    assert len(fit_vocabulary(large, parse_format("parity-nonaligned"), longest=5).labels) == 10


@pytest.mark.parametrize(("count", "own"), [(2, False), (3, True), (20, True)])
def test_a_small_tokenizer_has_no_labels_but_its_own(count, own):
    """It was made for such a task. With fewer than three labels, words are used instead."""
    names = named(count, first=7)
    tokenizer = tokenizer_of([*STRUCTURE, *WORDS[:60], *names])
    fitted = fit_vocabulary(tokenizer, parse_format("parity-gap1"))
    assert (set(fitted.labels + fitted.held_out) == set(names)) == own
    if own:
        assert (fitted.labels, fitted.held_out) == (tuple(names), ())
        length = count
        assert sample("parity-gap1", 4, length, seed=0, vocabulary=fitted).length == length
        with pytest.raises(ValueError, match=f"the vocabulary has {count}"):
            sample("parity-gap1", 1, count + 1, seed=0, vocabulary=fitted)
    else:
        assert {"M7", "M8"}.isdisjoint(text_of(tokenizer, token) for token in fitted.pool.tolist())
        assert len(fitted.labels) + len(fitted.held_out) > 40


def test_labels_by_name_come_in_the_order_of_their_numbers_marked_or_not():
    words = [*STRUCTURE, "M3", "ĠM1", "M10", "M2", "M2x", "M0", "M193", "ĠM3"]
    fitted = fit_vocabulary(tokenizer_of(words), parse_format("parity-aligned"))
    assert fitted.labels == ("M1", "M2", "M3", "M10")
    assert [fitted.ids[m] for m in fitted.labels] == [6, 8, 5, 7]  # a bare token goes before a marked one
