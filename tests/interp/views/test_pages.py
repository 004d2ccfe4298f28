"""The browser tests' own check: it reports what a page requests, and nothing that the browser requests."""

import time

import pytest

from tests.interp.views.pages import Page, Traffic, open_browser, requests_of

PAGE = "file:///tmp/p.html"


def sent(url: str, frame: str = "main", loader: str = "new", kind: str = "Other", document: str = PAGE) -> dict:
    params = {"frameId": frame, "loaderId": loader, "type": kind, "documentURL": document, "request": {"url": url}}
    return {"method": "Network.requestWillBeSent", "params": params}


def attached(frame: str, parent: str = "main") -> dict:
    return {"method": "Page.frameAttached", "params": {"frameId": frame, "parentFrameId": parent}}


OPENED = sent(PAGE, kind="Document")


def test_requests_of_the_browser_and_of_the_document_before_are_left_out():
    browser = "chrome-untrusted://new-tab-page/one"
    events = [
        sent(browser, loader="old"),
        attached("theirs"),
        OPENED,
        sent(browser, loader="old", document="chrome://newtab"),
        sent(browser, frame="theirs", loader="old2", document=browser),
        sent(browser, frame="another tab", loader="x", document=browser),
    ]
    assert requests_of(events, "main", PAGE) == []


@pytest.mark.parametrize(
    "events",
    [
        [sent("http://a.b/x.js")],
        [sent("chrome-untrusted://x")],
        [attached("child"), sent("http://a.b/x.js", frame="child", loader="c", document="about:srcdoc")],
        [attached("c"), attached("d", "c"), sent("http://a.b/x.js", frame="d", loader="d", document="http://a.b")],
        [sent("http://a.b/x.js", kind="Document", loader="third", document="http://a.b/x.js")],
        [sent("http://a.b/x.js", frame="", loader="")],
        [{"method": "Network.webSocketCreated", "params": {"url": "ws://a.b"}}],
    ],
    ids=["script", "browser address", "frame", "frame in frame", "navigation", "worker", "socket"],
)
def test_requests_of_the_page_count(events):
    assert len(requests_of([OPENED, *events], "main", PAGE)) == 1


def test_a_log_without_the_page_is_an_error():
    with pytest.raises(AssertionError, match="was not requested"):
        requests_of([sent("http://a.b", loader="old")], "main", PAGE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_a_page_that_requests_nothing_passes(browser, tmp_path):
    assert Page(browser, tmp_path / "quiet.html", '<img src="data:image/png;base64,AAAA"><p>nothing</p>').quiet()


@pytest.mark.parametrize(
    "html",
    [
        '<img src="http://example.invalid/a.png">',
        '<script>fetch("https://example.invalid/a").catch(() => 0)</script>',
        '<img src="other.png">',
        '<iframe srcdoc="<img src=http://example.invalid/a.png>"></iframe>',
        '<link rel="stylesheet" href="https://example.invalid/a.css">',
        '<script>new WebSocket("ws://example.invalid/")</script>',
    ],
    ids=["image", "fetch", "file", "frame", "style", "socket"],
)
def test_a_page_that_requests_something_fails(browser, tmp_path, html):
    path = tmp_path / "loud.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{html}", encoding="utf-8")
    traffic = Traffic(browser, path.as_uri())
    browser.get(path.as_uri())
    end = time.monotonic() + 5
    while not traffic.requests() and time.monotonic() < end:
        time.sleep(0.05)
    with pytest.raises(AssertionError):
        traffic.assert_none()


def test_a_console_message_fails(browser, tmp_path):
    page = Page(browser, tmp_path / "loud.html", "<script>console.error('wrong')</script>")
    with pytest.raises(AssertionError):
        page.quiet()
