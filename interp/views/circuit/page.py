"""What does one part of a circuit read and write? The picture with a small script: for a browser and for notebooks.

Everything is in the page: no host is contacted, and where no script runs the still picture and a table are shown.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.support.writing import write_whole
from interp.views.circuit.parts import Parts, count, parts_of
from interp.views.circuit.svg import draw_circuit
from interp.views.view import View, shows_live, still_outputs

if TYPE_CHECKING:
    from networkx import MultiDiGraph

HINT = (
    "Choose a node or an edge: point, click, or Tab and the arrow keys; Escape lets go. "
    "A node is shown with what it reads and writes."
)
# Of a still picture that its live view has taken in.
HIDDEN = "<style>.mnemo-view > .mnemo-still[hidden] { display: none !important }</style>"
# Nothing may be fetched, whatever a label says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, eq=False)
class CircuitView:
    """A circuit that a notebook shows: `CircuitView(graph)` as the last line of a cell.

    The graph keeps to `interp.views.circuit.parts`; `ValueError` if not.
    """

    graph: MultiDiGraph

    def __post_init__(self) -> None:
        parts_of(self.graph)

    def _repr_html_(self) -> str:
        """The view for a notebook. One that is not trusted runs no script and drops inline SVG, but shows images."""
        drawn, words = draw_circuit(self.graph), escape(parts_of(self.graph).summary)
        data = base64.b64encode(drawn.encode()).decode()
        return _fragment(self.graph, drawn, f'<img class="still" alt="{words}" src="data:image/svg+xml;base64,{data}">')

    def _ipython_display_(self) -> None:
        """For a notebook, as any view: live or, after `views.show_live(False)`, the still picture."""
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        display(self.outputs(), raw=True)

    def outputs(self) -> dict[str, Any]:
        """What a notebook's cell keeps, by media type."""
        words = parts_of(self.graph).summary
        if shows_live():
            return {"text/html": self._repr_html_(), "text/plain": words}
        return still_outputs(draw_circuit(self.graph).encode(), "image/svg+xml", words)

    def view(self) -> View:
        """The same as a `View`, to stand on a page beside others, with its script once."""
        drawn, parts = draw_circuit(self.graph), parts_of(self.graph)
        live = _fragment(self.graph, drawn, "", "globalThis.mnemoCircuit?.()")
        return View(parts.title or "A circuit", parts.summary, drawn.encode(), live + HIDDEN, _file("js"))

    def save(self, path: str | Path) -> Path:
        """Writes a picture (.svg) or an interactive page (.html), whole or not at all. `ValueError` for another."""
        path = Path(path)
        match path.suffix:
            case ".svg":
                text = draw_circuit(self.graph)
            case ".html":
                text = circuit_page(self.graph)
            case other:
                raise ValueError(f"a circuit is saved as .svg or .html; got {other or 'no suffix'!r} in {path.name!r}")
        write_whole(path, text)
        return path


def circuit_page(graph: MultiDiGraph) -> str:
    """One HTML page that needs nothing else: the picture of `draw_circuit`, and choosing, filtering and reading out.

    The view's element gets `data-ready="true"` when the script has run. Raises `ValueError` as `draw_circuit` does.
    """
    title = escape(parts_of(graph).title or "A circuit")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>body {{ margin: 0 }}</style>\n</head>\n<body>\n<main>\n"
        f"{_fragment(graph, draw_circuit(graph))}</main>\n</body>\n</html>\n"
    )


def _fragment(graph: MultiDiGraph, drawn: str, image: str | None = None, script: str = "") -> str:
    """The view as part of a page. It has no ids, and its styles begin with its class, so that views do not collide.

    `image` stands in for the picture; `script` for the whole script, which a page has elsewhere.
    """
    parts = parts_of(graph)
    wide = re.search(r' width="([\d.]+)"', drawn)
    assert wide
    style, script = _file("css"), script or _file("js")
    return (
        f'<div class="mnemo-circuit-view" style="--wide: {wide[1]}px">\n<style>\n{style}</style>\n{_controls(parts)}'
        f'<div class="stage"><div class="frame">\n{drawn if image is None else image}</div>\n'
        f'<div class="readout" data-script hidden><p class="said" aria-live="polite">{HINT}</p><ul></ul></div></div>\n'
        f"{_table(parts)}<script>\n{script}</script>\n</div>\n"
    )


def _file(kind: str) -> str:
    return Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8")


def _controls(parts: Parts) -> str:
    """Hidden until the script runs: without it they would do nothing."""
    n = len(parts.links)

    def boxes(what: str, values: list[str]) -> str:
        inputs = "".join(
            f'<label><input type="checkbox" data-{what}="{escape(value)}" checked autocomplete="off">'
            f"{escape(value)}</label>"
            for value in values
        )
        return f"<fieldset><legend>{what}</legend>{inputs}</fieldset>\n"

    reads = sorted({e.reads for e in parts.links}, key=["q", "k", "v", "mlp", "logits"].index)
    return (
        '<div class="controls" data-script hidden>\n'
        f'<label>show the strongest <input class="strongest" type="range" min="{min(1, n)}" max="{n}" value="{n}" '
        f'autocomplete="off"{" disabled" * (n < 2)}><output>{n}</output></label>\n'
        f"{boxes('reads', reads)}{boxes('place', sorted({e.place for e in parts.links}))}"
        '<label><input class="fit" type="checkbox" autocomplete="off">fit to the width</label>\n'
        '<button type="button" class="reset">show everything</button>\n</div>\n'
        '<p class="status" role="status" data-script hidden></p>\n'
    )


def _table(parts: Parts) -> str:
    """Every edge in a row, the strongest first: for readers of text, and for copying. Scores are whole here."""
    text = {node.name: escape(node.text) for node in parts.nodes}
    rows = "".join(
        f'<tr data-rank="{e.rank}"><td>{text[e.writer]}</td><td>{text[e.reader]}</td><td>{e.reads}</td>'
        f"<td>{escape(e.place)}</td><td>{e.score!r}</td></tr>\n"
        for e in parts.strongest
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("writer", "reader", "reads", "place", "score"))
    return (
        f"<details><summary>The edges as a table ({count(len(parts.links), 'edge')})</summary>\n"
        f'<div class="rows"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div></details>\n'
    )
