"""Boxes of nodes: their size, and where edges enter them."""

from __future__ import annotations

from dataclasses import dataclass

from interp.views.circuit.parts import DrawnNode

FONT = 12  # pixels
LINE = 15
PORT = 13  # height of the tabs q, k and v under a head


@dataclass(frozen=True)
class Box:
    """A node's box: its text in lines, its left and upper corner. A head's box has tabs below it."""

    node: DrawnNode
    row: int
    lines: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float

    def port(self, reads: str) -> tuple[float, float]:
        """Return the left and right end of where edges enter: a third of a head for each of q, k and v."""
        if self.node.kind != "head":
            return self.x, self.x + self.width
        third = self.width / 3
        left = self.x + third * "qkv".index(reads)
        return left, left + third

    @property
    def foot(self) -> float:
        """The y at which edges enter."""
        return self.y + self.height + (PORT if self.node.kind == "head" else 0)


def text_width(text: str, size: float = FONT, bold: bool = True) -> float:
    """Return the most pixels that a text takes, in DejaVu Sans, the widest of the usual fonts."""

    def em(c: str) -> float:
        match c:
            case _ if c in " .,:;'!|ijlI/":
                return 0.46
            case _ if c in 'tfr()[]-"`':
                return 0.53
            case _ if c in "mwMW@%+<>=~&#^_" or ord(c) > 126:
                return 1.11
            case _:
                return 0.88 if c.isupper() else 0.74

    return size * (1.0 if bold else 0.92) * sum(map(em, text))


def wrapped(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Return a text in lines of at most `width` pixels, broken between words, or within a word longer than a line."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for c in word:
            if lines[-1] and text_width(lines[-1] + c, size, bold) > width:
                lines.append("")
            lines[-1] += c
    return lines
