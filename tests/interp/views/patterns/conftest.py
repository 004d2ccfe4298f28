"""Fixtures: a headless browser without a network, and a page of views in it."""

import io
import time

import pytest
from PIL import Image

from tests.interp.views.pages import Traffic, open_browser

STATES = "return [...document.querySelectorAll('.mnemo-attention')].map(v => v.dataset.ready ?? 'none')"


PIXEL = """const pen = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    pen.drawImage(arguments[0], arguments[1], arguments[2], 1, 1, 0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)"""


@pytest.fixture(scope="package")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


class Opened:
    """A page that is open in the browser, all its views drawn, with shortcuts for queries."""

    def __init__(self, browser, path, html: str, state: str):
        path.write_text(html, encoding="utf-8")
        self.browser = browser
        self.traffic = Traffic(browser, path.as_uri())
        start = time.monotonic()
        browser.get(path.as_uri())
        while set(states := self.js(STATES)) != {state}:
            assert state == "failed" or "failed" not in states, browser.get_log("browser")
            assert time.monotonic() < start + 40, states
            time.sleep(0.01)
        self.seconds = time.monotonic() - start

    def js(self, code: str, *arguments):
        return self.browser.execute_script(code, *arguments)

    def all(self, selector: str):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.browser.find_element("css selector", selector)

    @property
    def said(self) -> str:
        return self.one(".said").text

    def picture(self, element) -> Image.Image:
        """Return the element as the browser draws it."""
        return Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")

    def pixel(self, canvas, x: int, y: int) -> list[int]:
        """Return red, green and blue of one pixel of a canvas, read from a copy."""
        return self.js(PIXEL, canvas, x, y)

    def assert_quiet(self):
        """Assert that the page requested nothing and that the console has no message."""
        self.traffic.assert_none()


@pytest.fixture
def open_page(browser, tmp_path):
    """Yield a function that opens a page at a width and in a colour scheme; reset the browser afterwards."""

    def opened(html: str, width: int = 1100, dark: bool = False, height: int = 900, state: str = "true") -> Opened:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        return Opened(browser, tmp_path / "view.html", html, state)

    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
