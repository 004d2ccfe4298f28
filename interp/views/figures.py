"""How does a matplotlib figure become a view? The drawing as SVG, on white; numbers beside it as a table."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from interp.views.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.drawing.accuracy import Point
    from interp.views.curve import Points

# A still picture of more bytes than this is a PNG: a scatter of thousands of points.
MOST_BYTES = 150_000
# On a phone, a figure stays legible and scrolls.
NARROW = (
    '<style class="mnemo-figure">.mnemo-view:has(> .mnemo-figure) > .mnemo-still { overflow-x: auto; }\n'
    ".mnemo-view:has(> .mnemo-figure) > .mnemo-still img { min-width: 600px; }</style>"
)
STYLE = "font: 13px/1.4 system-ui, sans-serif; font-variant-numeric: tabular-nums"


def as_view(figure: Figure, title: str, alt: str, columns: Sequence[str] = (), rows: Sequence[Sequence] = ()) -> View:
    """The figure as a view: an SVG, or a PNG where that would be large; the same bytes for the same numbers.

    `columns` and `rows` are shown below it as a table that can be opened, for readers of text.
    """
    import matplotlib

    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mnemoscope", "svg.fonttype": "path"}):
        figure.savefig(data, format="svg", facecolor="white", metadata={"Date": None})
    if len(data.getvalue()) > MOST_BYTES:
        data = io.BytesIO()
        figure.savefig(data, format="png", facecolor="white", dpi=130, metadata={"Software": None})
    return View(title, alt, data.getvalue(), NARROW + (_table(columns, rows) if rows else ""))


def by_length(curves: Mapping[str, Sequence[Point]], trained: int | None, title: str = "Accuracy by length") -> View:
    """`experiments.drawing.accuracy.accuracy_by_length` as a view, with its numbers."""
    from experiments.drawing.accuracy import TITLES, accuracy_by_length

    rows = [
        (name, TITLES.get(p.metric, p.metric), p.mode, p.length, *_three(p.estimate), f"{p.chance:.3g}")
        for name, points in curves.items()
        for p in points
    ]
    range_ = f" Trained up to length {trained}, which is shaded." if trained else ""
    alt = f"{title}: curves of {', '.join(curves)}, by length.{range_}"
    columns = ("model", "measure", "labels", "length", "value", "low", "high", "chance")
    return as_view(accuracy_by_length(curves, trained), title, alt, columns, rows)


def faithfulness(lines: Mapping[str, Points], edges: int, title: str = "Faithfulness by size") -> View:
    """`interp.views.curve.faithfulness_by_size` as a view, with its numbers."""
    from interp.views.curve import faithfulness_by_size

    rows = [
        (name, size, *(f"{x:.3f}" for x in three))
        for name, line in lines.items()
        for size, *three in zip(line.sizes, line.values, line.low, line.high, strict=True)
    ]
    alt = f"{title}: share of what the full model does, by number of edges (of {edges}); lines: {', '.join(lines)}."
    return as_view(
        faithfulness_by_size(lines, edges, title), title, alt, ("line", "edges", "value", "low", "high"), rows
    )


def _three(estimate) -> tuple[str, str, str]:  # type: ignore[no-untyped-def]
    return f"{estimate.value:.3f}", f"{estimate.low:.3f}", f"{estimate.high:.3f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>\n" for row in rows)
    return (
        f'<details style="{STYLE}"><summary>The numbers</summary><div style="overflow-x: auto"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div></details>"
    )
