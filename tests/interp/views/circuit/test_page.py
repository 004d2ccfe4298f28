"""The page of a circuit and its view in a notebook: as text, and clicked in a browser where there is one."""

import re
import time

import pytest

from interp.views.circuit import CircuitView, circuit_page, draw_circuit
from interp.views.view import page as views_page
from tests.interp.views.circuit.samples import GRAPHS, small
from tests.interp.views.pages import Traffic, open_browser


def test_the_page_has_the_same_picture_and_needs_nothing_else():
    page = circuit_page(small())
    assert draw_circuit(small()) in page
    assert set(re.findall(r"https?://[^\"' )]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|\bsrc=|<link", page)
    assert "default-src 'none'" in page
    assert page.count("<script>") == page.count("</script>") == 1
    assert page.count("<tr data-rank=") == 7


def test_a_view_is_a_fragment_without_ids_that_shows_an_image_where_no_script_runs():
    html = CircuitView(small())._repr_html_()
    assert html.startswith('<div class="mnemo-circuit-view"')
    assert not re.search(r"<[^>]*\sid=", html)
    assert '<img class="still" alt="A circuit of 5 nodes and 7 edges' in html
    assert 'src="data:image/svg+xml;base64,' in html
    assert html.count("</script>") == 1
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    rules = [rule for rule in re.findall(r"^\s*([^{}@\n]+)\{", style, re.M) if rule.strip()]
    assert rules
    assert all(rule.startswith(".mnemo-circuit-view") for rule in rules)


def test_views_on_a_page_of_views_share_their_script():
    view = CircuitView(small()).view()
    assert view.still.decode() == draw_circuit(small())
    assert view.alt.startswith("A circuit of 5 nodes and 7 edges")
    both = views_page([view, CircuitView(small()).view()], "two circuits")
    assert both.count("globalThis.mnemoCircuit = ") == 1
    assert "const picture" not in view.live
    assert not re.search(r"<[^>]*\sid=", view.live)


def test_saving(tmp_path):
    view = CircuitView(small())
    assert view.save(tmp_path / "c.svg").read_text("utf-8") == draw_circuit(small())
    assert view.save(str(tmp_path / "c.html")).read_text("utf-8") == circuit_page(small())
    for name, got in (("c.gif", "'.gif'"), ("c", "'no suffix'")):
        with pytest.raises(ValueError, match=rf"saved as .html, .png, .svg, .pdf; got {got}"):
            view.save(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.html", "c.svg"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


class Page:
    """A page that is open in the browser, with short ways to ask."""

    def __init__(self, browser, path, html: str):
        path.write_text(html, encoding="utf-8")
        self.browser = browser
        self.traffic = Traffic(browser, path.as_uri())
        browser.get(path.as_uri())
        end = time.monotonic() + 20
        views = "[...document.querySelectorAll('.mnemo-circuit-view')]"
        while self.js(f"return {views}.some(v => v.dataset.ready !== 'true')"):
            assert time.monotonic() < end, "the script has not run"
            time.sleep(0.05)

    def js(self, code: str, *arguments):
        return self.browser.execute_script(code, *arguments)

    def one(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def click(self, selector: str):
        self.one(selector).click()

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def lit(self) -> set[str]:
        """Titles of the edges that are lit."""
        return set(self.js("return [...document.querySelectorAll('.edge.lit title')].map(t => t.textContent)"))

    def visible(self) -> int:
        """How many edges can be seen, by computed style."""
        return self.js(
            "return [...document.querySelectorAll('path.edge')]"
            ".filter(e => getComputedStyle(e).display !== 'none').length"
        )

    def opacity(self, selector: str) -> float:
        return float(self.js("return getComputedStyle(document.querySelector(arguments[0])).opacity", selector))


def test_choosing_in_a_browser(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys  # pyright: ignore[reportMissingImports]

    page = Page(browser, tmp_path / "c.html", circuit_page(small()))
    assert page.text(".status") == "showing 7 of 7 edges"
    assert page.visible() == 7
    assert page.lit() == set()
    other = "path.edge[data-to=logits]"
    assert page.opacity(other) == 1

    page.click("g.node[data-node=L0H1]")
    assert {t.split(":")[0] for t in page.lit()} == {
        "embed -> L0H1 v at input",
        "L0H1 -> L1H2 k at input",
        "L0H1 -> L1H2 k at output",
        "L0H1 -> L1H2 q",
    }
    assert page.opacity(other) < 0.2
    assert page.opacity("path.edge[data-from=L0H1]") == 1
    assert "bad()" in page.text(".said")  # as words
    assert "1 edge in, 3 out. Strongest: embed -> L0H1 v at input: +2." in page.text(".said")

    page.click(".readout li:nth-child(2) button")
    assert page.lit() == {"L0H1 -> L1H2 k at input: +1.234"}
    assert page.text(".said").startswith("Edge L0H1 -> L1H2 k at input: +1.234; number 3 of 7")

    page.one("g.node[data-node=L0H1]").send_keys(Keys.ARROW_UP)
    assert page.js("return document.activeElement.dataset.node") == "L1H2"
    assert page.text(".said").startswith("L1H2: matching label: 4 edges in, 2 out")
    page.js("return document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))")
    assert page.lit() == set()
    assert page.opacity(other) == 1

    page.js("document.querySelectorAll('.hit')[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert len(page.lit()) == 1
    page.traffic.assert_none()


def test_filtering_in_a_browser_says_what_is_hidden(browser, tmp_path):
    page = Page(browser, tmp_path / "c.html", circuit_page(GRAPHS["80 edges"]))
    assert page.visible() == 80
    page.js("const s = document.querySelector('.strongest'); s.value = 12; s.dispatchEvent(new Event('input'))")
    assert page.text(".status") == "showing 12 of 80 edges"
    assert page.visible() == 12
    shown = page.js("return [...document.querySelectorAll('path.edge:not(.off)')].map(e => Number(e.dataset.rank))")
    assert sorted(shown) == list(range(1, 13))
    assert page.js("return document.querySelectorAll('tbody tr:not([hidden])').length") == 12

    page.click(".reset")
    page.click("input[data-reads=q]")
    q = sum(d["reads"] == "q" for _, _, d in GRAPHS["80 edges"].edges(data=True))
    assert page.text(".status") == f"showing {80 - q} of 80 edges ({80 - q} pass the filters)"
    assert page.visible() == 80 - q
    page.click("input[data-place=input]")
    left = sum(d["reads"] != "q" and d["place"] != "input" for _, _, d in GRAPHS["80 edges"].edges(data=True))
    assert page.visible() == left
    page.click(".reset")
    assert page.text(".status") == "showing 80 of 80 edges"
    page.traffic.assert_none()


def test_two_views_on_one_page_do_not_collide(browser, tmp_path):
    both = CircuitView(small())._repr_html_() + CircuitView(GRAPHS["25 edges"])._repr_html_()
    page = Page(browser, tmp_path / "c.html", f"<!DOCTYPE html><meta charset=utf-8><body>{both}")
    count = (
        "return [...document.querySelectorAll('.mnemo-circuit-view')].map(v => v.querySelectorAll(arguments[0]).length)"
    )
    assert page.js(count, "path.edge") == [7, 25]
    assert page.js(count, "img") == [0, 0]
    page.click("g.node[data-node=L0H1]")
    assert page.js(count, ".edge.lit") == [4, 0]
    page.traffic.assert_none()


@pytest.mark.parametrize("dark", [False, True])
def test_colours_follow_the_reader_and_a_phone_scrolls_the_frame_alone(browser, tmp_path, dark):
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        page = Page(browser, tmp_path / "c.html", circuit_page(GRAPHS["80 edges"]))
        fill = page.js("return getComputedStyle(document.querySelector('.ground')).fill")
        assert (sum(map(int, re.findall(r"\d+", fill))) < 150) == dark
        over = "const f = document.querySelector('.frame'); return f.scrollWidth > f.clientWidth"
        assert not page.js(over), "the whole circuit is in sight first"
        page.click(".fit")
        assert page.js(over)
        assert page.js("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_texts_are_inside_their_boxes_as_the_browser_draws_them(browser, tmp_path):
    page = Page(browser, tmp_path / "c.html", circuit_page(GRAPHS["25 edges"]))
    over = page.js(
        "return [...document.querySelectorAll('.node')].filter(n => {const b = n.querySelector('.box').getBBox();"
        "return [...n.querySelectorAll(':scope > text')].some(t => {const a = t.getBBox();"
        "return a.x < b.x || a.x + a.width > b.x + b.width || a.y < b.y - 1 || a.y + a.height > b.y + b.height + 1})})"
        ".map(n => n.dataset.node)"
    )
    assert over == []
    outside = page.js(
        "const f = document.querySelector('svg').getBoundingClientRect();"
        "return [...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect())"
        ".filter(r => r.left < f.left || r.right > f.right || r.top < f.top || r.bottom > f.bottom).length"
    )
    assert outside == 0


def test_views_on_one_page_are_both_drawn(browser, tmp_path):
    views = [CircuitView(small()).view(), CircuitView(small()).view()]
    page = Page(browser, tmp_path / "two.html", views_page(views, "two circuits"))
    assert page.js("return document.querySelectorAll('.frame svg.mnemo-circuit').length") == 2
    assert page.js("return [...document.querySelectorAll('.mnemo-still')].every(s => s.hidden && !s.offsetHeight)")
    page.click("g.node[data-node=L0H1]")
    assert page.lit()
