"""Where two models have one name, a command says in one line which of them it uses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from experiments import load
from experiments.cli import main
from experiments.support.same_name import say_which, saying_which
from interp.models.names import SHIPPED

RUN = "parity-aligned-alibi"
SHORT = ("--lengths", "3", "--offset-lengths", "--prompts", "2")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_local_folder_beside_a_shipped_run_is_named_once(capsys):
    assert main(["evaluate", RUN, *SHORT]) == 0
    assert "two models" not in capsys.readouterr().err
    assert main(["evaluate", RUN, *SHORT]) == 0  # its results are no model
    assert "two models" not in capsys.readouterr().err
    shutil.copytree(SHIPPED / RUN, RUN)
    line = f"two models are named {RUN}: {SHIPPED / RUN} is used; to use the other, write ./{RUN}"
    assert main(["evaluate", RUN, *SHORT]) == 0
    assert capsys.readouterr().err.splitlines().count(line) == 1
    assert main(["evaluate", f"./{RUN}", *SHORT, "--out", "own"]) == 0
    assert "two models" not in capsys.readouterr().err


def test_it_is_said_once_and_only_by_a_command(capsys):
    shutil.copytree(SHIPPED / RUN, RUN)
    load(RUN)
    say_which(RUN)
    assert capsys.readouterr().err == ""
    with saying_which():
        say_which(RUN)
        load(RUN)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"two models are named {RUN}: ")


def test_a_model_to_train_from_is_named_too(capsys):
    from experiments.training.recipe import Pretrained, fine_tuning
    from experiments.training.state import beginning

    shutil.copytree(SHIPPED / RUN, Path("mnemoscope-out") / RUN)
    with saying_which():
        beginning(fine_tuning("parity-aligned", Pretrained(RUN), seed=1))
    assert f"write {Path('mnemoscope-out') / RUN}" in capsys.readouterr().err
