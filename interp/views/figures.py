"""Matplotlib figures as views: an SVG that follows the dark theme, with the numbers as a table below it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from interp.support.printable import visible
from interp.views.colours import PAPER, dark_pair
from interp.views.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interp.views.curve import CurveLine

# A larger still picture is a PNG: a scatter of thousands of points.
MOST_BYTES = 200_000
# On a phone, a figure without a narrow version keeps its size and scrolls.
SCROLLING = (
    '<style class="mnemo-figure">.mnemo-view:has(> .mnemo-figure) > .mnemo-still { overflow-x: auto; }\n'
    ".mnemo-view:has(> .mnemo-figure) > .mnemo-still img { min-width: 600px; }</style>"
)
NUMBERS = (
    "<style>@media screen and (max-width: 600px) { .mnemo-numbers :is(th, td) "
    "{ font-size: 11px; padding: 1px 3px; overflow-wrap: anywhere; } }</style>"
)
TABLE_STYLE = "font: 13px/1.4 system-ui, sans-serif; font-variant-numeric: tabular-nums"


def as_view(
    figure: Figure,
    title: str,
    alt: str,
    columns: Sequence[str] = (),
    rows: Sequence[Sequence] = (),
    narrow: Figure | None = None,
) -> View:
    """Return the figure as a view: an SVG, or a PNG where that would be large; the same bytes for the same numbers.

    `columns` and `rows` are shown below it as a table that opens on a click. `narrow` is the same figure for a phone,
    with its panels below each other.
    """
    still = svg_of(figure).encode()
    if len(still) > MOST_BYTES:
        data = io.BytesIO()
        figure.savefig(data, format="png", facecolor="white", dpi=130, metadata={"Software": None})
        still = data.getvalue()
    live = ("" if narrow else SCROLLING) + (_table(columns, rows) if rows else "")
    phone = svg_of(narrow).encode() if narrow else b""
    return View(title, alt, still, live, narrow=phone, figure=lambda: figure)


def svg_of(figure: Figure) -> str:
    """Return a figure as SVG, the same text for the same numbers.

    `$` in a name is a dollar sign, not a formula, and a character that is not printable is escaped. A figure without
    images follows the reader's dark theme: the file has the light colours, and a style sheet with their dark pairs. A
    figure with images keeps its white card, as text lies on the images' colours.
    """
    import matplotlib

    literal_dollars(figure)
    escape_texts(figure)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mnemoscope", "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", facecolor=PAPER, metadata={"Date": None})
    has_images = any(axes.images for axes in figure.axes)
    return text.getvalue() if has_images else with_dark_theme(text.getvalue())


def literal_dollars(figure: Figure) -> None:
    """Turn off formulas in all texts but the tick labels of logarithmic axes, which matplotlib writes as formulas."""
    from matplotlib.text import Text

    keep: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                keep |= set(axis.get_ticklabels(which="both"))
    for text in figure.findobj(Text):
        if text not in keep:
            text.set_parse_math(False)  # type: ignore[attr-defined]


def escape_texts(figure: Figure) -> None:
    r"""Escape characters of names that are not printable, such as ESC, in all texts; line breaks stay.

    Fonts have no glyphs for them, and matplotlib's warnings would print them on the terminal.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        shown = text.get_text()  # type: ignore[attr-defined]
        if (escaped := visible(shown, keep="\n")) != shown:
            text.set_text(escaped)  # type: ignore[attr-defined]
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # tick labels are made again when the figure is drawn
            formatter = axis.get_major_formatter()
            formatter.format_ticks = _escaping(formatter.format_ticks)  # type: ignore[method-assign]


def _escaping(format_ticks: Callable[[Any], list[str]]) -> Callable[[Any], list[str]]:
    return lambda values: [visible(text, keep="\n") for text in format_ticks(values)]


def with_dark_theme(svg: str) -> str:
    """Return a figure's SVG with a style sheet that replaces each colour by its pair on a dark page.

    >>> "fill: #14171c !important" in with_dark_theme('<svg><defs></defs><path style="fill: #ffffff"/></svg>')
    True
    """
    pairs = sorted(set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", svg)))
    rules = "\n".join(
        f'[style*="{kind}: {colour}"] {{ {kind}: {dark_pair(colour)} !important; }}' for kind, colour in pairs
    )
    # Black text and markers have no colour of their own in matplotlib's SVG.
    rules = f"svg {{ fill: {dark_pair('#000000')}; }}\n{rules}"
    style = f"<style>@media screen and (prefers-color-scheme: dark) {{\n{rules}\n}}</style>\n"
    head, tag, rest = svg.partition("<defs>")
    return f"{head}{style}{tag}{rest}" if tag else svg


def faithfulness(lines: Mapping[str, CurveLine], edges: int, title: str = "Faithfulness by size") -> View:
    """Return `interp.views.curve.faithfulness_by_size` as a view, with its numbers."""
    from interp.views.curve import faithfulness_by_size

    rows = [
        (name, size, *(f"{x:.3f}" for x in numbers))
        for name, line in lines.items()
        for size, *numbers in zip(line.sizes, line.values, line.low, line.high, strict=True)
    ]
    alt = f"{title}: share of what the full model does, by number of edges (of {edges}); lines: {', '.join(lines)}."
    figure, narrow = (faithfulness_by_size(lines, edges, title, narrow) for narrow in (False, True))
    return as_view(figure, title, alt, ("line", "edges", "value", "low", "high"), rows, narrow)


def _table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>\n" for row in rows)
    return (
        f'{NUMBERS}<details class="mnemo-numbers" style="{TABLE_STYLE}"><summary>The numbers</summary>'
        '<div style="overflow-x: auto"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div></details>"
    )
