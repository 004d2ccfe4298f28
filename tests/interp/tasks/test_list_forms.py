"""A list of one's own: its text, its words, and what a file cannot have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import probes
from interp.tasks.list_forms import ListForm, read_list_form
from interp.tasks.lists import LISTS, list_form, list_template, sample_lists
from tests.probes.binding.list_models import list_tokenizer

README = Path(probes.__file__).parent / "README.md"
COLOURS = ("Mary", "John", "Tom", "Anna", "Paul", "Lisa", "Mark")
GOODS = ("apple", "bread", "chair", "table", "water", "house", "river")
BOX: dict[str, Any] = {
    "text": "Stock:\n{list}\n\nBox {label}:",
    "item": "Box {label}: {value}",
    "values": GOODS,
    "labels": COLOURS,
}
AGAIN = {**BOX, "text": "Stock:\n{list}\n\nAgain:\n{list}"}


def written(folder: Path, **fields: object) -> Path:
    """Return the file of a list with these fields; None leaves one out."""
    path = folder / "stock.json"
    path.write_text(json.dumps({name: value for name, value in {**BOX, **fields}.items() if value is not None}))
    return path


def test_an_item_is_asked_for_by_its_label_or_by_the_list_again():
    listed = "Stock:\nBox {label1}: {value1}\nBox {label2}: {value2}\nBox {label3}: {value3}\n\n"
    assert ListForm(**BOX).template_of(3, 2) == f"{listed}Box {{label2}}:"
    assert ListForm(**AGAIN).template_of(3, 2) == f"{listed}Again:\nBox {{label1}}: {{value1}}\nBox {{label2}}:"
    assert ListForm(**AGAIN, between="; ").template_of(3, 1).endswith("Again:\nBox {label1}:")


def test_the_tasks_that_ship_are_such_lists():
    before = {"list-letters": "{label1}. ", "list-bullets": "- ", "list-no-labels": "", "list-names": "{label1}: "}
    for task in before:
        first, asked = f"{before[task]}{{value1}}", before[task].rstrip(" ")
        second, third = (first.replace("1}", f"{i}}}") for i in (2, 3))
        again = f"The same list again:\n{first}\n{asked.replace('1}', '2}')}"
        assert list_template(task, 3, 2) == f"Here is a list:\n{first}\n{second}\n{third}\n\n{again}"
    assert list_template("list-bullets", 2, 1, fillers=2).endswith("again:\n- ... ...")
    assert list_template("list-no-labels", 2, 1, fillers=1).endswith("again:\n...")
    assert {str(list_form(task, 6)) for task in LISTS} == set(LISTS)


def test_braces_of_the_text_stay():
    named = ListForm("{list} {list}", "{{value2}}{label}: {value}", GOODS, COLOURS, between=" ")
    assert named.template_of(2, 2).endswith("{{value2}}{label1}: {value1} {{value2}}{label2}:")
    form = ListForm("{{{list}}}\n{label}:", "{{{label}: {value}}}", GOODS, COLOURS)
    found = sample_lists(list_tokenizer(), form, 1, 6, 2, seed=0).prompts.text(0)
    assert found.count("{") == found.count("}") == 7


def test_a_file_is_read_back(tmp_path):
    form = read_list_form(written(tmp_path, ordered=True))
    assert str(form) == "stock"
    assert {**form.to_json(), "values": GOODS, "labels": COLOURS} == {**BOX, "between": "\n", "ordered": True}


def test_the_example_of_the_readme_is_a_list(tmp_path):
    examples = re.findall(r"```json\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [text for text in examples if '"item"' in text]
    (tmp_path / "shelves.json").write_text(example)
    form = read_list_form(tmp_path / "shelves.json")
    assert str(form) == "shelves"
    form.check_items(6)


def test_labels_are_drawn_at_random_unless_they_are_ordered():
    def labels(ordered: bool) -> set[str]:
        found = sample_lists(list_tokenizer(), ListForm(**BOX, ordered=ordered), 8, 6, 2, seed=0)
        spans = [position for span in found.labels.values() for position in span]
        return {"".join(found.prompts.symbols(row)[p] for p in spans) for row in range(8)}

    assert labels(True) == {"".join(f" {name}" for name in COLOURS[:6])}
    assert len(labels(False)) == 8


def test_words_of_several_tokens_are_left_out_and_named():
    form = ListForm(**{**BOX, "values": (*GOODS, "antidisestablishment")})
    with pytest.warns(UserWarning, match="values that are not of one token are left out: antidisestablishment"):
        found = sample_lists(list_tokenizer(), form, 16, 6, 2, seed=0)
    assert "anti" not in "".join(map(found.prompts.text, range(16)))
    with pytest.raises(ValueError, match=r"8 items need as many labels of the same number of tokens; list has 7$"):
        sample_lists(list_tokenizer(), ListForm(**{**BOX, "values": (*GOODS, "box")}), 1, 8, 2, seed=0)
    with pytest.raises(ValueError, match="8 items need as many values of one token; list has 7, without overcoats"):
        sample_lists(list_tokenizer(), ListForm(**{**BOX, "values": (*GOODS, "overcoats")}), 1, 8, 2, seed=0)
    with pytest.raises(ValueError, match="leave fillers out"):
        sample_lists(list_tokenizer(), ListForm(**BOX), 1, 6, 2, seed=0, fillers=1)


def test_labels_have_the_same_number_of_tokens():
    mixed = (*COLOURS[:6], "antidisestablishment")
    with pytest.warns(UserWarning, match="labels that are not of the same number of tokens are left out: anti"):
        found = sample_lists(list_tokenizer(), ListForm(**{**BOX, "labels": mixed}), 16, 6, 2, seed=0)
    assert {len(span) for span in found.labels.values()} == {1}
    in_order = ListForm(**{**BOX, "labels": (mixed[0], *mixed[:0:-1])}, ordered=True)
    with pytest.raises(ValueError, match=r"same number of tokens each; 'Mary' has 1, 'antidisestablishment' \d+"):
        sample_lists(list_tokenizer(), in_order, 1, 6, 2, seed=0)
    several = tuple(f"{x} {y}" for x in COLOURS[:3] for y in COLOURS[3:6])
    both = ListForm(**{**BOX, "labels": (*several, *COLOURS[:6])})
    with pytest.warns(UserWarning, match="left out: Mary Anna"):  # one token each, though more have two
        assert len(sample_lists(list_tokenizer(), both, 1, 6, 2, seed=0).labels[1]) == 1
    found = sample_lists(list_tokenizer(), ListForm(**{**BOX, "labels": several}), 8, 6, 2, seed=0)
    assert {len(span) for span in found.labels.values()} == {2}


def test_a_list_needs_no_labels():
    form = ListForm("Words: {list}. Again: {list}", "{value}", GOODS, between=", ")
    found = sample_lists(list_tokenizer(), form, 8, 6, 2, seed=0)
    assert not found.labels
    assert set(found.values) == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": None}, "text is missing"),
        ({"text": 3}, "text must be text; got 3"),
        ({"text": "{list}"}, "once after it, {label}, the label of the item asked for, or {list} again; it has {list}"),
        ({"text": "{list} {label} is {value}"}, "text must not have {value}, which the model writes"),
        ({"text": "{list} {label} {label}"}, "it has {list}, {label}, {label} (doubled braces are literal ones)"),
        ({"values": [*GOODS, "Tom"]}, "'Tom' is a value and a label; they must differ"),
        ({"text": "{label} {list}"}, "it has {label}, {list}"),
        ({"text": "{list} {list} or"}, "text must end with its second {list}"),
        ({"text": "{list} {item}"}, "text may have the placeholders {list}, {label} and {value}; got {item}"),
        ({"text": "{list} {label"}, "text is no template"),
        ({"item": "{label}"}, "item must have {value} once, and {label} at most once; it has {label}"),
        ({"item": "{value}"}, "text asks for an item by {label}, so item must have {label} too"),
        ({"item": "{value} {label}", "text": "{list} {list}"}, "the label must be before the value"),
        ({"item": "{value}", "text": "{list} {list}"}, "item has no {label}, so leave labels out"),
        ({"labels": []}, "labels are missing"),
        ({"labels": "ABCDEF"}, "labels must be a list of words; got 'ABCDEF'"),
        ({"values": [1, 2]}, "values must be a list of words; got [1, 2]"),
        ({"values": ["a", "b", "a"]}, "values must differ; 'a' occurs more than once"),
        ({"values": ["a", " b"]}, "a value must be text without white space around it; got ' b'"),
        ({"ordered": "yes"}, "ordered must be true or false; got 'yes'"),
        ({"rows": []}, "unknown key 'rows'; keys are text, item, values, labels, between, ordered"),
    ],
)
def test_a_file_of_another_shape_gets_one_line(fields, words, tmp_path):
    path = written(tmp_path, **fields)
    with pytest.raises(ValueError, match="is no list: ") as raised:
        read_list_form(path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_object_or_missing_is_refused(tmp_path):
    (tmp_path / "stock.json").write_text("[1]")
    with pytest.raises(ValueError, match="must be an object"):
        read_list_form(tmp_path / "stock.json")
    with pytest.raises(ValueError, match=r"none.json cannot be read: No such file or directory$"):
        read_list_form(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory$"):
        read_list_form(tmp_path)
    (tmp_path / "stock.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="it is not UTF-8 text"):
        read_list_form(tmp_path / "stock.json")
    (tmp_path / "stock.json").write_text('{"text": "a", "text": "b"}')
    with pytest.raises(ValueError, match="the key 'text' occurs twice"):
        read_list_form(tmp_path / "stock.json")
