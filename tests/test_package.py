"""The built wheel, installed outside of the checkout, does what the README promises of an installed package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return the `bin` folder of a new environment with the wheel; dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    unneeded = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", "mnemoscope-out")
    shutil.copytree(ROOT, folder / "source", ignore=unneeded)  # a build leaves files beside the source
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(folder / "source")]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    executables = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    where = [executables / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    # A folder named in a .pth file is searched after the environment's own, and its own .pth files (among them the
    # editable install of this checkout) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    install = [executables / "python", "-m", "pip", "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return executables


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_installed_package_is_the_one_that_is_imported(installed, tmp_path):
    done = run(installed / "python", "-c", "import interp; print(interp.__file__)", cwd=tmp_path)
    assert str(installed.parent) in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["parity-aligned-alibi", "parity-aligned-alibi-seed3"])
def test_shipped_runs_load_beside_a_folder_named_experiments(installed, tmp_path, name):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise RuntimeError('the user's own package')\n")
    code = f"from interp import load; print(load({name!r}).sample(batch_size=1, length=2, seed=0).n_pos)"
    done = run(installed / "python", "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "10", done.stderr


def test_the_command_line_patches_and_judges(installed, tmp_path):
    for argv in (["patch", "parity-aligned-alibi", "--length", "6"], ["--help"]):
        done = run(installed / "mnemoscope", *argv, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_tables_refuse_an_installation_in_one_line(installed, tmp_path):
    done = run(installed / "python", "-m", "experiments.tables", cwd=tmp_path)
    assert done.returncode == 2
    assert "checkout" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
