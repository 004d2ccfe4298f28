"""The figure of lists: what each row shows, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.drawing.lists import PANELS, list_shares, row_name
from probes.binding import Binding, binding_verdict
from probes.binding.found import Share
from probes.evidence import Interval


def around(x: float) -> Interval:
    return Interval(x, x - 0.02, x + 0.02)


def verdict(run: str, task: str, items: int, refusal: str | None = None, **values: float) -> dict[str, Any]:
    """Return a verdict in which each arm has a value, and a control of 0.05."""
    arms = {arm.replace("_", " "): Share(around(x), around(0.05), around(x - 0.05)) for arm, x in values.items()}
    found = Binding(
        task, items, 128, 32, 0, around(0.5 if refusal else 0.97), 0.95, {} if refusal else arms,
        remainder=None if refusal else around(0.2), refusal=refusal,
    )  # fmt: skip
    return {"run": run, **binding_verdict(run, found).to_json()}


def drawn(figure: Any, panel: str) -> list[tuple[float, float]]:
    """Return the filled and open markers of a panel: share and row."""
    axis = figure.axes[list(PANELS).index(panel)]
    markers = [line for line in axis.lines if line.get_marker() not in ("None", "x", "", None)]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in markers]


def test_each_share_is_drawn_in_its_row_and_panel() -> None:
    rows = [
        verdict("small", "recall", 6, label_at_list=1.0, label_at_query=0.9, order=0.0, position=0.01),
        verdict("large", "list-letters", 12, label_at_list=0.5, label_at_query=0.4, order=0.2, position=0.3),
        verdict("large", "list-bullets", 6, order=0.7, position=0.1),
    ]
    figure = list_shares(rows)
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == [row_name(rows[1]), row_name(rows[2]), row_name(rows[0])]  # lists by kind, then recall
    assert [x for x, _ in drawn(figure, "own label")] == [0.5, 0.4, 1.0, 0.9]
    assert drawn(figure, "order") == [(0.2, 0), (0.7, 1), (0.0, 2)]
    assert [x for x, _ in drawn(figure, "position")] == [0.3, 0.1, 0.01]
    assert [x for x, _ in drawn(figure, "remainder")] == [0.2, 0.2, 0.2]
    assert [text.get_text() for text in figure.axes[0].texts] == ["no such address"]


def test_what_the_model_cannot_do_says_so_with_its_accuracy() -> None:
    figure = list_shares([verdict("large", "lookup-letters", 6, refusal="the model gives the right value in ...")])
    assert "not applicable: accuracy 0.50" in [text.get_text() for axis in figure.axes for text in axis.texts]
    assert not any(drawn(figure, panel) for panel in PANELS)
    with pytest.raises(ValueError, match="no verdicts"):
        list_shares([])


def test_on_a_phone_the_panels_stand_two_by_two_with_the_same_marks() -> None:
    rows = [verdict("small", "recall", 6, label_at_list=1.0, label_at_query=0.9, order=0.1, position=0.2)]
    wide, narrow = list_shares(rows), list_shares(rows, narrow=True)
    assert [drawn(wide, panel) for panel in PANELS] == [drawn(narrow, panel) for panel in PANELS]
    grid = narrow.axes[0].get_gridspec()
    assert grid is not None
    assert grid.get_geometry() == (2, 2)
    assert narrow.get_figwidth() * 110 <= 430
