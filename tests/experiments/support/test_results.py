"""Is unfinished work taken up again, and what was damaged made anew?"""

import json

import pytest

from experiments.support.results import kept


def pair_from(found: dict) -> tuple[int, int]:
    return found["a"], found["b"]


def pair_to(pair: tuple[int, int]) -> dict:
    return {"a": pair[0], "b": pair[1]}


def test_what_is_there_is_not_made_again(tmp_path):
    assert kept(tmp_path / "p.json", lambda: (1, 2), pair_to, pair_from) == (1, 2)
    assert kept(tmp_path / "p.json", lambda: pytest.fail("it was on disk"), pair_to, pair_from) == (1, 2)


@pytest.mark.parametrize("left", ["", "{", '{"a": 1', "[]", "null", "3", '{"a": 1}', "\xff"])
def test_what_is_damaged_is_made_anew(tmp_path, left):
    path = tmp_path / "p.json"
    path.write_text(left, encoding="latin-1")
    assert kept(path, lambda: (3, 4), pair_to, pair_from) == (3, 4)
    assert json.loads(path.read_text()) == {"a": 3, "b": 4}


def test_work_that_fails_leaves_nothing(tmp_path):
    def interrupted() -> tuple[int, int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "p.json", interrupted, pair_to, pair_from)
    assert not list(tmp_path.iterdir())
