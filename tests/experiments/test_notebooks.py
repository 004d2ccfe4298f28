"""Notebooks match their scripts, contain pictures and nothing private, and draw live views without a network."""

import base64
import getpass
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter

from experiments.notebooks import building
from experiments.notebooks.building import FOLDER, MOST_BYTES, NAMES, execute, notebook_of, read_script, stale, text_of
from interp.models.pretrained import CACHE_VARIABLE, fetched_folder
from interp.views.converting import png_size
from tests.interp.views.pages import Page, open_browser

# Number of pictures in each notebook.
PICTURES = {"patching_text": 3, "mnemonics": 7, "hypotheses": 3}
PRIVATE = [r"(?<![\w.\\])/(?:home|root|tmp|work|usr|opt|mnt|Users)/", r"\b\d+(?:\.\d+)? ?(?:it/s|s/it)\b", r"Traceback"]


def stored(name: str):
    return nbformat.reads(notebook_of(name).read_text(encoding="utf-8"), as_version=4)


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pictures(notebook) -> list[dict]:
    """Return the data of each output with a picture, by media type."""
    data = [output.get("data", {}) for output in outputs(notebook)]
    return [by_type for by_type in data if any(media.startswith("image/") for media in by_type)]


def texts(notebook) -> list[str]:
    """Return all printed text and all alternative texts."""
    return [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs(notebook)]


def test_each_script_is_a_notebook():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "__main__", "building"}
    assert scripts == set(NAMES) == {path.stem for path in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_matches_its_script(name):
    assert stale(name) == "", "run `python -m experiments.notebooks`"


@pytest.mark.parametrize("change", ["text", "code", "another cell", "not run", "gone"])
def test_a_stale_notebook_is_found(tmp_path, monkeypatch, change):
    notebook = stored("patching_text")
    monkeypatch.setattr(building, "notebook_of", lambda name: tmp_path / f"{name}.ipynb")
    match change:
        case "text":
            notebook.cells[0].source += " More."
        case "code":
            notebook.cells[1].source = notebook.cells[1].source.replace("LIVE", "live")
        case "another cell":
            del notebook.cells[-1]
        case "not run":
            notebook.cells[1].execution_count = None
    if change != "gone":
        (tmp_path / "patching_text.ipynb").write_text(text_of(notebook), encoding="utf-8")
    assert "patching_text.ipynb" in stale("patching_text")


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_pictures_and_nothing_private(name):
    notebook = stored(name)
    assert notebook_of(name).stat().st_size < MOST_BYTES
    assert len(pictures(notebook)) == PICTURES[name]
    assert not [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"]
    media = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert media <= {"image/png", "image/svg+xml", "text/plain"}  # no script, no progress bars
    assert notebook.metadata == {"kernelspec": building.KERNEL, "language_info": {"name": "python"}}
    assert not any(cell.metadata for cell in notebook.cells)
    own = [re.escape(text) for text in (str(Path.home()), str(FOLDER.parent), socket.gethostname(), getpass.getuser())]
    for text in texts(notebook):
        assert text
        for pattern in (*PRIVATE, *(rf"(?<!\w){o}(?!\w)" for o in own)):
            assert not re.search(pattern, text), (pattern, text)


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_is_stored_as_png(name):
    """JupyterLab shows PNG, but no SVG, of a notebook that is not trusted."""
    for data in pictures(stored(name)):
        png = base64.b64decode(data["image/png"])
        assert png.startswith(b"\x89PNG")
        width, height = png_size(png)
        assert min(width, height) > 100


def test_the_text_notebook_was_executed_with_the_fetched_model():
    assert "model: SmolLM2-135M\n" in texts(stored("patching_text"))


def test_the_stored_hypotheses_quote_the_shipped_calibration():
    judged = json.loads((FOLDER.parent / "results" / "calibration.json").read_text())["judged"]
    assert f"wrong confident label: 0 of {len(judged)}\n" in "".join(texts(stored("hypotheses")))


@pytest.mark.parametrize("name", NAMES)
def test_text_precedes_and_follows_every_code_cell(name):
    kinds = [cell.cell_type for cell in read_script(name).cells]
    assert kinds == ["markdown", "code"] * (len(kinds) // 2) + ["markdown"]


def test_links_between_notebooks_resolve():
    for name in NAMES:
        text = "\n".join(cell.source for cell in read_script(name).cells if cell.cell_type == "markdown")
        for target in re.findall(r"`(\w+\.ipynb)`", text):
            assert (FOLDER / target).exists(), target


def test_an_unknown_notebook_is_refused():
    with pytest.raises(ValueError, match="notebooks are patching_text"):
        read_script("patchings")


def test_the_command_checks():
    command = [sys.executable, "-m", "experiments.notebooks"]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all notebooks match their scripts\n"), done.stderr
    done = subprocess.run([*command, "patchings"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "notebooks are patching_text" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_new_execution_gives_the_stored_outputs(name):
    """As many pictures, and the same text up to the last digits of numbers."""
    if name == "patching_text" and fetched_folder("smollm2-135m") is None:
        pytest.skip("SmolLM2-135M was not fetched")
    executed = execute(name)
    assert len(pictures(executed)) == PICTURES[name]
    number = r"-?\d+\.\d+"
    for new, old in zip(texts(executed), texts(stored(name)), strict=True):
        assert re.sub(number, "#", new) == re.sub(number, "#", old)
        new_numbers, old_numbers = ([float(x) for x in re.findall(number, text)] for text in (new, old))
        assert new_numbers == pytest.approx(old_numbers, abs=0.1, rel=0.01)


@pytest.mark.slow
def test_the_text_notebook_runs_without_a_fetched_model(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    executed = execute("patching_text")
    assert len(pictures(executed)) == PICTURES["patching_text"]
    assert any(text.startswith("model: random weights") for text in texts(executed))


# For each view: whether its still picture is visible, and what is drawn instead.
SEEN = """return [...document.querySelectorAll('.mnemo-view')].map(view => {
  const shown = e => e && e.getClientRects().length > 0;
  const ink = canvas => {
    const pen = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    pen.drawImage(canvas, 0, 0);
    const all = new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    return new Set(all).size;
  };
  const still = view.querySelector('.mnemo-still img');
  const canvases = [...view.querySelectorAll('canvas')].filter(c => shown(c) && c.width && c.height);
  const grounds = new Set([...view.querySelectorAll('span, button, td')].filter(shown)
    .map(e => getComputedStyle(e).backgroundColor));
  return {still: shown(still) && still.naturalWidth > 0, ink: Math.max(0, ...canvases.map(ink)),
    rows: [...view.querySelectorAll('tbody tr')].filter(shown).length, grounds: grounds.size,
    ready: [...view.querySelectorAll('[data-ready]')].map(v => v.dataset.ready)};
})"""
LIVE = {
    "patching_text": ("canvas",) * 3,
    "mnemonics": ("canvas", "tokens", *("canvas",) * 5),
    "hypotheses": ("picture",) * 3,
}
# nbconvert's pages load require.js: scripts of views must not register with a module loader.
LOADER = "<script>window.define = () => { throw new Error('defined') }; window.define.amd = {}</script>"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_with_the_flag_every_view_is_drawn_without_a_network(tmp_path, name):
    with open_browser(tmp_path / "profile") as browser:
        html, _ = HTMLExporter().from_notebook_node(execute(name, live=True))
        html, removed = re.subn(r'<script src="https://[^"]*"> ?</script>', LOADER, html)
        assert removed == 2, "nbconvert's own: require.js and MathJax"
        page = Page(browser, tmp_path / "live.html", html)
        seen = page.js(SEEN)
        assert len(seen) == len(LIVE[name])
        for view, kind in zip(seen, LIVE[name], strict=True):
            assert set(view["ready"]) <= {"true"}, view
            assert view["still"] == (kind == "picture"), view
            match kind:
                case "canvas":
                    assert view["ink"] > 2, view
                case "tokens":
                    assert view["grounds"] > 2, view
                case "table":
                    assert view["rows"] > 10, view
        page.quiet()
