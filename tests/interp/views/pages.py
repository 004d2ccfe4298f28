"""A headless browser without a network, a page that is open in it, and what that page requests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import pytest


def chromium() -> str | None:
    """Return the path of the browser, if it is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def open_browser(profile: Path, reachable: str = ""):
    """Yield headless Chromium. Skip the test if Chromium, its driver or selenium is not installed.

    `reachable` is the one host that the browser may contact, such as "127.0.0.1".
    """
    program = chromium()
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
        "--host-resolver-rules=MAP * ~NOTFOUND" + (f" , EXCLUDE {reachable}" if reachable else ""),
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def requests_of(events: Iterable[dict], frame: str, page: str) -> list[str]:
    """Return the addresses that a page requests, from the DevTools events of a tab.

    `frame` is the tab's main frame, `page` the address of the page under test. Counted are requests of the page's own
    document, of frames that it attaches, of its workers, and navigations away from it. Requests of the browser itself
    (its first page, extensions, updates) and of the document that was open before are not the page's.
    """
    loader, children, urls = None, set(), []
    for event in events:
        given = event["params"]
        match event["method"]:
            case "Page.frameAttached" if loader and given["parentFrameId"] in {frame, *children}:
                children.add(given["frameId"])
            case "Network.requestWillBeSent":
                url, document = given["request"]["url"], given.get("type") == "Document"
                if loader is None:
                    if document and given.get("frameId") == frame and url.partition("#")[0] == page:
                        loader = given["loaderId"]
                elif (
                    given.get("frameId") in children
                    or (given.get("frameId") == frame and (document or given["loaderId"] == loader))
                    or (not given.get("frameId") and given.get("documentURL", "").partition("#")[0] == page)
                ):
                    urls.append(url)
            case "Network.webSocketCreated" if loader:
                urls.append(given["url"])
    assert loader, f"{page} was not requested: the log does not cover it"
    return urls


def hosts_contacted(address: str, folder: Path) -> set[str]:
    """Return the hosts that Chromium asks for while a page is open, its own included.

    They come from the log of its network stack, which has what DevTools does not show: requests that the browser makes
    by itself, such as those for updates. No name is resolved, so nothing leaves the machine. `folder` is made.
    """
    program = chromium()
    if not program:
        pytest.skip("no browser is installed (chromium)")
    log = folder / "net.json"
    folder.mkdir()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    command = [program, *flags, "--timeout=5000", "--dump-dom", address]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    return {host for event in events for host in re.findall(r"(?:https?|wss?)://([^/:\"?\s]+)", json.dumps(event))}


class Traffic:
    """Requests and console messages of one page. Create it right before the page is opened."""

    def __init__(self, browser, url: str):
        self.browser, self.url, self.events = browser, url, []
        for log in ("browser", "performance"):
            browser.get_log(log)

    def requests(self) -> list[str]:
        """Return the addresses that the page has requested, data and blob addresses and itself left out."""
        log = self.browser.get_log("performance")
        self.events += [json.loads(entry["message"])["message"] for entry in log]
        frame = self.browser.execute_cdp_cmd("Page.getFrameTree", {})["frameTree"]["frame"]["id"]
        urls = requests_of(self.events, frame, self.url)
        return [url for url in urls if url != self.url and url.split(":")[0] not in ("data", "blob", "about")]

    def complaints(self) -> list[str]:
        """Return new console messages, those of the browser's own pages left out."""
        messages = [entry["message"] for entry in self.browser.get_log("browser")]
        return [message for message in messages if not message.startswith("chrome")]

    def assert_none(self) -> None:
        """Assert that the page requested nothing and that the console has no message."""
        assert self.requests() == []
        assert self.complaints() == []


class Page:
    """A page of views, opened and drawn. `seconds` is how long that took."""

    def __init__(self, browser, path: Path, html: str, wide: int = 1100, dark: bool = False):
        path.write_text(html, encoding="utf-8")
        self.browser = browser
        self.traffic = Traffic(browser, path.as_uri())
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
        """Assert that the page requested nothing and that the console has no message."""
        self.traffic.assert_none()
        return True

    def cell(self) -> tuple[int, int]:
        """Return width and height of a map's cells, in pixels."""
        width, height = map(int, self.js("return document.querySelector('canvas.map').dataset.cell").split())
        return width, height

    def pixel(self, row: int, column: int) -> tuple[int, int, int]:
        """Return the colour in the middle of a cell, read from the canvas."""
        w, h = self.cell()
        x, y = column * w + w // 2, row * h + h // 2
        red, green, blue = self.pixels(x, y, 1)[0]
        return red, green, blue

    def pixels(self, x: int, y: int, n: int) -> list[list[int]]:
        """Return n pixels of the map's canvas from (x, y) to the right, read from a copy of it."""
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
        """Move the pointer to a cell; return the read-out."""
        from selenium.webdriver.common.action_chains import ActionChains  # pyright: ignore[reportMissingImports]

        w, h = self.cell()
        box = self.js("const b = document.querySelector('canvas.map').getBoundingClientRect(); return [b.left, b.top]")
        chain = ActionChains(self.browser)
        chain.w3c_actions.pointer_action.move_to_location(
            int(box[0] + (column + 0.5) * w), int(box[1] + (row + 0.5) * h)
        )
        chain.perform()
        return self.text(".readout")
