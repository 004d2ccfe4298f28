"""Numbers in the READMEs equal those of the committed files; markers are valid and used."""

import pytest

from experiments.tables.markers import values_of, with_numbers
from experiments.tables.numbers import NUMBERS
from experiments.tables.places import ROOT

DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not {".venv", "build"} & set(path.parts))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_numbers_in_prose_are_those_of_the_committed_files(path):
    text = path.read_text(encoding="utf-8")
    assert with_numbers(text) == text, "run `python -m experiments.tables`"


def test_a_wrong_number_is_replaced_and_the_prose_stays():
    right = values_of("aligned-60")[0]
    assert with_numbers("about .123<!--=aligned-60.0--> here") == f"about {right}<!--=aligned-60.0--> here"
    assert with_numbers("about .123 here") == "about .123 here"


@pytest.mark.parametrize("marker", ["<!--=no-such-name.0-->", "<!--=aligned-60.99-->"])
def test_an_unknown_marker_is_refused(marker):
    with pytest.raises(ValueError, match="names no number"):
        with_numbers(f".5{marker}")


def test_every_number_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert not [name for name in NUMBERS if f"<!--={name}." not in text]
