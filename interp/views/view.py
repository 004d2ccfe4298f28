"""Views: pictures with a live version (HTML), a still one (SVG or PNG) and a text, for notebooks, pages and files."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.support.writing import write_whole
from interp.views.converting import converted, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The page must not fetch anything.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)
STILLS = {b"\x89PNG": "image/png", b"<svg": "image/svg+xml", b"<?xml": "image/svg+xml"}
# Pixels of a notebook's column, and where an SVG says its size.
COLUMN = 760
# Width of a screen, in pixels, up to which a view shows its narrow picture.
NARROW_PIXELS = 600
SIZE = re.compile(r'width="([\d.]+)(pt|px|)" height="([\d.]+)(?:pt|px|)"')
SUFFIXES = (".html", ".png", ".svg", ".pdf")
# Whether notebooks get live views, and the bundles that this notebook already has: see `show_live`.
_shown = {"live": True}
_carried: set[str] = set()


def show_live(live: bool) -> None:
    """Choose whether notebooks get live views (the default) or still pictures from here on.

    A still picture needs no script and has about a hundredth of the size. A notebook carries the script of each kind
    of view once, in the first view shown after this call (or after the start). If that cell alone is run again and the
    notebook is reopened, views show their still pictures until all cells are run.
    """
    _shown["live"] = live
    _carried.clear()


@dataclass(frozen=True, eq=False, repr=False)
class View:
    """A picture for notebooks, pages and files.

    Attributes:
        title: a few words.
        alt: what the picture shows, in words (alternative text).
        still: a whole PNG or SVG file.
        live: an HTML fragment with its own data, style and script, which replaces the still picture where script runs.
            It has no ids, so that a page can hold any number of views. "" where there is only the still picture.
        bundle: script that all views of one kind share and that a page carries once.
        narrow: an SVG file that replaces the still picture on screens narrower than `NARROW_PIXELS`; b"" for none.
        figure: returns the picture as a matplotlib figure, from which `save` makes PNG, PDF and SVG files; None if
            these are converted from `still`.

    >>> View("a dot", "a dot", b'<svg xmlns="http://www.w3.org/2000/svg"/>').media
    'image/svg+xml'
    """

    title: str
    alt: str
    still: bytes
    live: str = ""
    bundle: str = ""
    narrow: bytes = b""
    figure: Callable[[], Figure] | None = None

    def __repr__(self) -> str:
        return f"<View: {self.title}>"

    def __post_init__(self) -> None:
        _ = self.media
        if not self.title or not self.alt:
            raise ValueError("a view needs a title and alternative text")

    @property
    def media(self) -> str:
        """The media type of the still picture. Raises `ValueError` if it is neither PNG nor SVG."""
        for start, media in STILLS.items():
            if self.still.startswith(start):
                return media
        raise ValueError(f"a still picture is a PNG or SVG file; this one starts with {self.still[:8]!r}")

    def picture(self) -> str:
        """Return the still picture as an HTML image."""
        data = base64.b64encode(self.still).decode()
        image = (
            f'<img class="still" style="max-width: 100%; height: auto" alt="{escape(self.alt, quote=True)}" '
            f'src="data:{self.media};base64,{data}">'
        )
        if not self.narrow:
            return image
        source = f"data:image/svg+xml;base64,{base64.b64encode(self.narrow).decode()}"
        return f'<picture><source media="(max-width: {NARROW_PIXELS}px)" srcset="{source}">{image}</picture>'

    def fragment(self) -> str:
        """Return the view as part of a page that holds its `bundle`."""
        return f'<div class="mnemo-view"><div class="mnemo-still">{self.picture()}</div>{self.live}</div>\n'

    def _repr_html_(self) -> str:
        """Return the view for a notebook. An untrusted notebook runs no script and shows the still picture."""
        return (f"<script>{self.bundle}</script>\n" if self.bundle else "") + self.fragment()

    def _ipython_display_(self) -> None:
        """Show the live view or the still picture, and the text, in a notebook."""
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        outputs = self.outputs()
        if shows_live() and self.bundle in _carried:
            outputs["text/html"] = self.fragment()
        elif shows_live() and self.bundle:
            _carried.add(self.bundle)
        display(outputs, raw=True)

    def outputs(self) -> dict[str, Any]:
        """Return what a notebook's cell keeps, by media type: the live view or, if not `shows_live()`, the still one.

        >>> View("a dot", "a dot", b'<svg xmlns="http://www.w3.org/2000/svg"/>').outputs()["text/plain"]
        'a dot'
        """
        if shows_live():
            return {"text/html": self._repr_html_(), "text/plain": self.alt}
        if self.media == "image/png":
            return {"image/png": base64.b64encode(self.still).decode(), "text/plain": self.alt}
        outputs = {"image/svg+xml": narrowed(self.still.decode()), "text/plain": self.alt}
        # JupyterLab shows no SVG of a notebook that is not trusted, and falls back on PNG.
        with suppress(ValueError, KeyError):  # SVG that is not of our views
            outputs["image/png"] = base64.b64encode(self.file(".png")).decode()
        return outputs

    def save(self, path: str | Path) -> Path:
        """Write the file that the path's suffix names: .html, .png, .svg or .pdf. The file is complete or absent.

        HTML is the live page. PNG, SVG and PDF show the still picture; of attention patterns, whose still picture is
        a PNG, a PDF or SVG file holds the pixels. Raises `ValueError` for another suffix.
        """
        path = Path(path)
        write_whole(path, self.file(path.suffix))
        return path

    def file(self, suffix: str) -> bytes:
        """Return the content of a file with this suffix, as `save` writes it."""
        if suffix not in SUFFIXES:
            raise ValueError(f"a view is saved as {', '.join(SUFFIXES)}; got {suffix or 'no suffix'!r}")
        if suffix == ".html":
            return page([self], self.title).encode()
        if suffix == (".png" if self.media == "image/png" else ".svg"):
            return self.still
        if self.figure is not None and suffix != ".svg":
            return saved(self.figure(), suffix)
        return converted(self.still, self.media, suffix)


def shows_live() -> bool:
    """Return whether notebooks get live views; see `show_live`."""
    return _shown["live"]


def narrowed(svg: str) -> str:
    """Return the SVG at no more than the width of a notebook's column, which would cut it off.

    >>> narrowed('<svg width="1000" height="500" viewBox="0 0 1000 500"/>')
    '<svg width="760" height="380" viewBox="0 0 1000 500"/>'
    """
    head, end, rest = svg.partition(" viewBox=")
    size = SIZE.search(head)
    if not end or size is None:
        return svg
    width, height = (float(size[k]) * (4 / 3 if size[2] == "pt" else 1) for k in (1, 3))
    if width <= COLUMN:
        return svg
    shrunk = f'width="{COLUMN}" height="{round(height * COLUMN / width)}"'
    return head[: size.start()] + shrunk + head[size.end() :] + end + rest


def page(views: list[View], title: str, note: str = "") -> str:
    """Return one HTML page that is complete in itself, with each bundle once; `note` is a line above the views."""
    bundles = "".join(f"<script>{bundle}</script>\n" for bundle in dict.fromkeys(v.bundle for v in views if v.bundle))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n{bundles}</head>\n<body>\n<main>\n"
        f"{f'<p>{escape(note)}</p>' if note else ''}"
        f"{''.join(view.fragment() for view in views)}</main>\n</body>\n</html>\n"
    )
