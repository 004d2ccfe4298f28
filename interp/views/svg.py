"""Pieces of still pictures in SVG: text, the document, and the style that all of them share."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from interp.views.colours import FAINT, INK, PAPER

FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\""
PAD = 12
# Pixels per letter of 11 pixels, an upper estimate; names beside a heat map have 10 pixels.
LETTER, SMALL_LETTER = 5.9, 5.4

__all__ = ["FAINT", "FONT", "INK", "LETTER", "PAD", "SMALL_LETTER", "document", "text_element"]


def text_element(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    size: int = 11,
    weight: str = "400",
    colour: str = INK,
    more: str = "",
    drop: float = 0.0,
) -> str:
    """Return a text element. `drop` moves it down in em, `more` are further attributes."""
    move = f' dy="{drop}em"' if drop else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}"{move} font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}"{more}>{escape(text)}</text>'
    )


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Return a whole SVG document on a white card."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" {FONT} font-size="11" role="img" '
        f'aria-label="{escape(title, quote=True)}">\n<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
