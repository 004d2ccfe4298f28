"""What does one section of a report have of one run? Numbers, pictures and where they are from, kept on disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from interp.models import read_json
from interp.views import View
from interp.writing import write_whole


@dataclass(frozen=True)
class Source:
    """Where numbers are from. `command` is typed into a terminal, or into Python where `code` is true."""

    what: str
    command: str
    seed: int
    made: str
    code: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """A view, and a sentence that says what to look for."""

    view: View
    words: str


@dataclass(frozen=True, eq=False)
class Part:
    """`data` is plain JSON. `notes` are said beside the pictures: what was left out, and why."""

    data: dict = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    sources: tuple[Source, ...] = ()
    notes: tuple[str, ...] = ()


def kept(path: Path, make: Callable[[], Part]) -> Part:
    """The part that is on disk already, or a new one, written whole once it is done."""
    if path.is_file():
        try:
            return _read(path)
        except (ValueError, TypeError, LookupError, AttributeError):
            path.unlink()  # not written by this version, or damaged since: made anew
    part = make()
    _write(path, part)
    return part


def _write(path: Path, part: Part) -> None:
    pictures = []
    for picture in part.pictures:
        view = asdict(picture.view) | {"still": base64.b64encode(picture.view.still).decode()}
        pictures.append({"view": view, "words": picture.words})
    sources = [asdict(source) for source in part.sources]
    whole = {"data": part.data, "pictures": pictures, "sources": sources, "notes": part.notes}
    write_whole(path, json.dumps(whole))


def _read(path: Path) -> Part:
    whole = read_json(path)
    pictures = []
    for picture in whole["pictures"]:
        view = picture["view"] | {"still": base64.b64decode(picture["view"]["still"])}
        pictures.append(Picture(View(**view), picture["words"]))
    sources = tuple(Source(**source) for source in whole["sources"])
    return Part(whole["data"], tuple(pictures), sources, tuple(whole["notes"]))
