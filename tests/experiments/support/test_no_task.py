"""A model without a task: the line of a command names options, the error in Python a call."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from experiments import load
from experiments.cli import main
from experiments.support import run_checks, verdict_checks
from experiments.support.options import options_of
from experiments.verbs import VERBS, command_class
from interp.models.names import SHIPPED
from interp.models.no_task import NoTask

POSED = [verb for verb in VERBS if "--format" in options_of(command_class(verb))]
NONE = "no task is posed to plain, which has no run.json: name a format, such as --format parity-aligned"
TEXT = f"{NONE}; or give text with --clean, --corrupted and --answer"
LINES = {
    "verdict": f"{NONE}; or judge any language model with --task list-letters, recall, ",
    "report": NONE,
    "evaluate": NONE,
    "patch": TEXT,
    "circuit": TEXT,
    "attention": f"{NONE}; or give a prompt with --prompt",
}


@pytest.fixture
def plain(tmp_path, monkeypatch) -> Path:
    """A folder with a model and no run.json."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SHIPPED / "parity-aligned-alibi", "plain", ignore=shutil.ignore_patterns("*.json~", "run.json"))
    return Path("plain")


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("verb", POSED)
def test_a_command_names_its_options(verb, early, plain, monkeypatch, capsys):
    assert set(POSED) == set(LINES)
    if not early:  # as for a model of the hub, which has to be loaded first
        monkeypatch.setattr(run_checks, "check_posed", lambda *_: None)
        monkeypatch.setattr(verdict_checks, "check_posed", lambda *_: None)
    assert main([verb, str(plain)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mnemoscope {verb}: {LINES[verb]}")
    assert "load(" not in line


def test_the_error_in_python_names_a_call_and_comes_back_from_another_process(plain):
    with pytest.raises(NoTask) as raised:
        load(plain).require_task()
    assert str(raised.value).endswith(": name a format, such as load(..., fmt='parity-aligned')")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.why) == (str(raised.value), raised.value.why)
