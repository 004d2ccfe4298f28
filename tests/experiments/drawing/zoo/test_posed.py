"""The same weights, posed other formats: what stands in each cell."""

import numpy as np
import pytest

from tests.experiments.drawing.zoo.runs import POSED, value_of, zoo


class TestTransfer:
    def test_cells_hold_medians_over_the_seeds_that_learned(self):
        at20, at40 = zoo.transfer(POSED).axes
        assert (at20.get_title(), at40.get_title()) == ("20 bits (trained length)", "40 bits (past training)")
        assert [t.get_text() for t in at20.get_yticklabels()] == ["aligned (2 seeds)", "constant (3 seeds)"]
        assert [t.get_text() for t in at20.get_xticklabels()] == ["aligned", "constant"]
        mean = (value_of("step", "forced", 20, 1) + value_of("step", "forced", 20, 2)) / 2
        middle = value_of("step", "forced", 20, 2)
        assert np.asarray(at20.images[0].get_array()) == pytest.approx(np.array([[mean, mean], [middle, middle]]))
        assert at20.texts[0].get_text() == f"{mean:.3f}"[1:4]

    def test_what_was_not_measured_is_hatched_and_has_no_number(self):
        at20, at40 = zoo.transfer(POSED).axes
        assert [len([p for p in axis.patches if p.get_label() == "_none"]) for axis in (at20, at40)] == [0, 1]
        assert len(at40.texts) == 3
        assert all(p.get_hatch() for p in at40.patches if p.get_label() == "_none")

    def test_the_formats_of_training_are_framed(self):
        at20 = zoo.transfer(POSED).axes[0]
        own = [p.get_center() for p in at20.patches if p.get_label() == "_own"]
        assert np.array(own) == pytest.approx(np.array([(0, 0), (1, 1)]))

    def test_nearly_right_is_not_written_as_right(self):
        frame = POSED.assign(value=0.9996)
        assert {t.get_text() for t in zoo.transfer(frame).axes[0].texts} == {".99"}

    def test_lengths_can_be_chosen(self):
        (axis,) = zoo.transfer(POSED, lengths=(10,)).axes
        assert axis.get_title().startswith("10 bits")
        with pytest.raises(zoo.NoRows, match="not measured at length 25"):
            zoo.transfer(POSED, lengths=(25,))
