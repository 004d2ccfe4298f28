"""Which bit is read: what is drawn, read from the axes."""

import pandas as pd
import pytest

from tests.experiments.drawing.zoo.runs import READ, data, labelled, offset_rows, shaded, table, zoo


def cells(axis) -> list[list[float]]:
    """`[row column]`: offsets from -41 to 41, then none."""
    offsets, none = (image.get_array().tolist() for image in axis.images)
    return [a + b for a, b in zip(offsets, none, strict=True)]


class TestOffsets:
    def test_cells_are_means_over_the_seeds_that_learned(self):
        axis = zoo.offsets(READ).axes[0]
        assert axis.get_title() == "aligned: 2 of 3 learned"
        at20, at30 = cells(axis)
        assert (at20[41], at20[42], at20[-1]) == pytest.approx((0.9, 0.1, 0.0))
        assert (at30[41], at30[40], at30[-1]) == pytest.approx((0.8, 0.03, 0.17))
        for row in (at20, at30):
            assert sum(row) == pytest.approx(1)

    def test_far_offsets_are_in_the_outermost_columns(self):
        _, at60 = cells(zoo.offsets(READ).axes[1])
        assert (at60[0], at60[82]) == pytest.approx((0.3, 0.7))

    def test_the_index_reader_is_marked_past_training_only(self):
        aligned, scratchpad = zoo.offsets(READ).axes[:2]
        marks = [
            [(x, y) for line in axis.lines if line.get_label() == "_index" for x, y in line.get_xydata()]
            for axis in (aligned, scratchpad)
        ]
        assert marks == [[(10, 1)], [(40, 1)]]  # 30 - 20, 60 - 20
        beyond = zoo.offsets(table(offset_rows("scratchpad", {20: {"+0": 1.0}, 61: {"none": 1.0}}))).axes[0]
        assert "_index" not in [line.get_label() for line in beyond.lines]

    def test_the_line_between_trained_and_longer_lengths(self):
        for axis in zoo.offsets(READ).axes[:2]:
            assert 0.5 in [line.get_ydata()[0] for line in axis.lines]

    def test_where_none_learned_all_are_shown_and_counted(self):
        failed = table(offset_rows("cyclic", {20: {"+0": 0.4, "none": 0.6}}, learned=False))
        axis = zoo.offsets(failed).axes[0]
        assert axis.get_title() == "cyclic: 0 of 1 learned"
        assert (cells(axis)[0][41], cells(axis)[0][-1]) == pytest.approx((0.4, 0.6))

    def test_one_panel_a_family_and_format_of_the_paper_pair(self):
        rotary = offset_rows("aligned", {30: {"+10": 1.0}}, family="rotary")
        axes = zoo.offsets(pd.concat([READ, table(rotary, offset_rows("cyclic", {20: {"+0": 1.0}}))]), family=None).axes
        counts = ["ALiBi, aligned: 2 of 3", "ALiBi, scratchpad: 1 of 1", "rotary, aligned: 1 of 1"]
        assert [axis.get_title() for axis in axes[:3]] == [f"{words} learned" for words in counts]
        assert cells(axes[2])[0][51] == 1.0

    def test_shares_by_length(self):
        aligned, scratchpad = zoo.where_read(READ).axes
        one = "_parity-aligned-alibi-seed1 "
        assert data(labelled(aligned, one + "at 0: the right bit")) == pytest.approx({20: 1.0, 30: 0.9})
        assert data(labelled(aligned, one + "within ±1")) == pytest.approx({20: 1.0, 30: 0.96})
        assert data(labelled(aligned, one + "no single bit decides")) == pytest.approx({20: 0, 30: 0.04})
        assert data(labelled(aligned, "within ±1")) == pytest.approx({20: 1.0, 30: 0.83})
        third = labelled(aligned, "_parity-aligned-alibi-seed3 no single bit decides")
        assert (third.get_linestyle(), data(third)) == (":", {20: 1.0, 30: 1.0})
        assert data(labelled(scratchpad, "at 0: the right bit")) == pytest.approx({15: 1.0, 60: 0.0})
        assert shaded(aligned) == pytest.approx([20])
