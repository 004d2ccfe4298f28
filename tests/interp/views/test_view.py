"""What a notebook's cell keeps of a view, live and still."""

import base64
import sys
from types import ModuleType

import networkx as nx
import pytest

from interp import views
from interp.capturing import Capture
from interp.views.view import NARROW_PIXELS, View, narrowed
from tests.interp.views.circuit.samples import small
from tests.interp.views.patterns.samples import planted, prompts
from tests.interp.views.test_maps import attributed, effect_of

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="1000pt" height="500pt" viewBox="0 0 1000 500"/>'
PNG = b"\x89PNG\r\n\x1a\n rest"


@pytest.fixture
def stills():
    views.show_live(False)
    yield
    views.show_live(True)


def test_a_notebook_gets_the_live_view_unasked():
    view = View("title", "words", SVG, "<p>live</p>", "1;")
    assert view.outputs() == {"text/html": view._repr_html_(), "text/plain": "words"}
    circuit = views.circuit(small())
    assert circuit.outputs()["text/html"] == circuit._repr_html_()


@pytest.mark.usefixtures("stills")
@pytest.mark.parametrize(("still", "media"), [(SVG, "image/svg+xml"), (PNG, "image/png")])
def test_a_notebook_gets_the_still_picture_when_asked(still, media):
    found = View("title", "words", still, "<p>live</p>", "1;").outputs()
    assert set(found) == {media, "text/plain"}
    assert found["text/plain"] == "words"
    assert media != "image/png" or base64.b64decode(found[media]) == still


@pytest.mark.usefixtures("stills")
def test_a_circuit_is_still_with_the_others():
    graph = small()
    assert isinstance(graph, nx.MultiDiGraph)
    found = views.circuit(graph).outputs()
    assert set(found) == {"image/svg+xml", "image/png", "text/plain"}
    assert found["image/svg+xml"].startswith("<svg")
    assert base64.b64decode(found["image/png"]).startswith(b"\x89PNG")


def test_it_is_shown_as_it_is_kept(monkeypatch):
    shown = []
    module = ModuleType("IPython.display")
    module.display = lambda data, raw: shown.append((data, raw))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    for view in (View("title", "words", SVG), views.circuit(small())):
        view._ipython_display_()
        assert shown.pop() == (view.outputs(), True)


def test_a_notebook_carries_each_bundle_once_and_again_when_asked(monkeypatch):
    shown = []
    module = ModuleType("IPython.display")
    module.display = lambda data, raw: shown.append(data["text/html"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    views.show_live(True)
    kinds = [View("title", "words", SVG, "<p>live</p>", bundle) for bundle in ("1;", "1;", "2;", "", "1;")]
    for view in kinds:
        view._ipython_display_()
    assert [("1;" in html, "2;" in html) for html in shown] == [
        (True, False),
        (False, False),
        (False, True),
        (False, False),
        (False, False),
    ]
    assert shown[1] == kinds[1].fragment()
    views.show_live(True)  # as the first cell of a notebook does
    kinds[1]._ipython_display_()
    assert shown[-1] == kinds[1]._repr_html_()


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ('width="1000pt" height="500pt"', 'width="760" height="380"'),
        ('width="1520px" height="100px"', 'width="760" height="50"'),
        ('width="760" height="500"', 'width="760" height="500"'),
        ('width="100%"', 'width="100%"'),
    ],
)
def test_no_picture_is_wider_than_a_notebooks_column(size, drawn):
    svg = '<svg {} viewBox="0 0 1 1"><rect width="2000" height="1"/></svg>'
    assert narrowed(svg.format(size)) == svg.format(drawn)
    assert narrowed(f"<svg {size}/>") == f"<svg {size}/>"  # it could not be scaled


def test_a_result_is_its_view_in_a_notebook_and_text_without_one(monkeypatch):
    displayed = []
    module = ModuleType("IPython.display")
    module.display = lambda data, raw: displayed.append(data)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    effect = effect_of(("layer", "pos"))
    effect._ipython_display_()
    assert displayed[-1]["text/plain"] == views.effect(effect).alt
    assert "text/html" in displayed[-1]
    batch = prompts(3)
    Capture(batch, pattern={1: planted(2, batch.n_pos)})._ipython_display_()
    assert displayed[-1]["text/plain"].startswith("Attention, layer 1")
    Capture(batch)._ipython_display_()
    assert displayed[-1] == {"text/plain": repr(Capture(batch))}
    attributed()._ipython_display_()
    assert displayed[-1]["text/plain"].startswith("Which tokens each answer depends on")


def test_a_narrow_screen_gets_the_narrow_picture():
    wide = View("title", "words", SVG)
    assert "<picture>" not in wide.picture()
    narrow = View("title", "words", SVG, narrow=b"<svg narrow/>").picture()
    assert f'media="(max-width: {NARROW_PIXELS}px)"' in narrow
    assert base64.b64encode(b"<svg narrow/>").decode() in narrow
    assert narrow.endswith(f"{wide.picture()}</picture>")
