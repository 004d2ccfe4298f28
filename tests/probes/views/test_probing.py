"""Probe curves: what is drawn is what was given."""

import numpy as np
import pytest

from probes.arms.m08_decoding import Decoded
from probes.evidence import Interval
from probes.views.probing import draw_probes, probes

ROWS = [
    {
        "name": name,
        "layer": layer,
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "control": 0.5,
        "chance": 0.5,
        "untrained": 0.6,
    }
    for name, values in (("state", (0.5, 0.95)), ("bit", (0.7, 0.8)))
    for layer, value in enumerate(values)
]


def ydata(line) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()


def test_a_panel_a_concept_with_its_control_and_chance():
    axes = draw_probes(ROWS).axes
    assert [axis.get_title() for axis in axes] == ["state", "bit"]
    probe, control, chance, untrained = axes[0].lines
    assert ydata(probe) == [0.5, 0.95]
    assert ydata(control) == ydata(chance) == [0.5, 0.5]
    assert ydata(untrained) == [0.6, 0.6]
    assert len({axis.get_ylim() for axis in axes}) == 1


def test_the_view_says_where_each_is_highest():
    view = probes(ROWS)
    assert "state: highest 0.95 at layer 1, its control 0.50" in view.alt
    assert "<td>bit</td><td>accuracy</td><td>0</td><td>0.700</td>" in view.live
    assert len(view.still) < 150_000


def test_findings_of_decode_are_taken_as_they_are():
    interval = Interval(0.9, 0.8, 1.0)
    found = Decoded(
        "slot", "INPUT_LABEL", 1, 20, "R2", interval, 0.0, Interval(0.1, 0.0, 0.2), interval, None, None, None, 100
    )
    assert "step number at input labels: highest 0.90 at layer 1, its control 0.10" in probes([found]).alt


def test_a_row_without_a_control_is_drawn_without_one():
    (axis,) = draw_probes([{**ROWS[0], "control": None, "chance": None, "untrained": None}]).axes
    assert [np.size(line.get_xdata()) for line in axis.lines] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "no probes"),
        ([{"name": "state"}], "lacks layer, value"),
        ([{**ROWS[0], "low": 0.6}], "not in its interval"),
    ],
)
def test_bad_rows_are_refused(rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        probes(rows)
