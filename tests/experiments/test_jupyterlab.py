"""Committed notebooks in a real JupyterLab: untrusted, as a new user first opens them, and with all cells run."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from experiments.notebooks.building import NAMES, notebook_of
from tests.experiments.test_notebooks import PICTURES
from tests.interp.views.pages import open_browser

HOST = "127.0.0.1"
PATIENCE_SECONDS = 60
# Cells outside of the window are not drawn by default.
SETTINGS = {"@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"}}
# JupyterLab's own messages: it asks for its icon, for kernels and for news, which the test's browser cannot reach.
OWN = ("favicon", "/api/", "/lab/extensions", "/static/", "beforeunload")
SEEN = """const outputs = [...document.querySelectorAll('.jp-Cell-outputArea img, .jp-Cell-outputArea svg')];
return outputs.filter(e => e.getClientRects().length && (e.tagName !== 'IMG' || e.naturalWidth > 50))
  .filter(e => e.getBoundingClientRect().width > 100).length"""


def free_port() -> int:
    with socket.socket() as server:
        server.bind((HOST, 0))
        return server.getsockname()[1]


def errors_of(browser) -> list[str]:
    """Return the errors in the console, JupyterLab's own left out."""
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    return [message for message in errors if not any(own in message for own in OWN)]


@pytest.fixture
def lab(tmp_path):
    """Yield the address of a JupyterLab whose folder holds copies of the notebooks, which it does not trust."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install 'mnemoscope[notebook]'")
    folder, settings = tmp_path / "notebooks", tmp_path / "settings"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(notebook_of(name), folder)
    for path, values in SETTINGS.items():
        (settings / path).parent.mkdir(parents=True, exist_ok=True)
        (settings / path).write_text(json.dumps(values))
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ip={HOST}", f"--port={port}", "--allow-root"]
    command += [
        "--expose-app-in-browser",
        "--IdentityProvider.token=",
        "--LabApp.news_url=None",
        f"--LabApp.user_settings_dir={settings}",
    ]
    command += [f"--ServerApp.root_dir={folder}", f"--LabApp.workspaces_dir={tmp_path / 'workspaces'}"]
    log = (tmp_path / "log").open("w")
    # A data folder of its own: signatures of trusted notebooks would be there.
    environment = {"JUPYTER_DATA_DIR": str(tmp_path / "data"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    address, until = f"http://{HOST}:{port}", time.monotonic() + PATIENCE_SECONDS
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, Path(log.name).read_text()[-2000:]
                assert time.monotonic() < until, Path(log.name).read_text()[-2000:]
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait()
        log.close()


@pytest.mark.slow
def test_every_picture_of_an_untrusted_notebook_is_visible(tmp_path, lab):
    with open_browser(tmp_path / "profile", HOST) as browser:
        for name in NAMES:
            browser.get(f"{lab}/lab/tree/{name}.ipynb?reset")
            until = time.monotonic() + PATIENCE_SECONDS
            while (seen := browser.execute_script(SEEN)) < PICTURES[name] and time.monotonic() < until:
                time.sleep(0.3)
            time.sleep(1)  # another picture would be one too many
            assert browser.execute_script(SEEN) == seen == PICTURES[name], name
            assert errors_of(browser) == []


@pytest.mark.slow
def test_svg_alone_is_not_visible_in_an_untrusted_notebook(tmp_path, lab):
    """The known zero: without PNG, JupyterLab shows nothing, so the test above can fail."""
    path = next(tmp_path.glob("notebooks/hypotheses.ipynb"))
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/png", None)
    path.write_text(json.dumps(notebook))
    with open_browser(tmp_path / "profile", HOST) as browser:
        browser.get(f"{lab}/lab/tree/{path.name}?reset")
        until = time.monotonic() + PATIENCE_SECONDS
        while not browser.execute_script("return document.querySelectorAll('.jp-Cell-outputArea').length > 3"):
            assert time.monotonic() < until
            time.sleep(0.3)
        time.sleep(2)
        assert browser.execute_script(SEEN) == 0


@pytest.mark.slow
def test_all_cells_run_and_views_are_live(tmp_path, lab):
    """The notebook on text, with `LIVE = True`: every view is drawn by its script, without an error in the console."""
    path = next(tmp_path.glob("notebooks/patching_text.ipynb"))
    text = path.read_text()
    assert text.count("LIVE = False") == 1
    path.write_text(text.replace("LIVE = False", "LIVE = True"))
    with open_browser(tmp_path / "profile", HOST) as browser:
        browser.get(f"{lab}/lab/tree/{path.name}?reset")
        until = time.monotonic() + 5 * PATIENCE_SECONDS
        idle = "return globalThis.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        while not browser.execute_script(idle):
            assert time.monotonic() < until, "the kernel did not start"
            time.sleep(0.5)
        browser.execute_script("jupyterapp.commands.execute('notebook:run-all-cells')")
        ready = "return document.querySelectorAll('.mnemo-view [data-ready=true]').length"
        while (drawn := browser.execute_script(ready)) < PICTURES["patching_text"]:
            assert time.monotonic() < until, f"{drawn} live views"
            time.sleep(0.5)
        assert errors_of(browser) == []
