"""Build one self-contained HTML file from sections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from experiments.reporting.section import Picture, Source
from experiments.support.provenance import provenance_record
from interp.views.view import POLICY, View

# Letters of a row, the longest cell of each column, that fit on a phone.
MOST_LETTERS = 56
SIZE = "000.00 MB"  # placeholder for the size of the file


@dataclass(frozen=True, eq=False)
class Section:
    """A title and a body in HTML. `name` is the target of the table of contents."""

    name: str
    title: str
    body: str


def report_page(title: str, lead: str, sections: Sequence[Section], views: Sequence[View], command: str) -> str:
    """Return the page. `views` are all views in the sections, so that each script bundle is included once."""
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    contents = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections)
    bodies = "".join(
        f'<section id="{s.name}" aria-labelledby="{s.name}-title">\n<h2 id="{s.name}-title">{escape(s.title)}</h2>\n'
        f"{s.body}</section>\n"
        for s in sections
    )
    bundles = "".join(
        f'<script type="text/plain" data-bundle="{k}">{text}</script>\n' for k, text in enumerate(bundles_of(views))
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#{sections[0].name}">Skip to the report</a>\n'
        f"<header>\n<h1>{escape(title)}</h1>\n{lead}</header>\n"
        f'<nav aria-label="Contents">\n<ol>{contents}</ol>\n</nav>\n<main>\n{bodies}</main>\n'
        f"<footer><p>Made by <code>{escape(command)}</code>. One file of {SIZE}. It opens offline and "
        f"sends no requests.</p></footer>\n"
        f"{bundles}<script>\n{script}</script>\n</body>\n</html>\n"
    )
    return page.replace(SIZE, f"{len(page.encode()) / 1e6:.2f} MB", 1)


def bundles_of(views: Sequence[View]) -> list[str]:
    """Return the script bundles of all views, each once, in order."""
    return list(dict.fromkeys(view.bundle for view in views if view.bundle))


def figure(picture: Picture, bundles: Sequence[str]) -> str:
    """Return the HTML of a figure: the still image, and in a template the live view that a script replaces it with."""
    view = picture.view
    still = f'<div class="mnemo-still">{view.picture()}</div>'
    if view.bundle:
        kind = bundles.index(view.bundle)
        inside = f'<div class="mnemo-view" data-bundle="{kind}">{still}<template>{view.live}</template></div>'
    else:
        inside = f'<div class="mnemo-view">{still}{view.live}</div>'
    return f'<figure class="report-figure">\n<figcaption>{marked(picture.caption)}</figcaption>\n{inside}\n</figure>\n'


def paragraph(text: str, kind: str = "") -> str:
    """Return text as a paragraph; text between backticks is code."""
    name = f' class="report-{kind}"' if kind else ""
    return f"<p{name}>{marked(text)}</p>\n" if text else ""


def notes_of(notes: Sequence[str]) -> str:
    """Return what was left out and why, one paragraph each."""
    return "".join(paragraph(note, "note") for note in notes)


def page_made(weights: str | None = None) -> str:
    """Return date, commit and versions of the page as a sentence, and the digest of the weights where it is known."""
    made = provenance_record()
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items() if version)
    digest = f" Digest of the weights: `{weights}`." if weights else ""
    return f"This page was made on {made['date']} at commit {made['commit'] or 'unknown'}, with {versions}.{digest}"


def marked(text: str) -> str:
    """Return text as HTML, with `code` between backticks and **strong** between stars."""
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", html)


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls where it is wider than the page; on a phone, each row of a wide table is a card."""
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{marked(cell)}</th>'
            if k == 0
            else f'<td data-label="{escape(columns[k], quote=True)}">{marked(cell)}</td>'
            for k, cell in enumerate(row)
        )
        + "</tr>\n"
        for row in rows
    )
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    kind = "plain cards" if sum(widths) > MOST_LETTERS else "plain"
    return (
        f'<div class="report-scroll" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}">'
        f'<table class="{kind}"><caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def sources_of(sources: Sequence[Source]) -> str:
    """Return the list of commands and seeds behind the numbers of a section."""
    if not sources:
        return ""
    rows = "".join(
        f"<li>{escape(s.what)}: {'Python ' * s.code}<code>{escape(s.command)}</code>; seed {s.seed}; "
        f"{escape(s.made)}.</li>\n"
        for s in sources
    )
    head = '<details class="sources" open><summary>Sources of these numbers</summary>'
    return f"{head}\n<ul>\n{rows}</ul></details>\n"
