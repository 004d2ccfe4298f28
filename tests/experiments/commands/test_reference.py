"""The command reference is written from the verbs' own definitions."""

import pytest

from experiments.commands.reference import BEGIN, END, README, command_reference, verb_reference, with_reference
from experiments.support.options import options_of
from experiments.verbs import VERBS, command_class


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_row_with_a_meaning(verb):
    rows = [line.split(" | ") for line in verb_reference(verb).splitlines() if line.startswith("| `")]
    assert len(rows) == len(options_of(command_class(verb)))
    for argument, meaning in rows:
        assert argument.startswith("| `")
        assert len(meaning) > 10, argument


def test_the_reference_goes_between_its_markers():
    text = f"before\n{BEGIN}\nprevious text\n{END}\nafter\n"
    new = with_reference(text)
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "previous text" not in new
    assert command_reference() in new
    assert with_reference(new) == new
    with pytest.raises(ValueError, match="markers"):
        with_reference("no markers")


def test_the_readme_has_the_reference_of_this_version():
    text = README.read_text(encoding="utf-8")
    assert with_reference(text) == text, "run: python -m experiments.commands.reference"
