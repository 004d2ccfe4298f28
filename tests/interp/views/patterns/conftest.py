"""A browser without a network, and a page in it."""

import io
import json
import time

import pytest
from PIL import Image

from tests.interp.views.pages import open_browser

STATES = "return [...document.querySelectorAll('.mnemo-attention')].map(v => v.dataset.ready ?? 'none')"


PIXEL = """const pen = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    pen.drawImage(arguments[0], arguments[1], arguments[2], 1, 1, 0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)"""


@pytest.fixture(scope="package")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


class Opened:
    """A page that is open in the browser and has drawn all its views, with short ways to ask."""

    def __init__(self, browser, path, html: str, state: str):
        path.write_text(html, encoding="utf-8")
        self.browser = browser
        for log in ("browser", "performance"):
            browser.get_log(log)
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
        """The element as the browser has drawn it."""
        return Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")

    def pixel(self, canvas, x: int, y: int) -> list[int]:
        """Red, green and blue of a canvas, read from a copy of the pixel."""
        return self.js(PIXEL, canvas, x, y)

    def assert_quiet(self):
        """Nothing was complained of, and nothing asked for but the page itself."""
        assert self.browser.get_log("browser") == []
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert {url.split(":")[0] for url in sent} <= {"file", "data", "chrome"}


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a page, at a width and in a colour scheme, and puts the browser back afterwards."""

    def opened(html: str, width: int = 1100, dark: bool = False, height: int = 900, state: str = "true") -> Opened:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        return Opened(browser, tmp_path / "view.html", html, state)

    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
