"""Accuracy by what was rehearsed: its own columns, and no line in other figures."""

import pandas as pd
import pytest

from experiments.commands.figures import by_rehearsal
from tests.experiments.drawing.zoo.runs import FAMILY, data, labelled, rows_of, table, value_of, words, zoo

SEEDS = (1, 2, 3)
CONDITIONED = table(
    rows_of("aligned"),
    rows_of("scratchpad", modes=("forced",)),
    rows_of("aligned", "alibi+copying60", failed=(2, 3)),
    rows_of("scratchpad", "alibi+copying60", modes=("forced",)),
    rows_of("aligned", "alibi+lookup20", lengths=(10, 20, 100)),
    rows_of("aligned", "alibi+none", rehearsal=0.0),
    rows_of("aligned", "rotary+lookup20"),
    rows_of("numeric", "alibi+own60"),
).assign(precision="no")


def test_a_column_per_condition_in_order_with_the_usual_one_last():
    figure = zoo.rehearsal(CONDITIONED)
    titles = [axis.get_title().split("\n")[0] for axis in figure.axes[:4]]
    assert titles == ["nothing", "copying to 60,", "lookup to 20", "lookup to 60"]
    assert {axis.get_title().split("\n")[-1] for axis in figure.axes[:4]} == {"float32"}
    assert [axis.get_xlabel().split("\n")[1:] for axis in figure.axes[4:]] == [
        ["aligned: 3 of 3 learned"],
        ["aligned: 1 of 3 learned", "scratchpad: 3 of 3 learned"],
        ["aligned: 3 of 3 learned"],
        ["aligned: 3 of 3 learned", "scratchpad: 3 of 3 learned"],
    ]


def test_rows_are_given_and_written_labels_of_the_condition():
    axes = zoo.rehearsal(CONDITIONED).axes
    for axis, mode in ((axes[2], "forced"), (axes[6], "written")):
        line = labelled(axis, "_parity-aligned-alibi+lookup20-seed3")
        assert data(line) == pytest.approx({n: value_of("exact", mode, n, 3) for n in (10, 20, 100)})
    for axis in (axes[1], axes[5]):  # without labels there is one mode, drawn in both rows
        assert labelled(axis, "_parity-scratchpad-alibi+copying60-seed1")


def test_the_dotted_line_is_the_longest_rehearsed_list():
    ends = [
        [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [0, 1]]
        for axis in zoo.rehearsal(CONDITIONED).axes[:4]
    ]
    assert ends == [[], [60], [20], [60]]


def test_own_labels_are_beside_the_usual_rehearsal():
    figure = zoo.own_labels(pd.concat([CONDITIONED, table(rows_of("numeric")).assign(precision="bf16")]))
    assert [axis.get_title().split("\n")[-1] for axis in figure.axes[:2]] == ["bfloat16", "float32"]
    assert "its own labels" in words(figure)


def test_without_other_conditions_there_is_nothing_to_compare():
    with pytest.raises(zoo.NoRows, match="rehearsed anything but lookup60"):
        zoo.rehearsal(FAMILY.assign(precision="no"))


def test_other_figures_leave_conditions_out():
    usual = CONDITIONED[CONDITIONED["family"].isin(["alibi"])]
    assert words(zoo.by_family(CONDITIONED)) == words(zoo.by_family(usual))
    parts = by_rehearsal(CONDITIONED, "parity")
    assert [(suffix, set(part["family"])) for suffix, part in parts] == [("", {"alibi"})]
