"""One section of a report on one run: numbers, figures, their sources, and notes."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, field, replace

from interp.views import View

# Fields of a view that are files.
FILES = ("still", "narrow")


@dataclass(frozen=True)
class Source:
    """The source of numbers. `command` is for a terminal, or for Python if `code` is true."""

    what: str
    command: str
    seed: int
    made: str
    code: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """A view with its caption."""

    view: View
    caption: str


@dataclass(frozen=True, eq=False)
class SectionData:
    """Plain JSON `data`, figures, sources, and `notes` on what was left out and why."""

    data: dict = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    sources: tuple[Source, ...] = ()
    notes: tuple[str, ...] = ()


def to_json(part: SectionData) -> dict:
    """Return a section as plain JSON, which `from_json` reads. Views lose their matplotlib figures."""
    pictures = []
    for picture in part.pictures:
        view = asdict(replace(picture.view, figure=None))
        view |= {name: base64.b64encode(view[name]).decode() for name in FILES}
        pictures.append({"view": view, "caption": picture.caption})
    sources = [asdict(source) for source in part.sources]
    return {"data": part.data, "pictures": pictures, "sources": sources, "notes": part.notes}


def from_json(data: dict) -> SectionData:
    """Return the section that `to_json` wrote. Raises `TypeError` or `KeyError` for anything else."""
    pictures = []
    for picture in data["pictures"]:
        view = picture["view"] | {name: base64.b64decode(picture["view"][name]) for name in FILES}
        pictures.append(Picture(View(**view), picture["caption"]))
    sources = tuple(Source(**source) for source in data["sources"])
    return SectionData(data["data"], tuple(pictures), sources, tuple(data["notes"]))
