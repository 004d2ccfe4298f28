"""Evidence is plain data: intervals at any level, and JSON without infinities."""

import json

import pytest
from scipy import stats

from probes.evidence import MODELS, PROMPTS, Accuracy, Evidence, Interval

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
    with pytest.raises(ValueError, match="no t interval"):
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
    e = Evidence("M1", "swap", "why?", 20, "rho", T, None, 96, details={"a": 1})
    assert e.to_json() == {
        "arm": "M1",
        "name": "swap",
        "question": "why?",
        "length": 20,
        "quantity": "rho",
        "value": T.to_json(),
        "control": None,
        "n": 96,
        "unit": PROMPTS,
        "details": {"a": 1},
    }
    other = Evidence("M1", "swap", "why?", 20, "rho", T, Interval(0, 0, 0), 8, unit=MODELS).to_json()
    assert other["control"] == {"value": 0, "low": 0, "high": 0}
    assert other["unit"] == MODELS
    assert PROMPTS != MODELS
