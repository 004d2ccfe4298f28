"""Accuracy by length of many runs: what is drawn, read from the axes."""

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from interp.views.colours import SERIES
from tests.experiments.drawing.zoo.runs import (
    FAMILY,
    LENGTHS,
    data,
    labelled,
    rows_of,
    shaded,
    table,
    value_of,
    words,
    zoo,
)


class TestLinesOfAccuracy:
    def test_a_thin_line_a_seed_is_its_values(self):
        exact, _, step, _ = zoo.by_family(FAMILY).axes
        for axis, metric in ((exact, "exact"), (step, "step")):
            lines = [line for line in axis.lines if line.get_label() == "_parity-aligned-alibi-seed2"]
            assert [line.get_linestyle() for line in lines] == ["-", "--"]
            for line, mode in zip(lines, ("forced", "written"), strict=True):
                assert data(line) == pytest.approx({n: value_of(metric, mode, n, 2) for n in LENGTHS})

    def test_bold_is_the_median_of_the_seeds_that_learned(self):
        exact = zoo.by_family(FAMILY).axes[0]
        bold = labelled(exact, "aligned, labels given: 2 of 3 learned")
        expected = {n: (value_of("exact", "forced", n, 1) + value_of("exact", "forced", n, 2)) / 2 for n in LENGTHS}
        assert data(bold) == pytest.approx(expected)
        assert bold.get_linewidth() > 1.5 * labelled(exact, "_parity-scratchpad-alibi-seed1").get_linewidth()
        plain = labelled(exact, "scratchpad: 3 of 3 learned")
        assert data(plain) == pytest.approx({n: value_of("exact", "forced", n, 2) for n in LENGTHS})

    def test_seeds_that_did_not_learn_are_dotted_in_the_same_colour(self):
        alibi, rotary = zoo.by_family(FAMILY).axes[:2]
        styles = {
            line.get_label(): line.get_linestyle()
            for line in (*alibi.lines, *rotary.lines)
            if "aligned" in str(line.get_label()) and str(line.get_label()).startswith("_")
        }
        assert {name for name, style in styles.items() if style == ":"} == {
            "_parity-aligned-alibi-seed3",
            *(f"_parity-aligned-rotary-seed{k}" for k in (1, 2, 3)),
        }
        dotted = next(line for line in alibi.lines if line.get_label() == "_parity-aligned-alibi-seed3")
        assert to_hex(dotted.get_color()).upper() == SERIES[0]

    def test_where_none_learned_there_is_no_median_and_a_count_below_the_column(self):
        rotary = zoo.by_family(FAMILY).axes[1]
        assert not [line for line in rotary.lines if line.get_linewidth() > 1.5]
        assert zoo.by_family(FAMILY).axes[3].get_xlabel().split("\n") == ["bits", "aligned: 0 of 3 learned"]

    def test_each_family_has_its_column_in_the_order_of_families(self):
        frame = table(rows_of("aligned", "none"), rows_of("aligned", "rotary"), rows_of("aligned", "alibi"))
        assert [axis.get_title() for axis in zoo.by_family(frame).axes[:3]] == ["ALiBi", "rotary", "no positions"]

    def test_the_trained_range_is_shaded_and_chance_is_grey(self):
        for axis in zoo.by_family(FAMILY).axes:
            assert shaded(axis) == pytest.approx([20])
            chance = labelled(axis, "_chance")
            assert data(chance) == pytest.approx({n: 1 / n for n in LENGTHS})
            assert chance.get_color() not in {line.get_color() for line in axis.lines if line is not chance}

    def test_chance_is_that_of_right_labels_also_where_the_model_writes_them(self):
        """Evaluations count a guess of the label too where the model writes it."""
        guessed = FAMILY.assign(chance=FAMILY["chance"].where(FAMILY["mode"] != "written", FAMILY["chance"] / 128))
        assert not guessed["chance"].equals(FAMILY["chance"])
        for draw in (zoo.by_family, zoo.variants):
            for axis, same in zip(draw(guessed).axes, draw(FAMILY).axes, strict=True):
                assert data(labelled(axis, "_chance")) == pytest.approx(data(labelled(same, "_chance")))
        alone = guessed[guessed["mode"] == "written"]  # nothing is known of given labels
        assert data(labelled(zoo.by_family(alone).axes[0], "_chance")) == pytest.approx(
            {n: 1 / n / 128 for n in LENGTHS}
        )

    def test_two_trained_lengths_are_both_shaded(self):
        frame = table(rows_of("aligned"), rows_of("aligned", seeds=(4,), trained_to=30))
        assert shaded(zoo.by_family(frame).axes[0]) == pytest.approx([20, 30])
        assert "trained on up to 20, 30 bits" in words(zoo.by_family(frame))

    def test_other_formats_of_the_same_weights_are_left_out(self):
        more = pd.concat([FAMILY, table(rows_of("aligned", posed="parity-constant"))])
        assert [len(axis.lines) for axis in zoo.by_family(more).axes] == [
            len(axis.lines) for axis in zoo.by_family(FAMILY).axes
        ]

    def test_the_share_of_rehearsal_is_in_the_title(self):
        assert "50% of the training was rehearsal" in words(zoo.by_family(FAMILY))
        assert "no rehearsal" in words(zoo.by_family(FAMILY.assign(rehearsal=0.0)))


def test_variants_have_a_row_a_format_and_a_column_a_metric():
    frame = table(rows_of("scratchpad", modes=("forced",), failed=(1,)), rows_of("aligned"), rows_of("gap2"))
    figure = zoo.variants(frame)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["step accuracy", "exact match", "final bit"]
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == [
        "aligned\n3 of 3 learned",
        "scratchpad\n2 of 3 learned",
    ]
    final = figure.axes[2]
    written = data(labelled(final, "labels written by the model"))
    assert written[40] == pytest.approx(value_of("final", "written", 40, 2))
    assert "labels written by the model" not in [line.get_label() for line in figure.axes[3].lines]


def test_gaps_have_a_colour_each_and_a_column_for_who_writes_labels():
    figure = zoo.gaps(table(rows_of("aligned"), rows_of("gap2"), rows_of("gap8", failed=(1,)), rows_of("numeric")))
    given, written = figure.axes[:2]
    assert (given.get_title(), written.get_title()) == ("labels given", "labels written by the model")
    bold = [labelled(written, name) for name in ("gap 0 (aligned)", "gap 2", "gap 8")]
    assert len({line.get_color() for line in bold}) == len({line.get_marker() for line in bold}) == 3
    assert data(bold[1])[20] == pytest.approx(value_of("exact", "written", 20, 2))
    assert "gap 8: 2 of 3 learned" in words(figure)
    assert "numeric" not in words(figure)


def test_lengths_past_rehearsal_are_in_one_figure_only():
    frame = table(rows_of("aligned"), rows_of("aligned", lengths=(80, 100)), rows_of("scratchpad"), rows_of("cyclic"))
    figure = zoo.reach(frame)
    given, written = figure.axes
    assert given.get_title() == "aligned\n3 of 3 learned"  # no other format has longer lengths
    for axis, mode, label in (
        (given, "forced", "labels given, or none"),
        (written, "written", "labels written by the model"),
    ):
        seeds = [line for line in axis.lines if str(line.get_label()).startswith("_parity")]
        assert len(seeds) == 3
        assert data(labelled(axis, label))[100] == pytest.approx(value_of("exact", mode, 100, 2))
    for axis in zoo.by_family(frame).axes:
        assert max(n for line in axis.lines for n in data(line)) == max(LENGTHS)
    with pytest.raises(zoo.NoRows, match="no run with labels has results past 60 bits"):
        zoo.reach(FAMILY)


def test_addition_is_by_digits_and_its_parity_namesakes_stay_out():
    parts = [rows_of(f, task="addition", lengths=(5, 10, 14), trained_to=10) for f in ("none", "aligned")]
    figure = zoo.addition(table(*parts, rows_of("aligned")))
    none, aligned = figure.axes[:2]
    assert none.get_title() == "no labels\n3 of 3 learned"
    assert data(labelled(aligned, "labels given, or none")) == pytest.approx(
        {n: value_of("exact", "forced", n, 2) for n in (5, 10, 14)}
    )
    assert figure.axes[2].get_xlabel() == "digits"
    assert shaded(none) == pytest.approx([10])
