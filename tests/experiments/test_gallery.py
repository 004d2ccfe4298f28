"""The gallery has every kind of view, and each picture is made by the code above it."""

import ast
from typing import Any

import pytest

from experiments.gallery import ON_RUN, ON_TEXT, RUN, TEXT, Example, evaluate, gallery_page
from experiments.support import progress
from interp import views
from interp.models.pretrained import CACHE_VARIABLE
from interp.views import View
from tests.interp.views.pages import Page, open_browser

# Public names of `interp.views` that are not a kind of view of their own.
PARTS = {"Axis", "Outline", "Panel", "View", "as_view", "page", "show", "show_live"}


def test_every_kind_of_view_is_shown():
    code = "\n".join(example.code for example in (*ON_RUN, *ON_TEXT))
    called = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "views"
    }
    assert called == set(views.PUBLIC) - PARTS


def test_the_last_line_is_the_view_and_the_page_has_its_code():
    code = "still = b'<svg width=\"9\" height=\"9\"/>'\nView('dot', 'a <dot>', still)"
    assert isinstance(evaluate(code, {"View": View}), View)
    steps: list[str] = []
    done = lambda: steps.append("done")  # noqa: E731
    setup = "from interp.views import View"
    page = gallery_page([("Group", setup, [Example("A dot", code, "caption")])], steps.append, done)
    assert steps == ["A dot", "done"]
    assert "View(&#x27;dot&#x27;, &#x27;a &lt;dot&gt;&#x27;, still)" in page
    assert page.count('class="report-figure"') == 1


@pytest.mark.slow
def test_every_view_of_a_run_is_drawn(tmp_path):
    html = gallery_page([("Run", RUN, ON_RUN)])
    with open_browser(tmp_path / "profile") as browser:
        page = Page(browser, tmp_path / "gallery.html", html)
        height = "return [...document.querySelectorAll('.report-figure')].map(f => f.getBoundingClientRect().height)"
        heights = page.js(height)
        assert len(heights) == len(ON_RUN)
        assert min(heights) > 60
        page.quiet()


def test_a_file_gets_a_line_of_progress_per_minute_as_from_other_verbs(tmp_path, monkeypatch):
    from experiments.cli import main

    asked: list[float] = []

    def bar(seconds: float = progress.SECONDS_PER_LINE, **given: Any) -> Any:
        asked.append(seconds)
        return real(seconds=seconds, **given)

    real = progress.progress_bar
    monkeypatch.setattr(progress, "progress_bar", bar)
    monkeypatch.setattr("experiments.gallery.gallery_page", lambda *_: "page")
    assert main(["gallery", "--out", str(tmp_path / "g.html")]) == 0
    assert asked == [60.0]


@pytest.mark.slow
def test_without_the_fetched_model_the_text_views_are_left_out_with_a_note(tmp_path, monkeypatch, capsys):
    from experiments.cli import main

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "empty"))
    monkeypatch.setattr("experiments.gallery.ON_RUN", ON_RUN[:1])
    assert main(["gallery", "--out", str(tmp_path / "g.html")]) == 0
    said = capsys.readouterr().err
    assert "mnemoscope fetch smollm2-135m" in said
    assert "1 views; each is computed now" in said
    html = (tmp_path / "g.html").read_text()
    assert html.count('class="report-figure"') == 1
    assert TEXT.splitlines()[1] not in html
