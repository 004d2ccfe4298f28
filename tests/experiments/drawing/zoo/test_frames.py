"""What every figure of the table asks of it."""

import pandas as pd
import pytest

from experiments.drawing.zoo.frames import NEEDED
from experiments.support.results import save_figure
from tests.experiments.drawing.zoo.runs import FAMILY, POSED, READ, rows_of, table, zoo

OF_TABLE = (zoo.by_family, zoo.variants, zoo.gaps, zoo.addition, zoo.offsets, zoo.where_read, zoo.transfer)
WHOLE = pd.concat(
    [
        FAMILY,
        READ,
        table(rows_of("gap2"), rows_of("aligned", task="addition", lengths=(5, 10, 14), trained_to=10)),
        POSED[POSED["posed"] != "parity-" + POSED["format"]],
    ]
)


@pytest.mark.parametrize("draw", OF_TABLE)
class TestEveryFigureOfTheTable:
    def test_it_is_drawn_and_the_same_numbers_give_the_same_bytes(self, draw, tmp_path):
        for k, frame in enumerate((WHOLE, WHOLE, WHOLE.assign(value=WHOLE["value"] / 2))):
            save_figure(draw(frame), tmp_path / f"{k}.svg")
        a, b, c = ((tmp_path / f"{k}.svg").read_bytes() for k in range(3))
        assert a == b != c

    def test_the_order_of_rows_does_not_matter(self, draw, tmp_path):
        save_figure(draw(WHOLE), tmp_path / "a.svg")
        save_figure(draw(WHOLE.sample(frac=1, random_state=0)), tmp_path / "b.svg")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

    def test_an_empty_table_has_no_rows(self, draw):
        with pytest.raises(zoo.NoRows, match="the table has no rows"):
            draw(pd.DataFrame(columns=list(zoo.COLUMNS)))

    @pytest.mark.parametrize("column", NEEDED)
    def test_a_missing_column_is_named(self, draw, column):
        with pytest.raises(ValueError, match=f"the table lacks {column}$") as found:
            draw(WHOLE.drop(columns=column))
        assert not isinstance(found.value, zoo.NoRows)

    def test_runs_that_were_not_trained_alike_are_not_pooled(self, draw):
        with pytest.raises(ValueError, match=r"different shares of rehearsal \(0.0, 0.5\)"):
            draw(pd.concat([WHOLE, WHOLE.assign(rehearsal=0.0, run=WHOLE["run"] + "x")]))

    def test_duplicate_rows_are_refused(self, draw):
        with pytest.raises(ValueError, match=r"duplicate row: (parity|addition)-"):
            draw(pd.concat([WHOLE, WHOLE]))


@pytest.mark.parametrize(
    ("draw", "frame", "message"),
    [
        (zoo.gaps, table(rows_of("aligned")), "no rows with a gap of 1 or more"),
        (zoo.variants, table(rows_of("aligned"), rows_of("gap1")), "a format other than aligned"),
        (zoo.variants, table(rows_of("numeric", "rotary")), "family alibi"),
        (zoo.addition, FAMILY, "task addition"),
        (zoo.offsets, FAMILY, "no rows of offsets"),
        (zoo.transfer, FAMILY, "was posed another"),
        (zoo.by_family, table(rows_of("numeric")), "format scratchpad, aligned"),
    ],
)
def test_a_figure_without_its_rows_says_which(draw, frame, message):
    with pytest.raises(zoo.NoRows, match=message):
        draw(frame)
