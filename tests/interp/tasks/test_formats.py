"""Every format gives the prompts that it names, and its name is read and printed."""

import pytest

from interp.tasks import known_formats, parse_format, sample
from interp.tasks.formats import Format
from tests.interp.tasks import oracle

PARITY_LENGTHS = (1, 2, 3, 5, 10, 20, 60)
PAIRS = ((1, 1), (2, 1), (1, 2), (5, 3), (3, 5), (14, 14), (20, 20))
EXTRA = ("parity-cyclic2", "parity-cyclic1", "parity-cyclic64", "parity-gap3")
FORMATS = known_formats() + EXTRA
CASES = [(name, length) for name in FORMATS for length in (PAIRS if name.startswith("addition") else PARITY_LENGTHS)]
SHORT = [(name, (3, 2) if name.startswith("addition") else 3) for name in FORMATS]


def corruption(words: list[str], pos: int, name: str) -> str:
    """Another token of the same kind, by the oracle's name of the position."""
    word, kind = words[pos], name.rstrip("0123456789 ")
    if kind in ("start", "separator", "filler"):
        return "#" if word != "#" else "_"
    if kind.endswith("label"):
        others = [w for w in words if w[0] == word[0] and w != word and w[1:].isdigit()]
        return others[0] if others else "M200"
    for alphabet in (("[0]", "[1]"), tuple("0123456789"), tuple("abcdefghijklmnopqr")):
        if word in alphabet:
            i = alphabet.index(word)
            return alphabet[i - 1 if i % 2 else i + 1]
    raise AssertionError(word)


@pytest.mark.parametrize(("name", "length"), CASES)
def test_every_prompt_passes_the_oracle(name, length):
    for seed in range(3):
        batch = sample(name, 3, length, seed)
        for row in range(len(batch)):
            assert oracle.complaints(batch.text(row), name) == []


@pytest.mark.parametrize(("name", "length"), CASES)
def test_every_position_is_named_as_the_oracle_names_it(name, length):
    batch = sample(name, 1, length, seed=4)
    assert [batch.name(pos) for pos in range(batch.n_pos)] == oracle.names(batch.text(), name)


@pytest.mark.parametrize(("name", "length"), SHORT)
def test_the_oracle_complains_about_any_one_wrong_token(name, length):
    for seed in range(5):
        text = sample(name, 1, length, seed).text()
        words = text.split(" ")
        for pos, what in enumerate(oracle.names(text, name)):
            wrong = [*words[:pos], corruption(words, pos, what), *words[pos + 1 :]]
            assert oracle.complaints(" ".join(wrong), name), f"{what} of {text}"


@pytest.mark.parametrize(("name", "length"), SHORT)
def test_the_oracle_complains_about_a_token_too_few_or_too_many(name, length):
    text = sample(name, 1, length, seed=0).text()
    assert oracle.complaints(text.rsplit(" ", 1)[0], name)
    assert oracle.complaints(text + " 0", name)


def test_the_oracle_does_not_take_one_format_for_another():
    for name, length in SHORT:
        text = sample(name, 1, length, seed=1).text()
        passed = {other for other, _ in SHORT if not oracle.complaints(text, other)}
        # An order is a shuffle, and three labels of a long cycle repeat nothing.
        alike = {"recall-ordered": {"recall-shuffled"}, "parity-cyclic": {"parity-cyclic64"}}
        alike["parity-cyclic64"] = {"parity-cyclic"}
        alike["parity-hints"] = {"parity-aligned"}
        assert passed == {name} | alike.get(name, set()), text


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_prints_the_name_that_it_was_read_from(name):
    fmt = parse_format(name)
    assert str(fmt) == name
    assert parse_format(str(fmt)) == fmt
    assert parse_format(fmt) is fmt


def test_the_known_formats_are_those_of_the_paper_and_ours():
    parity = "direct scratchpad interleaved aligned nonaligned numeric constant cyclic gap1 gap2 gap4 gap8 suffix hints"
    assert set(known_formats()) >= {
        *(f"parity-{x}" for x in parity.split()),
        *(f"addition-{x}" for x in ("none", "aligned", "zeropad", "nonaligned")),
        *(f"recall-{x}" for x in ("ordered", "shuffled")),
    }


@pytest.mark.parametrize(
    ("name", "gap", "period"),
    [("parity-gap4", 4, 0), ("parity-cyclic3", 0, 3), ("parity-cyclic", 0, 8), ("parity-aligned", 0, 0)],
)
def test_gap_and_period_are_read_from_the_name(name, gap, period):
    assert (parse_format(name).gap, parse_format(name).period) == (gap, period)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("parity-alligned", "nearest: parity-aligned"),
        ("parity-non-aligned", "nearest: parity-nonaligned"),
        ("aligned", "nearest: .*parity-aligned"),
        ("additon-zeropad", "nearest: addition-zeropad"),
        ("parity-gap", "nearest: parity-gap[1248]"),
        ("parity-gap0", "nearest: parity-gap[1248]"),
        ("parity-cyclic-2", "nearest: parity-cyclic"),
        ("parity-zeropad", "unknown format"),
        ("addition-numeric", "unknown format"),
        ("", "formats are parity-direct, "),
        ("zzz", "unknown format 'zzz'; formats are parity-direct, .*recall-shuffled"),
    ],
)
def test_an_unknown_format_is_refused_with_the_nearest_names(name, nearest):
    with pytest.raises(ValueError, match=nearest):
        parse_format(name)


@pytest.mark.parametrize("name", FORMATS)
def test_labels_come_from_where_they_vary(name):
    """Against what is drawn: labels that differ between prompts are the pool's, the others are fixed."""
    fmt = parse_format(name)
    batch = sample(name, 20, (4, 4) if fmt.task == "addition" else 4, seed=0)
    at = [pos for pos in range(batch.n_pos) if "input label" in batch.name(pos)]
    varies = bool(at) and bool((batch.tokens[:, at] != batch.tokens[:1, at]).any())
    assert fmt.labels == ("" if not at else "pool" if varies else "fixed")


@pytest.mark.parametrize(
    ("name", "length", "need"),
    [
        ("parity-aligned", 7, 7),
        ("parity-gap2", 7, 7),
        ("parity-suffix", 7, 7),
        ("parity-nonaligned", 7, 14),
        ("parity-numeric", 7, 0),
        ("parity-scratchpad", 7, 0),
        ("addition-none", (5, 3), 0),
        ("addition-aligned", (3, 5), 6),
        ("addition-zeropad", (5, 3), 6),
        ("addition-nonaligned", (5, 3), 8),
        ("addition-aligned", 5, 6),
        ("addition-nonaligned", 5, 10),
        ("recall-shuffled", 7, 7),
    ],
)
def test_labels_needed_is_the_number_of_different_labels_in_a_prompt(name, length, need):
    assert parse_format(name).labels_needed(length) == need
    words = sample(name, 1, length, seed=0).text().split(" ")
    assert len({w for w in words if w[0] == "M"}) == need


@pytest.mark.parametrize("name", FORMATS)
def test_symbols_are_all_declared(name):
    """Structure, inputs, outputs and labels together are the symbols of a prompt, and nothing else."""
    fmt = parse_format(name)
    batch = sample(name, 50, (3, 3) if fmt.task == "addition" else 3, seed=0)
    seen = {symbol for row in range(len(batch)) for symbol in batch.symbols(row)}
    fixed = {*fmt.structure, *fmt.inputs, *fmt.outputs, *fmt.fixed_labels(3)}
    assert {s for s in seen if s[0] != "M"} == fixed


def test_only_random_orders_and_random_output_labels_are_beyond_a_model():
    beyond = {name for name in FORMATS if not parse_format(name).model_can_write_labels}
    assert beyond == {"parity-nonaligned", "recall-shuffled"}


def test_a_format_is_hashable_and_compares_by_value():
    assert {parse_format("parity-gap2"), Format("parity", "gap", gap=2)} == {parse_format("parity-gap2")}
