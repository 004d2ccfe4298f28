"""Evidence is plain data: intervals at any level, and JSON without infinities."""

import json

import pytest
from scipy import stats

from probes import keys
from probes.arms.registry import ARMS, keys_of
from probes.evidence import (
    MODELS,
    PROMPTS,
    Accuracy,
    Evidence,
    EvidenceKey,
    Interval,
    find_evidence,
    find_rows,
    parse_key,
)

T = Interval(0.5, 0.4, 0.6, error=0.05, df=9)


def test_an_interval_at_another_level_is_students():
    for level in (0.5, 0.95, 0.999):
        found = T.at(level)
        low, high = stats.t.interval(level, 9, loc=0.5, scale=0.05)
        assert (found.low, found.high) == pytest.approx((low, high))
        assert (found.value, found.error, found.df) == (0.5, 0.05, 9)
    assert T.at(0.99).low < T.at(0.95).low
    assert T.at(0.99).at(0.95) == T.at(0.95)


def test_an_interval_without_an_error_has_one_level():
    with pytest.raises(ValueError, match="not a t interval"):
        Interval(0.5, 0.4, 0.6).at(0.99)


def test_words():
    assert str(T) == "0.500 [0.400, 0.600]"


def test_json_has_no_infinity():
    data = Interval(0.5, float("-inf"), float("nan")).to_json()
    assert data == {"value": 0.5, "low": None, "high": None}
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_an_accuracy_is_one_flat_row():
    assert Accuracy("step", "forced", 20, T, 0.5, 96).to_json() == {
        "metric": "step",
        "mode": "forced",
        "length": 20,
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "chance": 0.5,
        "n": 96,
    }


def test_evidence_goes_to_json_with_all_it_has():
    e = Evidence(keys.SWAP_INPUTS, "why?", 20, "rho", T, None, 96, details={"a": 1})
    assert e.to_json() == {
        "arm": "M1",
        "name": "swap input labels",
        "question": "why?",
        "length": 20,
        "quantity": "rho",
        "value": T.to_json(),
        "control": None,
        "n": 96,
        "unit": PROMPTS,
        "details": {"a": 1},
    }
    other = Evidence(keys.SWAP_INPUTS, "why?", 20, "rho", T, Interval(0, 0, 0), 8, unit=MODELS).to_json()
    assert other["control"] == {"value": 0, "low": 0, "high": 0}
    assert other["unit"] == MODELS
    assert PROMPTS != MODELS


# Keys ---------------------------------------------------------------------------------------------------


def test_every_key_is_given_by_exactly_one_arm():
    declared = [value for value in vars(keys).values() if isinstance(value, EvidenceKey)]
    declared += [key for address in keys.ADDRESSES.values() for key in address.all if key not in declared]
    declared += [address.apart for address in keys.ADDRESSES.values() if address.apart is not None]
    assert sorted(declared, key=str) == sorted(keys_of(), key=str)
    assert len({(key.arm, key.template) for key in declared}) == len(declared)
    assert all(key.arm == arm.code for arm in ARMS.values() for key in arm.keys)


@pytest.mark.parametrize(
    ("arm", "name", "key"),
    [
        ("M1", "either side", keys.EITHER_SIDE),
        ("M5", "history in V at labels", keys.HISTORY_V),
        ("M5", "history in V at labels, L2", keys.HISTORY_V_LAYER.at("L2")),
        ("M7", "attention mass on labels in L1H0", keys.ATTENTION_MASS.at("L1H0")),
        ("M12", "pair, L1H5+L1H6", keys.KNOCKOUT_PAIR.at("L1H5+L1H6")),
    ],
)
def test_a_stored_name_gives_its_key_and_the_key_its_name(arm, name, key):
    assert parse_key(arm, name, keys_of()) == key
    assert (key.arm, key.name) == (arm, name)


@pytest.mark.parametrize(
    ("arm", "name", "words"),
    [
        ("M6", "remove labels, all heads: average", "unknown evidence 'remove labels, all heads: average': M6 gives"),
        ("M5", "history in V at labels, layer 2", "unknown evidence"),
        ("M4", "K at bit, {place}", "unknown evidence"),
        ("M99", "attention", "unknown arm 'M99'"),
    ],
)
def test_an_unknown_name_is_refused_by_name(arm, name, words):
    with pytest.raises(ValueError, match="unknown") as raised:
        parse_key(arm, name, keys_of())
    assert words in str(raised.value)


def test_a_place_belongs_to_a_key_with_places_and_must_be_given():
    for key, place in ((keys.EITHER_SIDE, "L0"), (keys.K_AT_BIT, "layer 0")):
        with pytest.raises(ValueError, match="has no place"):
            key.at(place)
    with pytest.raises(AssertionError, match="needs a layer or head"):
        Evidence(keys.K_AT_BIT, "why?", 20, "rho", T, None, 96)


def test_evidence_and_stored_rows_are_found_by_key():
    attention, at_bit = (
        Evidence(key, "why?", 20, "rho", T, None, 96) for key in (keys.ATTENTION, keys.K_AT_BIT.at("L1"))
    )
    both = (attention, at_bit)
    assert find_evidence(both, keys.K_AT_BIT.at("L1")) is at_bit
    assert find_evidence(both, keys.K_AT_BIT.at("L0")) is None
    assert find_rows([e.to_json() for e in both], keys.ATTENTION) == [attention.to_json()]
