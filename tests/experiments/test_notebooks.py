"""The notebooks are their scripts, run, show pictures where nothing runs, and live views with the network cut off."""

import getpass
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
from tests.interp.views.pages import Page, open_browser

# Pictures that each notebook shows.
PICTURES = {"patching": 2, "attention_and_maps": 6, "hypotheses": 3}
PRIVATE = [r"(?<![\w.\\])/(?:home|root|tmp|work|usr|opt|mnt|Users)/", r"\b\d+(?:\.\d+)? ?(?:it/s|s/it)\b", r"Traceback"]


def stored(name: str):
    return nbformat.reads(notebook_of(name).read_text(encoding="utf-8"), as_version=4)


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pictures(notebook) -> list[str]:
    return [m for o in outputs(notebook) for m in o.get("data", {}) if m in ("image/svg+xml", "image/png")]


def words(notebook) -> list[str]:
    """Everything that is read rather than seen."""
    return [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs(notebook)]


def test_each_script_is_a_notebook():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "__main__", "building"}
    assert scripts == set(NAMES) == {path.stem for path in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_its_scripts(name):
    assert stale(name) == "", "run `python -m experiments.notebooks`"


@pytest.mark.parametrize("change", ["text", "code", "another cell", "not run", "gone"])
def test_a_stale_notebook_is_found(tmp_path, monkeypatch, change):
    notebook = stored("patching")
    monkeypatch.setattr(building, "notebook_of", lambda name: tmp_path / f"{name}.ipynb")
    match change:
        case "text":
            notebook.cells[0].source += " More."
        case "code":
            notebook.cells[1].source = notebook.cells[1].source.replace("seed=0", "seed=1")
        case "another cell":
            del notebook.cells[-1]
        case "not run":
            notebook.cells[1].execution_count = None
    if change != "gone":
        (tmp_path / "patching.ipynb").write_text(text_of(notebook), encoding="utf-8")
    assert "patching.ipynb" in stale("patching")


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_pictures_and_nothing_private(name):
    notebook = stored(name)
    assert notebook_of(name).stat().st_size < MOST_BYTES
    assert len(pictures(notebook)) == PICTURES[name]
    assert not [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"]
    assert not [o for o in outputs(notebook) if "text/html" in o.get("data", {})]
    assert notebook.metadata == {"kernelspec": building.KERNEL, "language_info": {"name": "python"}}
    assert not any(cell.metadata for cell in notebook.cells)
    own = [re.escape(text) for text in (str(Path.home()), str(FOLDER.parent), socket.gethostname(), getpass.getuser())]
    for text in words(notebook):
        assert text
        for pattern in (*PRIVATE, *(rf"(?<!\w){o}(?!\w)" for o in own)):
            assert not re.search(pattern, text), (pattern, text)


@pytest.mark.parametrize("name", NAMES)
def test_words_stand_around_every_cell(name):
    kinds = [cell.cell_type for cell in read_script(name).cells]
    assert kinds == ["markdown", "code"] * (len(kinds) // 2) + ["markdown"]


def test_links_between_notebooks_lead_somewhere():
    for name in NAMES:
        text = "\n".join(cell.source for cell in read_script(name).cells if cell.cell_type == "markdown")
        for target in re.findall(r"`(\w+\.ipynb)`", text):
            assert (FOLDER / target).exists(), target


def test_an_unknown_notebook_is_refused():
    with pytest.raises(ValueError, match="notebooks are patching"):
        read_script("patchings")


def test_the_command_checks():
    command = [sys.executable, "-m", "experiments.notebooks"]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "every notebook is its source's\n"), done.stderr
    done = subprocess.run([*command, "patchings"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "notebooks are patching" in done.stderr


def run_again(name: str) -> None:
    """What is executed now has as many pictures, and says the same words but for the last digits of numbers."""
    found = execute(name)
    assert len(pictures(found)) == PICTURES[name]
    number = r"-?\d+\.\d+"
    for new, old in zip(words(found), words(stored(name)), strict=True):
        assert re.sub(number, "#", new) == re.sub(number, "#", old)
        here, there = ([float(x) for x in re.findall(number, text)] for text in (new, old))
        assert here == pytest.approx(there, abs=0.1, rel=0.01)


@pytest.mark.slow
def test_patching_runs_and_says_what_it_said():
    run_again("patching")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[1:])
def test_the_others_run_and_say_what_they_said(name):
    run_again(name)


# For each view: whether its picture is in sight, and whether something is drawn in its place.
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
    "patching": ("canvas", "canvas"),
    "attention_and_maps": ("canvas", "tokens", "table", "canvas", "canvas", "canvas"),
    "hypotheses": ("picture",) * 3,
}
# nbconvert's pages load require.js: scripts must not take a loader of modules for an invitation.
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
