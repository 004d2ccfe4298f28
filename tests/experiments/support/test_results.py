"""Unfinished work is resumed, damaged work is made again, and bad targets are refused before any work."""

import json
import os

import pytest

from experiments import load
from experiments.cli import main
from experiments.support.results import load_or_make, work_folder, writable_folder
from interp.support.writing import read_digested, write_digested


def pair_from(data: dict) -> tuple[int, int]:
    return data["a"], data["b"]


def pair_to(pair: tuple[int, int]) -> dict:
    return {"a": pair[0], "b": pair[1]}


def test_a_piece_on_disk_is_not_made_again(tmp_path):
    assert load_or_make(tmp_path / "p.json", lambda: (1, 2), pair_to, pair_from) == (1, 2)
    assert load_or_make(tmp_path / "p.json", lambda: pytest.fail("it was on disk"), pair_to, pair_from) == (1, 2)


@pytest.mark.parametrize("left", ["", "{", '{"a": 1', "[]", "null", "3", '{"a": 1}', "\xff"])
def test_a_damaged_piece_is_made_again(tmp_path, left):
    path = tmp_path / "p.json"
    path.write_text(left, encoding="latin-1")
    assert load_or_make(path, lambda: (3, 4), pair_to, pair_from) == (3, 4)
    write_digested(path, left.encode("latin-1"))  # whole, and of another kind
    assert load_or_make(path, lambda: (3, 4), pair_to, pair_from) == (3, 4)
    assert json.loads(read_digested(path) or b"") == {"a": 3, "b": 4}


def test_failed_work_leaves_nothing(tmp_path):
    def interrupted() -> tuple[int, int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_make(tmp_path / "p.json", interrupted, pair_to, pair_from)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_checked_and_not_made(tmp_path):
    deep = tmp_path / "a" / "b"
    assert writable_folder(deep) == deep
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="cannot be written: File name too long"):
        writable_folder(tmp_path / ("x" * 300) / "y")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for folder in (tmp_path / "nowhere", tmp_path / "nowhere" / "b"):
        with pytest.raises(ValueError, match="cannot be written"):
            writable_folder(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_in_one_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ValueError, match="cannot be written: Permission denied"):
            writable_folder(tmp_path / "a" / "b")
    finally:
        tmp_path.chmod(0o700)


RUN = "parity-aligned-alibi"


@pytest.mark.parametrize(
    "argv",
    [
        ("attention", RUN, "--layers", "31"),
        ("evaluate", RUN, "--lengths", "1000"),
        ("patch", RUN, "--layers", "31"),
        ("verdict", RUN, "--fresh", "--lengths", "1000"),
    ],
    ids=" ".join,
)
def test_a_command_that_is_refused_leaves_no_folder(argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(list(argv)) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "stays"), [(ValueError("no edge has an effect"), False), (KeyboardInterrupt(), True), (OSError(28), True)]
)
def test_unfinished_work_stays_only_where_the_same_command_can_use_it(tmp_path, error, stays):
    run = load("parity-aligned-alibi")

    def fail() -> None:
        with work_folder(tmp_path, run, "patch", ["options"]) as work:
            (work / "0.json").write_text("{}")
            (work / "deep").mkdir()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert bool(list(tmp_path.iterdir())) == stays
