"""Options that are paths say in one line where a file stands for a folder or a folder for a file, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import main
from experiments.support.options import FILE, FOLDER, options_of
from experiments.support.results import writable_folder
from experiments.verbs import VERBS, command_class

RUN = "parity-aligned-alibi"


def paths(*kinds: str) -> list[tuple[str, str]]:
    """Return every option that takes a folder or a file, with its verb."""
    return [
        (verb, name)
        for verb in VERBS
        for name, (_, config) in options_of(command_class(verb)).items()
        if config is not None and config.metavar in kinds
    ]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("as it was")
    Path("folder").mkdir()


def refused(capsys, verb: str, *more: str) -> str:
    """Return the one line of a verb that must fail and writes nothing, without the program and the verb."""
    run = () if verb in ("sweep", "figures", "calibrate", "bench", "gallery") else (RUN,)
    assert main([verb, *run, *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(Path().rglob("*")) == [Path("file"), Path("folder")]
    return line.removeprefix(f"mnemoscope {verb}: ")


@pytest.mark.parametrize(("verb", "option"), paths(FOLDER), ids=" ".join)
def test_a_file_where_a_folder_is_wanted(verb, option, capsys):
    assert len(paths(FOLDER)) >= 10
    for given in ("file", "file/x", "file/x/y"):
        assert refused(capsys, verb, option, given) == f"{option} must be a folder; 'file' is a file"


@pytest.mark.parametrize(("verb", "option"), paths(*FILE), ids=" ".join)
def test_a_folder_where_a_file_is_wanted(verb, option, capsys):
    assert len(paths(*FILE)) >= 4
    assert refused(capsys, verb, option, "folder") == f"{option} must be a file; 'folder' is a folder"
    assert refused(capsys, verb, option, "file/x.html") == f"{option} must be in a folder; 'file' is a file"


def test_the_folder_of_a_models_file_is_named(capsys):
    Path("folder", "config.json").write_text("{}")
    assert main(["verdict", "--model", "folder/config.json"]) == 2
    assert capsys.readouterr().err.endswith(f"is a file; its folder is {Path('folder').absolute()}\n")


def test_a_file_in_the_place_of_the_usual_folder():
    with pytest.raises(ValueError, match=r"^file/x must be a folder; file is a file$"):
        writable_folder(Path("file/x"))
