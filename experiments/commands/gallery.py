"""`mnemoscope gallery`: one HTML page with every view and the code that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.support.console import say, warn
from experiments.support.option_checks import check_html
from experiments.support.options import OptionalFile


@dataclass(frozen=True)
class GalleryCommand:
    """Write one HTML page with every view, each below the lines of Python that make it.

    Views of a task are of the shipped run parity-aligned-alibi. Views of text are of smollm2-135m where it has been
    fetched, and are left out elsewhere.
    """

    out: OptionalFile = None
    """HTML file. Default: mnemoscope-out/gallery.html."""

    def run(self) -> int:
        """Make every view, write the page, print its path; return 0."""
        check_html(self.out)
        from experiments.gallery import ON_RUN, ON_TEXT, RUN, TEXT, TEXT_MODEL, Example, gallery_page
        from experiments.support.progress import progress_bar
        from experiments.support.results import check_files, replace_whole, writable_folder
        from interp.models.names import OUT
        from interp.models.pretrained import fetch_command, fetched_folder

        path = self.out or Path(OUT) / "gallery.html"
        writable_folder(path.parent)
        check_files([path])
        groups: list[tuple[str, str, Sequence[Example]]] = [("On a trained run", RUN, ON_RUN)]
        if fetched_folder(TEXT_MODEL):
            groups.append(("On text", TEXT, ON_TEXT))
        else:
            warn(f"views of text are left out: {TEXT_MODEL} has not been fetched ({fetch_command(TEXT_MODEL)})")
        total = sum(len(examples) for *_, examples in groups)
        warn(f"{total} views; each is computed now, a minute or two in all")
        with progress_bar(total=total, unit="view") as bar:
            page = gallery_page(groups, bar.set_description, bar.update)
        replace_whole(path, page)
        say(path)
        return 0
