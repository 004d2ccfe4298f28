"""What is a view? A picture that a notebook shows, a file keeps, and a page without script still has something of."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from interp.support.writing import write_whole

# A page that may fetch nothing: everything that it needs is in it.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)
STILLS = {b"\x89PNG": "image/png", b"<svg": "image/svg+xml", b"<?xml": "image/svg+xml"}
# Pixels of a notebook's column, and where an SVG says its size.
COLUMN = 760
SIZE = re.compile(r'width="([\d.]+)(pt|px|)" height="([\d.]+)(?:pt|px|)"')
# What notebooks are shown, and the bundles that this one has already: see `show_live`.
_shown = {"live": True}
_carried: set[str] = set()


def show_live(live: bool) -> None:
    """Whether notebooks get live views from here on (as they do unasked), or their still pictures.

    Stills are for notebooks that are read where no script runs, and are a hundredth of the size. A notebook carries the
    script of each kind of view once, with the first view that is shown after this call (or the start); where that cell
    is run again by itself and the notebook is then opened anew, views show their stills until all is run again.
    """
    _shown["live"] = live
    _carried.clear()


@dataclass(frozen=True, eq=False)
class View:
    """A picture, and what takes its place where script runs.

    `title` is a few words, `alt` says in words what is to be seen (alternative text), `still` is a whole PNG or SVG
    file. `live` is an HTML fragment with its own data, style and script, without ids, so that any number of them can
    stand on a page; "" where the still picture is all there is. `bundle` is script that all views of one kind share
    and that a page carries once.

    >>> View("a dot", "a dot", b'<svg xmlns="http://www.w3.org/2000/svg"/>').media
    'image/svg+xml'
    """

    title: str
    alt: str
    still: bytes
    live: str = ""
    bundle: str = ""

    def __post_init__(self) -> None:
        _ = self.media
        if not self.title or not self.alt:
            raise ValueError("a view needs a title and alternative text: what it shows, in words")

    @property
    def media(self) -> str:
        """The media type of the still picture. Raises `ValueError` for what is neither PNG nor SVG."""
        for start, media in STILLS.items():
            if self.still.startswith(start):
                return media
        raise ValueError(f"a still picture is a PNG or SVG file; this one starts with {self.still[:8]!r}")

    def picture(self) -> str:
        """The still picture as an HTML image."""
        data = base64.b64encode(self.still).decode()
        return (
            f'<img class="still" style="max-width: 100%; height: auto" alt="{escape(self.alt, quote=True)}" '
            f'src="data:{self.media};base64,{data}">'
        )

    def fragment(self) -> str:
        """The view as part of a page that holds its `bundle`: the still picture, which script replaces."""
        return f'<div class="mnemo-view"><div class="mnemo-still">{self.picture()}</div>{self.live}</div>\n'

    def _repr_html_(self) -> str:
        """For a notebook: untrusted ones run no script, and show the picture."""
        return (f"<script>{self.bundle}</script>\n" if self.bundle else "") + self.fragment()

    def _ipython_display_(self) -> None:
        """For a notebook, in place of every other form of it: the live view or the still picture, and words."""
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        found = self.outputs()
        if shows_live() and self.bundle in _carried:
            found["text/html"] = self.fragment()
        elif shows_live() and self.bundle:
            _carried.add(self.bundle)
        display(found, raw=True)

    def outputs(self) -> dict[str, Any]:
        """What a notebook's cell keeps, by media type: the live view or, after `show_live(False)`, the still picture.

        >>> View("a dot", "a dot", b'<svg xmlns="http://www.w3.org/2000/svg"/>').outputs()["text/plain"]
        'a dot'
        """
        if shows_live():
            return {"text/html": self._repr_html_(), "text/plain": self.alt}
        return still_outputs(self.still, self.media, self.alt)

    def save(self, path: str | Path) -> Path:
        """Writes the page (.html) or the still picture (.svg or .png, as it is), whole or not at all.

        Raises `ValueError` for another suffix.
        """
        path, own = Path(path), ".png" if self.media == "image/png" else ".svg"
        if path.suffix not in (".html", own):
            raise ValueError(f"{self.title} is saved as .html or {own}; got {path.suffix or 'no suffix'!r}")
        data = page([self], self.title).encode() if path.suffix == ".html" else self.still
        write_whole(path, data)
        return path


def still_outputs(still: bytes, media: str, words: str) -> dict[str, Any]:
    """A still picture as a notebook's cell keeps it, with what is to be seen in words."""
    picture = narrowed(still.decode()) if media == "image/svg+xml" else base64.b64encode(still).decode()
    return {media: picture, "text/plain": words}


def shows_live() -> bool:
    """What `show_live` was told last; True at first."""
    return _shown["live"]


def narrowed(svg: str) -> str:
    """An SVG that is drawn no wider than a notebook's column, which would cut it off.

    >>> narrowed('<svg width="1000" height="500" viewBox="0 0 1000 500"/>')
    '<svg width="760" height="380" viewBox="0 0 1000 500"/>'
    """
    head, end, rest = svg.partition(" viewBox=")
    found = SIZE.search(head)
    if not end or found is None:
        return svg
    pixels = [float(found[k]) * (4 / 3 if found[2] == "pt" else 1) for k in (1, 3)]
    if pixels[0] <= COLUMN:
        return svg
    high = round(pixels[1] * COLUMN / pixels[0])
    return head[: found.start()] + f'width="{COLUMN}" height="{high}"' + head[found.end() :] + end + rest


def page(views: list[View], title: str) -> str:
    """One HTML page that needs nothing else, with each bundle once."""
    bundles = "".join(f"<script>{bundle}</script>\n" for bundle in dict.fromkeys(v.bundle for v in views if v.bundle))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n{bundles}</head>\n<body>\n<main>\n"
        f"{''.join(view.fragment() for view in views)}</main>\n</body>\n</html>\n"
    )
