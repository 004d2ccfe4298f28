"""A browser without a network, and a page that is open in it."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def open_browser(profile: Path):
    """Headless Chromium; the test is skipped where it, its driver or selenium is not installed."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no browser is installed (chromium and chromedriver)")
    pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")
    from selenium import webdriver  # pyright: ignore[reportMissingImports]
    from selenium.webdriver.chrome.options import Options  # pyright: ignore[reportMissingImports]
    from selenium.webdriver.chrome.service import Service  # pyright: ignore[reportMissingImports]

    options = Options()
    options.binary_location = program
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--window-size=1100,900",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield found
    finally:
        found.quit()


class Page:
    """A page of views that is open and drawn; `seconds` is what that took."""

    def __init__(self, browser, path: Path, html: str, wide: int = 1100, dark: bool = False):
        path.write_text(html, encoding="utf-8")
        self.browser = browser
        for log in ("browser", "performance"):
            browser.get_log(log)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        shape = {"width": wide, "height": 844, "deviceScaleFactor": 1, "mobile": wide < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
        began = time.monotonic()
        browser.get(path.as_uri())
        while self.js("return [...document.querySelectorAll('[data-ready]')].some(v => v.dataset.ready !== 'true')"):
            assert time.monotonic() < began + 30, "the script has not run"
            time.sleep(0.05)
        self.seconds = time.monotonic() - began

    def js(self, code: str, *arguments):
        return self.browser.execute_script(code, *arguments)

    def one(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def quiet(self) -> bool:
        """Whether nothing was complained of, and nothing asked for but the page itself."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert {url.split(":")[0] for url in sent} <= {"file", "data", "chrome", "blob"}
        complaints = [entry["message"] for entry in self.browser.get_log("browser")]
        assert not complaints
        return True

    def cell(self) -> tuple[int, int]:
        """Width and height of a map's cells, in pixels."""
        width, height = map(int, self.js("return document.querySelector('canvas.map').dataset.cell").split())
        return width, height

    def pixel(self, row: int, column: int) -> tuple[int, int, int]:
        """The colour in the middle of a cell, read from the canvas."""
        w, h = self.cell()
        x, y = column * w + w // 2, row * h + h // 2
        red, green, blue = self.pixels(x, y, 1)[0]
        return red, green, blue

    def pixels(self, x: int, y: int, n: int) -> list[list[int]]:
        """n pixels of the map's canvas from (x, y) to the right; read from a copy, which is there to be read."""
        got = self.js(
            "const map = document.querySelector('canvas.map'), [x, y, n] = arguments;"
            "const pen = Object.assign(document.createElement('canvas'), {width: n, height: 1})"
            ".getContext('2d', {willReadFrequently: true});"
            "pen.drawImage(map, -x, -y); return [...pen.getImageData(0, 0, n, 1).data]",
            x,
            y,
            n,
        )
        return [got[k : k + 3] for k in range(0, len(got), 4)]

    def point(self, row: int, column: int) -> str:
        """Moves the pointer to a cell; what is read out then."""
        from selenium.webdriver.common.action_chains import ActionChains  # pyright: ignore[reportMissingImports]

        w, h = self.cell()
        box = self.js("const b = document.querySelector('canvas.map').getBoundingClientRect(); return [b.left, b.top]")
        chain = ActionChains(self.browser)
        chain.w3c_actions.pointer_action.move_to_location(
            int(box[0] + (column + 0.5) * w), int(box[1] + (row + 0.5) * h)
        )
        chain.perform()
        return self.text(".readout")
