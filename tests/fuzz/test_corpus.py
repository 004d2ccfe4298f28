"""Inputs that once failed in the guided fuzzer, that reached new code, and its valid seeds, are tried again."""

from __future__ import annotations

import json

import pytest

from tests.fuzz import targets
from tests.fuzz.guided import CORPUS, KINDS, kept_inputs, mutated_json, shortest


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus_and_the_seeds_are_handled(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(targets.folder, "check_in_child", targets.folder.check_in_child)  # the target replaces it
    one = targets.target(kind, tmp_path)
    for path in sorted((CORPUS / kind).glob("*.json")):
        one(path.read_bytes())
    refused = []
    monkeypatch.setattr(targets, "refusal", lambda work: _noted(work, refused))
    for seed in targets.seeds(kind):
        one(seed)
    assert not refused, "a seed that is refused leads nowhere"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_reached_new_code_are_handled(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(targets.folder, "check_in_child", targets.folder.check_in_child)
    one, kept = targets.target(kind, tmp_path), kept_inputs(kind)
    assert len(kept) > 20
    for data in kept:
        one(data)


def test_the_shortest_inputs_that_fit_are_kept():
    inputs = [b'{"b": 2}', b"{}", b"{}", b'{"a":\n1}', b"[1]", b"\xff", b'{"long": 1234}']
    assert shortest(inputs, budget=12) == [b"{}", b'{"b": 2}']


def _noted(work, refused):
    try:
        return work()
    except ValueError as error:
        refused.append(str(error))


def test_a_mutation_changes_valid_json_and_is_the_same_for_a_seed():
    seed = json.dumps({"a": [1, {"b": 2}], "c": "x"}).encode()
    found = {mutated_json(seed, i) for i in range(50)}
    assert len(found) > 20
    assert mutated_json(seed, 3) == mutated_json(seed, 3)
