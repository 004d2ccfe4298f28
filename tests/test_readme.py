"""What the README advertises works when a stranger types it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from interp.models.names import SHIPPED, ZOO
from experiments.tables.places import PLACES, with_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_snippets_run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "output label" in done.stdout
    if found := re.search(r"completeness gap (\S+)", done.stdout):
        assert float(found[1]) < 0.05


def test_the_example_script_is_short_and_runs():
    path = ROOT / "experiments" / "patching_example.py"
    code = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 15
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "output label 25" in done.stdout.splitlines()[0]


def test_commands_of_the_readme_exist():
    from experiments import cli

    verbs = set(re.findall(r"`(?:\.venv/bin/)?mnemoscope ([a-z]+) ", README))
    known = [get_args(verb)[0] for verb in get_args(cli.Verb)]
    assert verbs == {verb.__name__.removesuffix("Command").lower() for verb in known}


@pytest.mark.parametrize("path", PLACES, ids=str)
def test_the_tables_are_the_committed_results(path):
    text = path.read_text(encoding="utf-8")
    assert with_tables(text, PLACES[path]) == text, "run `python -m experiments.tables`"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_shipped_runs_are_small():
    folders = [record.parent for place in (SHIPPED, ZOO) for record in place.glob("*/run.json")]
    sizes = {folder.name: sum(f.stat().st_size for f in folder.iterdir()) for folder in folders}
    assert all(size <= 4 * 2**20 for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 80 * 2**20
