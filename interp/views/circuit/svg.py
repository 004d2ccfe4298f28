"""A circuit as an SVG picture.

The embedding is at the bottom and the logits on top, as the residual stream is usually drawn. Every edge of the graph
is a separate line, also between the same two nodes, as scores may differ in sign and a line of their sum would hide
that. The graph's attributes are listed in `interp.views.circuit.parts`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from interp.views.circuit.boxes import FONT, LINE, PORT, Box, text_width, wrapped
from interp.views.circuit.layout import Band, Layout, lay_out
from interp.views.circuit.parts import Link, Parts, count, parts_of

if TYPE_CHECKING:
    from networkx import MultiDiGraph

SIGNS = {"positive": "#2166ac", "negative": "#b2182b", "zero": "#777777"}  # the ends of RdBu
FEW = 5  # edges that are listed below the picture
LEAST = 460.0  # pixels; the legend needs them
PAD, NAMES = 16, 62  # pixels around the picture, and at the left for the layers' names
# Attributes give the light picture, also without style sheets; on a dark screen these rules win.
STYLE = """
.mnemo-circuit text { font-family: system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; }
@media screen and (prefers-color-scheme: dark) {
.mnemo-circuit .ground { fill: #14171c; }
.mnemo-circuit .band rect { fill: #1d2128; }
.mnemo-circuit text { fill: #e6e6e6; }
.mnemo-circuit .faint { fill: #a2a8b2; }
.mnemo-circuit .node rect { fill: #2a303a; stroke: #9aa3b0; }
.mnemo-circuit .port.read rect { fill: #56606f; }
.mnemo-circuit .positive { stroke: #6cb0ee; }
.mnemo-circuit .negative { stroke: #f58a78; }
.mnemo-circuit .zero { stroke: #a0a0a0; }
}
"""


def draw_circuit(graph: MultiDiGraph) -> str:
    """Return the circuit as an SVG document: layers from the bottom up, the same bytes for the same graph.

    A line's width is the absolute score; blue is positive, red and dashed is negative. Tabs under a head stand for q,
    k and v. Tooltips give scores to six digits, `data-score` exactly. Raises `ValueError` if the graph lacks attributes
    listed in `interp.views.circuit.parts`.

    >>> from networkx import MultiDiGraph
    >>> graph = MultiDiGraph()
    >>> graph.add_node("embed", kind="embed")
    >>> graph.add_node("L0H1", kind="head", layer=0, head=1, label="matching label")
    >>> _ = graph.add_edge("embed", "L0H1", reads="k", place="input", score=-0.5)
    >>> "embed -&gt; L0H1 k at input: -0.5" in draw_circuit(graph)
    True
    """
    parts = parts_of(graph)
    layout = lay_out(parts)
    width = max(layout.width + NAMES, LEAST)
    heading, top = _heading(parts, width)
    legend, bottom = _legend(parts, layout, width)
    shift = NAMES + (width - NAMES - layout.width) / 2
    whole, high = width + 2 * PAD, top + layout.height + bottom + 2 * PAD
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mnemo-circuit" role="img" width="{_n(whole)}" '
        f'height="{_n(high)}" viewBox="0 0 {_n(whole)} {_n(high)}" '
        f'aria-label={_attribute(". ".join(filter(None, (parts.title, parts.summary))))} font-size="{FONT}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">',
        f"<desc>{_text(parts.summary)}</desc>",
        f"<style>{STYLE}</style>",
        '<rect class="ground" width="100%" height="100%" fill="#ffffff"/>',
        f'<g transform="translate({PAD} {PAD})">{heading}</g>',
        f'<g transform="translate({PAD} {_n(PAD + top)})">',
        *(_band(band, width) for band in layout.bands),
        f'</g>\n<g transform="translate({_n(PAD + shift)} {_n(PAD + top)})">',
        '<g class="edges" fill="none">',
        *(_edge(link, layout) for link in reversed(parts.strongest)),  # the strongest are on top
        '</g>\n<g class="nodes">',
        *(_node(box, parts, layout.named) for box in layout.boxes),
        f'</g>\n</g>\n<g transform="translate({PAD} {_n(PAD + top + layout.height)})">{legend}</g>',
        "</svg>",
    ]
    return "\n".join(drawn) + "\n"


def _edge(link: Link, layout: Layout) -> str:
    """Return a line that is straight beside the rows and bends between them."""
    pieces = layout.ways[link]
    x, _, y = pieces[0]
    path = [f"M{_n(x)} {_n(y)}"]
    for to, low, high in pieces[1:]:
        middle = (y + low) / 2
        path.append(f"C{_n(x)} {_n(middle)} {_n(to)} {_n(middle)} {_n(to)} {_n(low)}")
        if high != low:
            path.append(f"V{_n(high)}")
        x, y = to, high
    return (
        f'<path class="edge {link.sign}" data-from={_attribute(link.writer)} data-to={_attribute(link.reader)} '
        f'data-reads="{link.reads}" data-place={_attribute(link.place)} data-score="{link.score!r}" '
        f'data-rank="{link.rank}" stroke="{SIGNS[link.sign]}" {_stroke(link.sign, layout.widths[link])} '
        f'stroke-opacity="0.85" d="{"".join(path)}"><title>{_text(str(link))}</title></path>'
    )


def _node(box: Box, parts: Parts, named: bool) -> str:
    """Return a box with name (bold) and label. A head has tabs for q, k and v, faint where nothing is read."""
    node = box.node
    read = {e.reads for e in parts.links if e.reader == node.name}
    into, out = (sum(getattr(e, end) == node.name for e in parts.links) for end in ("reader", "writer"))
    tip = f"{node.text} ({count(into, 'edge')} in, {out} out)"
    drawn = [
        f'<g class="node {node.kind}" data-node={_attribute(node.name)} data-row="{box.row}" '
        f"data-text={_attribute(node.text)}><title>{_text(tip)}</title>"
    ]
    if node.kind == "head":
        for reads in "qkv":
            left, right = box.port(reads)
            drawn.append(
                f'<g class="port{" read" * (reads in read)}" data-port="{reads}"><rect x="{_n(left + 1)}" '
                f'y="{_n(box.y + box.height - 3)}" width="{_n(right - left - 2)}" height="{PORT + 3}" rx="3" '
                f'fill="{"#d5dae1" if reads in read else "#f4f5f7"}" stroke="#5b6470" stroke-width="0.7"/>'
                f'<text class="faint" x="{_n((left + right) / 2)}" y="{_n(box.y + box.height + 9.5)}" '
                f'font-size="12" text-anchor="middle" fill="{"#22262c" if reads in read else "#69717c"}">{reads}'
                "</text></g>"
            )
    drawn.append(
        f'<rect class="box" x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}" '
        f'rx="{2 if node.kind == "mlp" else 7}" fill="#f4f5f7" stroke="#5b6470"/>'
    )
    line = ' text-decoration="underline"' if node.label and not named else ""
    y = box.y + (box.height - LINE * len(box.lines)) / 2 + LINE - 3.5
    for k, words in enumerate(box.lines):
        bold = len(node.name) if k == 0 and words.startswith(node.name) else 0
        drawn.append(
            f'<text x="{_n(box.x + box.width / 2)}" y="{_n(y + k * LINE)}" text-anchor="middle" fill="#15181c">'
            f'<tspan font-weight="bold"{line}>{_text(words[:bold])}</tspan>{_text(words[bold:])}</text>'
        )
    return "".join(drawn) + "</g>"


def _band(band: Band, width: float) -> str:
    """Return the stripe of a layer, with its name at the left."""
    words = "nothing in the circuit" if band.empty else ""
    y = band.y + band.height / 2 + 4
    return (
        f'<g class="band{" empty" * band.empty}"><rect y="{_n(band.y)}" width="{_n(width)}" '
        f'height="{_n(band.height)}" fill="#f6f7f9" rx="4"/>'
        f'<text class="faint" x="6" y="{_n(y)}" font-size="12" fill="#5b6470">layer {band.layer}'
        f"{': ' * band.empty}{words}</text></g>"
    )


def _heading(parts: Parts, width: float) -> tuple[str, float]:
    """Return title and subtitle, wrapped, and their height."""
    drawn, y = [], 0.0
    for words, size, weight, colour in (
        (parts.title, 16, "bold", "#15181c"),
        (parts.subtitle, 12, "normal", "#5b6470"),
    ):
        for line in wrapped(words, width, size, weight == "bold"):
            y += size * 1.35
            faint = ' class="faint"' * (weight == "normal")
            drawn.append(
                f'<text{faint} x="0" y="{_n(y - 4)}" font-size="{size}" font-weight="{weight}" '
                f'fill="{colour}">{_text(line)}</text>'
            )
    return "".join(drawn), y + 10 * bool(drawn)


def _legend(parts: Parts, layout: Layout, width: float) -> tuple[str, float]:
    """Return the keys of colour, dashes, width and tabs, wrapped to the picture's width, and their height."""
    entries: list[tuple[str, str, float]] = [
        ("positive", "positive score", 2.5),
        ("negative", "negative score", 2.5),
    ]
    if any(e.sign == "zero" for e in parts.links):
        entries.append(("zero", "score zero", 1.5))
    if parts.links:
        strongest = max(layout.widths.values())
        most = abs(parts.strongest[0].score)
        entries += [("neutral", f"|score| {most:.3g}", strongest)]
        if most:
            entries.append(("neutral", f"|score| {most / 4:.3g}", 0.8 + (strongest - 0.8) / 4))
    notes = [count(len(parts.links), "edge"), "read from the bottom up"]
    if any(box.node.kind == "head" for box in layout.boxes):
        notes.append("q, k, v: what a head reads by")
    if not layout.named:
        notes.append("underlined: has a label, in its tooltip")
    drawn, x, y = [], 0.0, 26.0
    for sign, words, thick in [*entries, *(("", note, 0.0) for note in notes)]:
        room = (38 if sign else 0) + text_width(words, 11, bold=False) + 14
        if x and x + room > width:
            x, y = 0.0, y + 18
        if sign:
            drawn.append(
                f'<line class="{sign if sign in SIGNS else "zero"}" x1="{_n(x)}" x2="{_n(x + 32)}" '
                f'y1="{_n(y - 4)}" y2="{_n(y - 4)}" stroke="{SIGNS.get(sign, SIGNS["zero"])}" '
                f"{_stroke(sign, thick)}/>"
            )
        drawn.append(
            f'<text class="faint" x="{_n(x + (38 if sign else 0))}" y="{_n(y)}" font-size="12" '
            f'fill="#3c434d">{_text(words)}</text>'
        )
        x += room
    if parts.links:
        few = parts.strongest[:FEW]
        first = "strongest edges" if len(few) < len(parts.links) else "in words"
        for line in (f"{first}:", *(line for e in few for line in wrapped(str(e), width - 12, 11))):
            y += 18 if line.startswith(first) else 15
            drawn.append(
                f'<text class="faint" x="{0 if line.startswith(first) else 12}" y="{_n(y)}" font-size="12" '
                f'fill="#3c434d">{_text(line)}</text>'
            )
    return f'<g class="legend">{"".join(drawn)}</g>', y + 4


def _stroke(sign: str, width: float) -> str:
    """Return attributes for a width, and dashes for a negative sign, so that the sign shows without colour."""
    dash = f' stroke-dasharray="{_n(6 + 1.5 * width)} {_n(2 + 0.6 * width)}"' if sign == "negative" else ""
    return f'stroke-width="{width:.3f}"{dash}'


def _n(value: float) -> str:
    """Return a length with at most two decimals: `_n(2.0) == "2"`."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _text(words: str) -> str:
    """Escape a text for XML; characters that XML forbids become U+FFFD."""
    return escape(re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", words))


def _attribute(words: str) -> str:
    """Return a quoted attribute, escaped as by `_text`."""
    return quoteattr(re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", words))
