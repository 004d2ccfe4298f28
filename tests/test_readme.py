"""What the READMEs advertise works when a stranger types it, and their numbers are those of committed files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.tables.places import PLACES, ROOT, with_tables
from interp.models.names import SHIPPED, ZOO
from tests.small_language_model import save_small_gpt2

DOCUMENTS = [path for path in sorted(ROOT.rglob("*.md")) if not {".venv", "build", "mnemoscope-out"} & set(path.parts)]
README = ROOT / "README.md"


def blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of a language in a document."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


SNIPPETS = [
    pytest.param(code, id=f"{path.relative_to(ROOT)}-{k}", marks=[] if path == README else [pytest.mark.slow])
    for path in DOCUMENTS
    for k, code in enumerate(blocks(path, "python"))
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """Return a folder with a small model under the name `gpt2`, which `load` prefers to the hub's."""
    folder = tmp_path_factory.mktemp("work")
    save_small_gpt2(folder / "gpt2")
    return folder


@pytest.mark.parametrize("code", SNIPPETS)
def test_python_snippets_run(code, workplace):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workplace, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_is_short():
    assert README.stat().st_size <= 8192


def test_commands_exist():
    from experiments.verbs import VERBS

    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"`(?:\.venv/bin/)?mnemoscope ([a-z]+)[ `]", text)) - {"completion"}
    assert named <= set(VERBS), sorted(named - set(VERBS))
    assert set(VERBS) <= named, sorted(set(VERBS) - named)


@pytest.mark.parametrize("path", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_the_committed_results(path):
    text = path.read_text(encoding="utf-8")
    assert with_tables(text, PLACES[path]) == text, "run `python -m experiments.tables`"


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)]+))?\)", path.read_text(encoding="utf-8")):
        other = path.parent / target if target else path
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other / "README.md" if other.is_dir() else other), f"{target}#{anchor}"


@pytest.mark.parametrize("package", ["interp", "probes", "experiments", "tests", "figures"])
def test_each_folder_says_how_to_extend_it(package):
    assert "how-to-extend" in anchors(ROOT / package / "README.md")


def test_shipped_runs_are_small():
    folders = [record.parent for place in (SHIPPED, ZOO) for record in place.glob("*/run.json")]
    sizes = {folder.name: sum(f.stat().st_size for f in folder.iterdir()) for folder in folders}
    assert all(size <= 4 * 2**20 for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 80 * 2**20
