"""What comes through TransformerLens and is not ours: `wandb` and `datasets` write nothing and go nowhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOREIGN = ("wandb", "datasets")
WATCH = """
import json, os, sys
seen = {"network": [], "written": [], "processes": []}
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        seen["network"].append(str(args[-1] if event == "socket.connect" else args[0]))
    elif event == "open" and isinstance(args[0], str) and isinstance(args[2], int):
        if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not args[0].startswith("/dev/"):
            seen["written"].append(os.path.abspath(args[0]))
    elif event in ("os.mkdir", "os.rename", "os.symlink") and isinstance(args[0], str):
        seen["written"].append(os.path.abspath(args[0]))
    elif event == "subprocess.Popen":
        seen["processes"].append(str(args[0]))
sys.addaudithook(watch)
import threading
import interp, probes
from experiments.cli import main
from transformer_lens.model_bridge import TransformerBridge
from interp import capture, load
run = load("parity-aligned-alibi")
capture(run, run.sample(2, 3, 0), pattern=[0])
status = main(["evaluate", "parity-aligned-alibi", "--lengths", "3", "--offset-lengths", "3", "--prompts", "2"])
seen["status"] = status
seen["threads"] = [t.name for t in threading.enumerate() if any(x in t.name.lower() for x in ("wandb", "datasets"))]
seen["used"] = [m for m in sys.modules if m.split(".")[0] == "wandb"]
sys.stdout.flush()
os.write(2, b"SEEN" + json.dumps(seen).encode())
"""


@pytest.mark.slow
def test_nothing_of_the_two_runs(tmp_path):
    """No connection, no file outside of the results, no process or thread, no folder in a new home."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_", "WANDB", "MPL", "TRANSFORMERS"))}
    env = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", WATCH], cwd=work, env=env, capture_output=True, text=True, timeout=300)
    assert "SEEN" in done.stderr, done.stderr[-2000:]
    seen = json.loads(done.stderr.rpartition("SEEN")[2])
    assert seen["status"] == 0
    assert not seen["network"]
    assert not seen["used"]
    assert not seen["threads"]
    assert not [command for command in seen["processes"] if any(name in command for name in FOREIGN)]
    assert not [path for path in seen["written"] if any(name in path for name in FOREIGN)]
    assert not [p for p in home.rglob("*") if p.is_file() and "matplotlib" not in p.parts]  # its font cache
    assert {p.name for p in work.iterdir()} == {"mnemoscope-out"}
    assert not [p for p in home.rglob("*") if any(name in p.name for name in FOREIGN)]


def test_our_code_imports_neither():
    for path, text in sources("interp", "probes", "experiments", "tests"):
        assert not re.search(r"^\s*(import|from)\s+(wandb|datasets)\b", text, re.M), path


def test_no_table_is_written_that_a_spreadsheet_would_calculate():
    """Labels are words such as `=` and `+`. Tables are parquet, which has no formulas; none is a spreadsheet's text."""
    for path, text in sources("interp", "probes", "experiments"):
        assert not re.search(r"to_csv|to_excel|to_clipboard|\bimport csv\b|\.(csv|tsv|xlsx?|ods)[\"']", text), path


def sources(*packages: str) -> Iterator[tuple[Path, str]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")
