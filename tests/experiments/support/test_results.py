"""Unfinished work is resumed, damaged work is made again, and bad targets are refused before any work."""

import json

import pytest

from experiments.support.results import load_or_make


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
    assert json.loads(path.read_text()) == {"a": 3, "b": 4}


def test_failed_work_leaves_nothing(tmp_path):
    def interrupted() -> tuple[int, int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_make(tmp_path / "p.json", interrupted, pair_to, pair_from)
    assert not list(tmp_path.iterdir())
