"""Texts fit into the boxes that are made for them."""

import pytest

from interp.views.circuit.boxes import text_width, wrapped


@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_texts_are_never_wider_than_they_are_taken_to_be(weight):
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", weight=weight)

    def width(text: str) -> float:
        return TextPath((0, 0), text.replace("$", r"\$"), size=12, prop=font).get_extents().width

    for text in [chr(c) * 8 for c in range(33, 127)] + ["L1H2: matching label", "copies the state", "ÄÖÅßæ…", "WMQ@%"]:
        assert width(text) <= text_width(text, 12, weight == "bold"), text
    assert text_width("matching label", 12, weight == "bold") < 1.3 * width("matching label")


def test_wrapping_keeps_every_word_and_the_width():
    text = "some words and averyveryverylongwordthatdoesnotfit here"
    lines = wrapped(text, 90, 12)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(text_width(line, 12, bold=False) <= 90 for line in lines)
    assert wrapped("", 90, 12) == []
