"""An interactive circuit for browsers and notebooks: choose a node or edge, filter, read scores.

The page is complete in itself and contacts no host. Where no script runs, the still picture and a table are shown.
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
from interp.views.view import View, shows_live

if TYPE_CHECKING:
    from networkx import MultiDiGraph

HINT = (
    "Choose a node or an edge: point, click, or Tab and the arrow keys; Escape lets go. "
    "A node is shown with what it reads and writes."
)
# Hides a still picture that its live view contains.
HIDDEN = "<style>.mnemo-view > .mnemo-still[hidden] { display: none !important }</style>"
# The page must not fetch anything, whatever a label contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, eq=False, repr=False)
class CircuitView:
    """A circuit for notebooks: `CircuitView(graph)` as the last line of a cell.

    Raises `ValueError` if the graph lacks attributes listed in `interp.views.circuit.parts`.
    """

    graph: MultiDiGraph

    def __post_init__(self) -> None:
        parts_of(self.graph)

    def __repr__(self) -> str:
        return f"<View: {parts_of(self.graph).summary}>"

    def _repr_html_(self) -> str:
        """Return the view for a notebook. An untrusted one runs no script and drops inline SVG, but shows images."""
        drawn, alt = draw_circuit(self.graph), escape(parts_of(self.graph).summary)
        data = base64.b64encode(drawn.encode()).decode()
        return _fragment(self.graph, drawn, f'<img class="still" alt="{alt}" src="data:image/svg+xml;base64,{data}">')

    def _ipython_display_(self) -> None:
        """Show the circuit in a notebook: live or, after `views.show_live(False)`, the still picture."""
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        display(self.outputs(), raw=True)

    def outputs(self) -> dict[str, Any]:
        """Return what a notebook's cell keeps, by media type."""
        if shows_live():
            return {"text/html": self._repr_html_(), "text/plain": parts_of(self.graph).summary}
        return self.view().outputs()

    def view(self) -> View:
        """Return the same as a `View`, which shares its script with others on a page."""
        drawn, parts = draw_circuit(self.graph), parts_of(self.graph)
        live = _fragment(self.graph, drawn, "", "globalThis.mnemoCircuit?.()")
        return View(parts.title or "A circuit", parts.summary, drawn.encode(), live + HIDDEN, _file("js"))

    def save(self, path: str | Path) -> Path:
        """Write an interactive page (.html) or a picture (.svg, .png, .pdf), complete or absent.

        Raises `ValueError` for another suffix.
        """
        path = Path(path)
        if path.suffix == ".html":
            write_whole(path, circuit_page(self.graph))
            return path
        return self.view().save(path)


def circuit_page(graph: MultiDiGraph) -> str:
    """Return one HTML page, complete in itself: the picture of `draw_circuit` with controls and a read-out.

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
    """Return the view as part of a page, without ids and with styles that begin with its class: views do not collide.

    `image` replaces the inline picture; `script` replaces the script where a page has that elsewhere.
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
    """Return the controls, hidden until the script runs."""
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
    """Return a table with a row per edge, the strongest first. Scores are exact here."""
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
