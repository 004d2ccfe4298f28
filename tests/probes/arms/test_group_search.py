"""Group testing finds the same heads as testing each alone, in fewer passes, and what only does harm jointly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from interp.tasks import default_vocabulary, sample
from probes.arms import m06_heads, presence_search
from probes.arms.bands import BANDS, FEW_LAYERS, layer_bands
from probes.arms.group_search import MOST_TESTS, joined_in_order, largest_harmless, longest_harmless
from probes.arms.m04_routes import measure_routes
from probes.arms.m05_history import measure_history
from probes.arms.registry import keys_of
from probes.evidence import parse_key
from probes.trials.parity import choose
from tests.probes.oracle_models import planted

UNITS = list(range(540))
HARMFUL = {3, 200, 201, 539}


class Counted:
    """Harm 2 per harmful unit, and of `jointly` where all of them are in a group; counts groups and calls."""

    def __init__(self, jointly: frozenset[int] = frozenset()) -> None:
        self.jointly, self.groups, self.calls = jointly, 0, 0

    def __call__(self, groups: Sequence[Sequence[int]]) -> list[float]:
        self.calls += 1
        self.groups += len(groups)
        return [2.0 * len(HARMFUL & set(g)) + 2.0 * (bool(self.jointly) and self.jointly <= set(g)) for g in groups]


def test_few_harmful_units_of_many_take_few_passes() -> None:
    harms = Counted()
    assert sorted(largest_harmless(UNITS, harms)) == sorted(set(UNITS) - HARMFUL)
    assert harms.groups < len(UNITS) / 5


def test_units_that_do_harm_together_are_not_both_chosen() -> None:
    chosen = set(largest_harmless(UNITS, Counted(frozenset({10, 400}))))
    assert len(chosen & {10, 400}) == 1
    # One of them hides none of those that come after it.
    assert len(chosen) == len(UNITS) - len(HARMFUL) - 1
    assert not chosen & HARMFUL


def test_a_good_order_takes_few_tests() -> None:
    ordered, harms = sorted(UNITS, key=lambda unit: unit in HARMFUL), Counted()
    assert joined_in_order(ordered, harms) == ordered[: -len(HARMFUL)]
    assert harms.groups <= MOST_TESTS


def test_units_in_a_wrong_order_are_left_out_after_the_last_test() -> None:
    harms = Counted()
    found = joined_in_order(UNITS, harms, most=12)
    assert harms.groups == 12
    assert found == [0, 1, 2, *range(4, 16)]  # ten tests halve 540 down to the harmful 3; then 4 to 7, and 8 to 15
    assert joined_in_order(UNITS, harms, most=None) == [unit for unit in UNITS if unit not in HARMFUL]
    assert joined_in_order(UNITS, harms, most=0) == joined_in_order([], harms) == []


def test_the_longest_beginning_without_harm() -> None:
    assert longest_harmless(UNITS, Counted()) == [0, 1, 2]
    assert longest_harmless([], Counted()) == largest_harmless([], Counted()) == []


@pytest.mark.parametrize("mechanism", ["A1", "A2", "placeholder", "sink"])
def test_groups_find_the_heads_that_single_tests_find(mechanism: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = planted(mechanism, "gpt2")
    first, other = (sample("parity-aligned", 24, 10, seed, model.vocabulary) for seed in (7, 8))
    singly = m06_heads.sort_heads(model.model, first, other)
    for module in (m06_heads, presence_search):
        monkeypatch.setattr(module, "MANY_UNITS", 0)
    by_groups = m06_heads.sort_heads(model.model, first, other)
    for found, expected in ((by_groups.idle, singly.idle), (by_groups.counting, singly.counting)):
        assert (found.input_side, found.output_side) == (expected.input_side, expected.output_side)
    assert (by_groups.control is None) == (singly.control is None)


@pytest.mark.parametrize("mechanism", ["A1", "A2", "placeholder", "sink"])
def test_cells_in_first_order_are_those_of_the_search_by_groups(mechanism: str, monkeypatch) -> None:
    model = planted(mechanism, "gpt2")
    batch = sample("parity-aligned", 8, 10, 7, model.vocabulary)
    by_groups = presence_search.find_cells(model.model, batch, 3)
    monkeypatch.setattr(presence_search, "MANY_UNITS", 0)
    assert presence_search.find_cells(model.model, batch, 3) == by_groups


@pytest.mark.parametrize("n_layers", [1, 4, FEW_LAYERS, FEW_LAYERS + 1, 30, 61])
def test_bands_hold_every_layer_once_in_order(n_layers: int) -> None:
    bands = list(layer_bands(n_layers).values())
    assert [layer for band in bands for layer in band] == list(range(n_layers))
    assert all(a[-1] + 1 == b[0] for a, b in pairwise(bands))
    assert len(bands) == (n_layers if n_layers <= FEW_LAYERS else BANDS)


def test_a_deep_model_is_patched_in_bands() -> None:
    vocabulary = default_vocabulary()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_layer": FEW_LAYERS + 1, "n_embd": 16, "n_head": 2, "attn_implementation": "eager"}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(vocabulary.ids), n_positions=64, **sizes)).eval()
    trials = choose(sample("parity-aligned", 120, 10, 0, vocabulary), 0, 16)
    full = torch.ones(len(trials))
    places = list(layer_bands(FEW_LAYERS + 1))
    routes, history = measure_routes(model, trials, full), measure_history(model, trials, full)
    assert [e.name for e in routes if "K at bit" in e.name] == [f"K at bit, {place}" for place in places]
    assert [e.name for e in history if ", L" in e.name] == [f"history in V at labels, {place}" for place in places]
    for evidence in (*routes, *history):
        assert parse_key(evidence.arm, evidence.name, keys_of()) == evidence.key
