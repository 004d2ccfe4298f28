"""Convert still pictures (SVG as our views write it, or PNG) to PNG, PDF and SVG, with matplotlib.

Only the SVG subset of our own views is known: `rect`, `text`, `tspan`, `path` (M, C, V, h, v, H, z), `line`, `image`,
and groups that are moved. Text stays text in a PDF. Of a PNG, a PDF or SVG holds the pixels.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray

SVG = "{http://www.w3.org/2000/svg}"
# Drawn picture elements per CSS pixel of a PNG.
SCALE = 2
SKIPPED = {"title", "desc", "style"}
MOVES = re.compile(r"translate\(([-\d.]+)[ ,]([-\d.]+)\)")
TURNS = re.compile(r"rotate\(([-\d.]+)")
STEPS = re.compile(r"([MCVHLhvz])([^MCVHLhvz]*)")


def converted(still: bytes, media: str, suffix: str) -> bytes:
    """Return a still picture as the file that `suffix` (".png", ".pdf" or ".svg") names.

    Raises `ValueError` for SVG with elements that our views do not write.
    """
    if media == "image/svg+xml":
        return saved(figure_of(still.decode()), suffix)
    width, height = png_size(still)
    data = base64.b64encode(still).decode()
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{data}"/></svg>\n'
    )
    return svg.encode() if suffix == ".svg" else saved(figure_of(svg), suffix)


def saved(figure: Figure, suffix: str) -> bytes:
    """Return a matplotlib figure as a PNG or PDF file, the same bytes for the same figure."""
    import matplotlib

    data, name = io.BytesIO(), suffix.removeprefix(".")
    stable: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}[name]
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(data, format=name, facecolor="white", dpi=96 * SCALE, metadata=stable)
    return data.getvalue()


def png_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a PNG file, in pixels."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def figure_of(svg: str) -> Figure:
    """Return a matplotlib figure of the same size and look as an SVG that our views write."""
    from matplotlib.figure import Figure

    root = ElementTree.fromstring(svg)
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    figure = Figure(figsize=(width / 96, height / 96), dpi=96)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    fonts = "monospace" if "monospace" in (root.findtext(SVG + "style") or "") else "sans-serif"
    pen = _Pen(axis, width, height, fonts)
    for order, (element, shift) in enumerate(_elements(root, (0.0, 0.0))):
        pen.draw(element, shift, order)
    return figure


def _elements(parent: ElementTree.Element, shift: tuple[float, float]) -> Iterator[tuple[ElementTree.Element, Any]]:
    """Yield the drawn elements in order, with how far their groups are moved."""
    for element in parent:
        name = element.tag.removeprefix(SVG)
        if name == "g":
            found = MOVES.search(element.get("transform", ""))
            moved = (shift[0] + float(found[1]), shift[1] + float(found[2])) if found else shift
            inherited = {key: element.attrib[key] for key in ("fill",) if key in element.attrib}
            for child in element:
                child.attrib.update({key: value for key, value in inherited.items() if key not in child.attrib})
            yield from _elements(element, moved)
        elif name not in SKIPPED:
            yield element, shift


@dataclass
class _Pen:
    """Draws SVG elements on a matplotlib axis that has one data unit per CSS pixel."""

    axis: Any
    width: float
    height: float
    font: str

    def draw(self, element: ElementTree.Element, shift: tuple[float, float], order: int) -> None:
        """Draw one element above those that were drawn before it."""
        from matplotlib.patches import PathPatch

        name = element.tag.removeprefix(SVG)
        match name:
            case "text":
                self.text(element, shift, order)
            case "image":
                self.image(element, shift, order)
            case "rect" | "path" | "line":
                look = self.look(element, filled=name != "line")
                self.axis.add_patch(PathPatch(self.path(element, name, shift), zorder=order, clip_on=False, **look))
            case _:
                raise ValueError(f"this SVG has <{name}>, which cannot be converted; save it as .svg or .html")

    def look(self, element: ElementTree.Element, filled: bool) -> dict[str, Any]:
        """Return fill, line, width and dashes of an element."""
        fill, stroke = element.get("fill", "#000000" if filled else "none"), element.get("stroke", "none")
        width = float(element.get("stroke-width", "1"))
        dashes = [float(x) * 0.75 for x in element.get("stroke-dasharray", "").split()]
        return {
            "facecolor": _colour(fill if filled else "none"),
            "edgecolor": _colour(stroke),
            "linewidth": width * 0.75 if stroke != "none" else 0,
            "linestyle": (0, dashes) if dashes else "-",
            "alpha": float(element.get("stroke-opacity", "1")),
        }

    def path(self, element: ElementTree.Element, name: str, shift: tuple[float, float]) -> Any:
        """Return the outline of a rectangle, a line or a path."""
        from matplotlib.path import Path

        if name == "line":
            ends = [[float(element.get(axis + k, "0")) for axis in "xy"] for k in "12"]
            return Path([[x + shift[0], y + shift[1]] for x, y in ends])
        if name == "rect":
            x, y = (float(element.get(key, "0")) for key in "xy")
            width, height = (
                whole if element.attrib[key] == "100%" else float(element.attrib[key])
                for key, whole in (("width", self.width), ("height", self.height))
            )
            corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
            return Path([(a + shift[0], b + shift[1]) for a, b in corners], closed=True)
        points, codes = _steps(element.attrib["d"])
        return Path([(x + shift[0], y + shift[1]) for x, y in points], codes)

    def text(self, element: ElementTree.Element, shift: tuple[float, float], order: int) -> None:
        """Draw a text. It is bold as a whole if its bold part (`tspan`) is its last part."""
        style = element.get("class", "")
        size = float(element.get("font-size", "12"))
        parts = [element.text or "", *((span.text or "") + (span.tail or "") for span in element)]
        bold = any(span.get("font-weight") == "bold" and not span.tail for span in element)
        weight = element.get("font-weight", "bold" if bold or "bold" in element.get("style", "") else "normal")
        turn = TURNS.search(element.get("transform", ""))
        y = float(element.attrib["y"]) + size * float(element.get("dy", "0em").removesuffix("em"))
        at = (float(element.attrib["x"]) + shift[0], float(element.attrib["y"] if turn else y) + shift[1])
        ends = {"start": "left", "middle": "center", "end": "right"}
        self.axis.text(
            *at,
            "".join(parts),
            fontsize=size * 0.75 * (0.92 if self.font == "sans-serif" or style else 1),
            weight="bold" if weight in ("bold", "600", "700") else "normal",
            color=_colour(element.get("fill", "#15181c")),
            ha=ends[element.get("text-anchor", "start")],
            va="center_baseline" if turn else "baseline",
            rotation=-float(turn[1]) if turn else 0,
            rotation_mode="anchor",
            family=self.font if not style else "sans-serif",
            parse_math=False,
            zorder=order,
        )

    def image(self, element: ElementTree.Element, shift: tuple[float, float], order: int) -> None:
        """Draw a PNG without resampling."""
        from matplotlib.image import imread

        x, y = (float(element.get(key, "0")) + move for key, move in zip("xy", shift, strict=True))
        width, height = float(element.attrib["width"]), float(element.attrib["height"])
        pixels: ndarray = imread(io.BytesIO(base64.b64decode(element.attrib["href"].partition(",")[2])))
        limits = self.axis.get_xlim(), self.axis.get_ylim()
        self.axis.imshow(
            pixels, extent=(x, x + width, y + height, y), interpolation="nearest", aspect="auto", zorder=order
        )
        self.axis.set(xlim=limits[0], ylim=limits[1])


def _steps(d: str) -> tuple[list[tuple[float, float]], list[int]]:
    """Return the points of a path's data and matplotlib's codes for them."""
    from matplotlib.path import Path

    points: list[tuple[float, float]] = []
    codes: list[Any] = []
    x = y = 0.0
    start = (0.0, 0.0)
    for name, rest in STEPS.findall(d):
        numbers = [float(part) for part in re.findall(r"-?[\d.]+", rest)]
        match name:
            case "M" | "L":
                x, y = numbers
                start = (x, y) if name == "M" else start
            case "C":
                points += [(numbers[0], numbers[1]), (numbers[2], numbers[3])]
                codes += [Path.CURVE4] * 2
                x, y = numbers[4:]
            case "H":
                x = numbers[0]
            case "V":
                y = numbers[0]
            case "h":
                x += numbers[0]
            case "v":
                y += numbers[0]
            case "z":
                x, y = start
        points.append((x, y))
        codes.append({"M": Path.MOVETO, "C": Path.CURVE4, "z": Path.CLOSEPOLY}.get(name, Path.LINETO))
    return points, codes


def _colour(text: str) -> Any:
    """Return a CSS colour as matplotlib takes it."""
    if found := re.fullmatch(r"rgb\((\d+),(\d+),(\d+)\)", text):
        return tuple(int(part) / 255 for part in found.groups())
    return text
