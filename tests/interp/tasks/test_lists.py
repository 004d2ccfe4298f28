"""Lists as templates: labels, spans and values of each task, and what is refused."""

from __future__ import annotations

import pytest

from interp.tasks import template
from interp.tasks.lists import LISTS, NAMES, WORDS, Lookups, list_template, lookups, sample_lists
from tests.probes.binding.list_models import list_tokenizer

ITEMS, QUERY = 6, 3
LABELS = {
    "letters": set("ABCDEF"),
    "numerals": set("123456"),
    "random-numerals": set("123456789"),
    "names": set(NAMES),
}


def drawn(task: str, fillers: int = 0) -> Lookups:
    return sample_lists(list_tokenizer(), task, 3, ITEMS, QUERY, seed=0, fillers=fillers)


def texts(found: Lookups, row: int, spans: dict[int, tuple[int, ...]]) -> dict[int, str]:
    """Return the text of each item's span."""
    words = found.prompts.symbols(row)
    return {item: "".join(words[p] for p in span).strip() for item, span in spans.items()}


@pytest.mark.parametrize("fillers", [0, 2])
@pytest.mark.parametrize("task", LISTS)
def test_spans_are_the_labels_and_values_of_the_text(task: str, fillers: int) -> None:
    found, kind = drawn(task, fillers), task.split("-", 1)[1]
    lookup, labelled = task.startswith("lookup"), kind in LABELS
    assert found.n_items == ITEMS
    assert set(found.labels) == (set(range(1, ITEMS + 1)) if labelled else set())
    for row in range(3):
        values = texts(found, row, {i: (p,) for i, p in found.values.items()})
        assert len(set(values.values())) == ITEMS
        assert set(values.values()) <= set(WORDS)
        labels = texts(found, row, dict(found.labels))
        assert len(set(labels.values())) == len(labels)
        assert set(labels.values()) <= LABELS.get(kind, set())
        again = texts(found, row, dict(found.query_labels))
        assert again == {i: labels[i] for i in ([QUERY] if lookup else range(1, QUERY + 1)) if labelled}
        repeated = texts(found, row, {i: (p,) for i, p in found.query_values.items()})
        assert repeated == ({} if lookup else {i: values[i] for i in range(1, QUERY)})
        shown = {f"value{i}": value for i, value in values.items()} | {f"label{i}": x for i, x in labels.items()}
        lines = ITEMS + (1 if lookup else QUERY)
        assert found.prompts.text(row).count("...") == fillers * lines
        assert found.prompts.text(row).endswith(list_template(task, ITEMS, QUERY, fillers).format(**shown))


@pytest.mark.parametrize("task", LISTS)
def test_the_next_token_of_a_prompt_is_the_value_alone(task: str) -> None:
    found, tokenizer = drawn(task), list_tokenizer()
    for row, answer in enumerate(found.answer(QUERY).tolist()):
        written = found.prompts.text(row) + str(tokenizer.decode([answer]))
        ids = tokenizer(written, add_special_tokens=False).input_ids
        assert ids == [*found.prompts.tokens[row, found.prompts.bos :].tolist(), answer]


def test_ordered_labels_are_in_order_and_random_ones_are_not() -> None:
    assert list(texts(drawn("list-letters"), 0, dict(drawn("list-letters").labels)).values()) == list("ABCDEF")
    assert list(texts(drawn("list-numerals"), 0, dict(drawn("list-numerals").labels)).values()) == list("123456")
    for task in ("list-random-numerals", "list-names"):
        found = drawn(task)
        orders = {tuple(texts(found, row, dict(found.labels)).values()) for row in range(3)}
        assert len(orders) == 3
        assert tuple("123456") not in orders


def test_numerals_of_long_lists_have_the_same_number_of_tokens() -> None:
    found = sample_lists(list_tokenizer(), "list-numerals", 1, 12, 2, seed=0)
    assert [len(text) for text in texts(found, 0, dict(found.labels)).values()] == [2] * 12
    assert len({len(span) for span in found.labels.values()}) == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_decides_the_prompts(seed: int) -> None:
    first, again, other = (sample_lists(list_tokenizer(), "list-letters", 2, 6, 2, seed=s) for s in (seed, seed, 7))
    assert first.prompts.tokens.equal(again.prompts.tokens)
    assert not first.prompts.tokens.equal(other.prompts.tokens)


@pytest.mark.parametrize(
    ("task", "items", "query", "fillers", "message"),
    [
        ("list-runes", 6, 2, 0, "unknown list task"),
        ("lookup-bullets", 6, 2, 0, "unknown list task"),
        ("list-letters", 6, 7, 0, "query must be from 1 to 6"),
        ("list-letters", 6, 2, -1, "fillers at least 0"),
        ("list-letters", 200, 2, 0, "200 items need as many values of one token"),
        ("list-letters", 27, 2, 0, "need as many labels of the same number of tokens; list-letters has 26"),
        ("list-names", 19, 2, 0, "need as many labels of the same number of tokens; list-names has 18"),
    ],
)
def test_what_cannot_be_a_list_is_refused(task: str, items: int, query: int, fillers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        sample_lists(list_tokenizer(), task, 1, items, query, seed=0, fillers=fillers)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "row", "query", "message"),
    [
        ("{value1} {value2} {value3}", {}, 4, "value4 for query 4; it has value1, value2, value3"),
        ("{value1} {label1}", {}, 1, "a list needs value1, value2, ..., and value1 for query 1; it has value1"),
        ("{value1} {value2}", {"value2": "apple bread"}, 1, "must be one token; value2 has"),
    ],
)
def test_a_template_without_its_spans_is_refused(text: str, row: dict[str, str], query: int, message: str) -> None:
    usual = {"value1": "apple", "value2": "bread", "value3": "chair", "label1": "A"}
    filled = {name: value for name, value in (usual | row).items() if f"{{{name}}}" in text}
    with pytest.raises(ValueError, match=message):
        lookups(template(text, [filled], list_tokenizer()), query)


ROW = {"value1": "apple", "value2": "bread", "value3": "chair", "label1": "A", "label2": "B", "label3": "C"}
LABELLED = "{label1}: {value1}\n{label2}: {value2}\n{label3}: {value3}\n"
PLAIN = "{value1}\n{value2}\n{value3}\n\nAgain:\n"


def filled(text: str, query: int, row: dict[str, str] = ROW) -> Lookups:
    used = {name: value for name, value in row.items() if f"{{{name}}}" in text}
    return lookups(template(text, [used], list_tokenizer()), query)


@pytest.mark.parametrize("end", ["{label2}:", "What is {label2}?", "{label1}: {value1}\n{label2}:"])
def test_a_query_that_the_text_contradicts_is_refused(end: str) -> None:
    """The model would be asked for one item and scored on another."""
    found = filled(f"{LABELLED}\n{end}", 2)
    assert found.query == 2
    assert 2 in found.query_labels
    for query in (1, 3):
        message = rf"^the text ends with label2 and so asks for item 2; query must be 2; got {query}$"
        with pytest.raises(ValueError, match=message):
            filled(f"{LABELLED}\n{end}", query)


def test_a_text_that_ends_with_its_answer_is_refused() -> None:
    for text in (f"{LABELLED}\n{{label2}}: {{value2}}", f"{PLAIN}{{value1}}\n{{value2}}"):
        with pytest.raises(ValueError, match=r"^the text ends with value2, the answer of query 2; it must end before"):
            filled(text, 2)


def test_a_text_that_says_no_item_takes_any_query() -> None:
    for text in ("{value1}\n{value2}\n{value3}\n\nThe item asked for is", "{value1} is {label1}, {value2} is {label2}"):
        assert [filled(text, query).query for query in (1, 2)] == [1, 2]
    assert filled(f"{PLAIN}{{value1}}\n", 2).query_values.keys() == {1}
    assert filled(f"{PLAIN}{{value3}}\n", 2).query == 2  # in another order


@pytest.mark.parametrize("end", [": ", ":\n", ":  "])
def test_white_space_before_an_answer_with_a_space_of_its_own_is_named(end: str) -> None:
    with pytest.warns(UserWarning, match=r"^the text ends in white space \('.*'\) and its answers begin with") as found:
        assert filled(f"{LABELLED}\n{{label2}}{end}", 2).query == 2
    assert "(' bread')" in str(found[0].message)
    assert "\n" not in str(found[0].message)


def test_white_space_that_the_list_has_too_is_right() -> None:
    """Warnings are errors here."""
    assert filled(f"{PLAIN}{{value1}}\n", 2)
    assert filled("{label1}:{value1}\n{label2}:{value2}\n\n{label2}: ", 2)  # the answers have no space
    spaced = {**ROW, **{f"value{i}": f" {ROW[f'value{i}']}" for i in (1, 2, 3)}}
    assert filled("{label1}:\n{value1}\n{label2}:\n{value2}\n\n{label2}:\n", 2, spaced)
