"""Predictions: bounds and rank correlations are decided when all their models are trained."""

import pandas as pd
import pytest

from experiments.grid import runs_of
from experiments.tables.predictions import OF_HINTS, PREDICTIONS, SECOND, outcome, read_predictions
from interp.models.names import ZOO
from tests.experiments.drawing.zoo.runs import rows_of, table, value_of

SEEDS = [1, 2, 3]
BOUND = {
    "configuration": "parity-aligned-alibi",
    "metric": "exact",
    "mode": "forced",
    "length": 40,
    "over": "each",
    "seeds": SEEDS,
}
FRAME = table(rows_of("aligned", failed=(3,)))
LOWEST = value_of("exact", "forced", 40, 2)


@pytest.mark.parametrize(
    ("change", "found", "end"),
    [
        ({"at_least": LOWEST - 0.001}, 2, "holds"),
        ({"at_least": LOWEST + 0.001}, 2, "**fails**"),
        ({"at_least": LOWEST + 0.001, "over": "median"}, 1, "holds"),
        ({"at_least": LOWEST - 0.001, "over": "each of all"}, 3, "**fails**"),
        ({"at_most": LOWEST - 0.001, "over": "each of all"}, 3, "**fails**"),
        ({"at_least": 0.0, "seeds": [1, 2, 3, 4]}, 2, "open"),
        ({"at_least": LOWEST + 0.001, "seeds": [1, 2, 3, 4]}, 2, "open, cannot hold any more"),
        ({"at_least": 1.1, "over": "median", "seeds": [1, 2, 3, 4]}, 1, "open, cannot hold any more"),
        ({"at_least": 1.1, "over": "median", "seeds": [1, 2, 3, 4, 5]}, 1, "open"),
    ],
)
def test_a_bound_holds_for_each_model_or_for_the_median(change, found, end):
    trained, shown, decided = outcome({**BOUND, **change}, FRAME)
    assert trained == f"3 of {len(change.get('seeds', SEEDS))}"
    assert (len(shown.split(", ")), decided) == (found, end)


def test_where_no_model_learned_nothing_is_decided():
    none = table(rows_of("aligned", failed=(1, 2, 3)))
    assert outcome({**BOUND, "at_least": 0.5}, none)[2].startswith("not applicable")


def test_a_bound_waits_for_what_is_not_measured():
    trained, _, decided = outcome({**BOUND, "at_least": 0.0}, FRAME[FRAME["seed"] != 2])
    assert (trained, decided) == ("2 of 3", "open")
    unmeasured = FRAME[(FRAME["seed"] != 2) | (FRAME["metric"] != "exact")]
    trained, shown, decided = outcome({**BOUND, "at_least": 0.0}, unmeasured)
    assert (trained, decided) == ("3 of 3", "open")
    assert shown.endswith("(1 not measured)")
    # The model that is not measured may still keep the bound, and half of a median's models are not more than half.
    assert outcome({**BOUND, "at_least": 1.1, "over": "median"}, unmeasured)[2] == "open"


def test_a_rank_correlation_is_over_models():
    sinks = table(rows_of("aligned", metrics=("rho sink",), modes=("",))).assign(value=lambda f: f["seed"] / 10)
    frame = pd.concat([table(rows_of("aligned")), sinks])
    one = {
        "configurations": ["parity-aligned-alibi"],
        "rank_of": {"metric": "rho sink", "mode": "", "length": 10},
        "against": {"metric": "exact", "mode": "forced", "length": 40},
        "seeds": SEEDS,
    }
    assert outcome({**one, "at_most": -0.5}, frame) == ("3 of 3", "-1.000", "holds")
    assert outcome({**one, "at_least": 0.5}, frame)[2] == "**fails**"


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        (PREDICTIONS.name, ("rehearsal", "replication")),
        (SECOND, ("pretrained-second",)),
        (OF_HINTS, ("baselines",)),
    ],
)
def test_every_prediction_is_about_runs_of_the_grid(name, groups):
    planned = {train.recipe().name for train in runs_of(groups)}
    predictions = read_predictions(ZOO / name)["predictions"]
    assert len({one["id"] for one in predictions}) == len(predictions)
    for one in predictions:
        kinds = one.get("configurations") or [one["configuration"]]
        assert {f"{kind}-seed{seed}" for kind in kinds for seed in one["seeds"]} <= planned, one["id"]
        assert {"at_least", "at_most"} & set(one), one["id"]
