"""The picture of a verdict: estimates, controls and planted models are at their values."""

import json
from pathlib import Path

import numpy as np
import pytest

from probes.views.verdicts import draw_verdict, planted_values, verdict

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
CALIBRATION = json.loads((EXPERIMENTS / "results" / "calibration.json").read_text("utf-8"))
SHIPPED = sorted((EXPERIMENTS / "runs").glob("*/verdict.json"))


def role(status, rho=None, ci=None, control=None):
    return {"status": status, "rho": rho, "ci": ci, "control": control, "reason": "because"}


FOUND = {
    "verdict": "anchor",
    "models": ["mine"],
    "margins": {"rho": 0.1},
    "roles": {
        "anchor": role("PRESENT", 0.8, [0.7, 0.9], {"value": 0.01, "low": -0.02, "high": 0.04}),
        "placeholder": role("UNRESOLVED"),
        "sink": role("ABSENT", 0.0, [None, 0.03]),
    },
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_verdicts_are_drawn_beside_the_calibration(path):
    data = json.loads(path.read_text("utf-8"))
    view = verdict(data, CALIBRATION)
    assert data["run"] in view.alt
    for name, found in data["roles"].items():
        assert f"{name} {found['status']}" in view.alt
    assert view.still.startswith(b"<?xml")  # a PNG would not follow the dark theme
    shown = [data, *data["by_length"]] if len(data["by_length"]) != 1 else [data]
    on_margins = sum("margins" in found["roles"]["sink"] for found in shown)
    assert view.live.count("<tr>") == 1 + 3 * len(shown) + on_margins
    assert view.live.count("sink, on margins") == view.live.count("<td>the mean size of margins</td>") == on_margins


def test_planted_models_are_parted_by_what_was_planted():
    planted = planted_values(CALIBRATION)
    for name, parted in planted.items():
        cases = [case for case in CALIBRATION["judged"] if case["roles"][name]["rho"] is not None]
        truths = [case["truth"]["roles"][name] for case in cases]
        assert len(parted[True]) == sum(truths)
        assert len(parted[False]) == len(truths) - sum(truths)
        assert np.median(parted[True]) > 0.5 > 0.1 > np.median(parted[False])
    assert planted_values(None) == {}


def test_estimate_interval_and_control_stand_at_their_values():
    figure = draw_verdict(FOUND, CALIBRATION)
    anchor, placeholder, sink = figure.axes
    drawn = [list(np.asarray(line.get_xdata())) for line in anchor.lines]
    assert [0.7, 0.9] in drawn
    assert [0.8] in drawn
    assert [-0.02, 0.04] in drawn
    assert [0.01] in drawn
    dots = [line for line in anchor.lines if np.size(line.get_xdata()) > 10]
    planted = planted_values(CALIBRATION)["anchor"]
    assert [list(np.asarray(line.get_xdata())) for line in dots] == [planted[k] for k in (True, False)]
    assert placeholder.texts[0].get_text() == "UNRESOLVED: not measured"
    assert any(text.get_text().startswith("ABSENT") for text in sink.texts)


def test_a_verdict_object_will_do_and_no_calibration_is_needed():
    class Verdict:
        def to_json(self):
            return FOUND

    view = verdict(Verdict())
    assert view.title == "What do the labels do in mine? Verdict: anchor"
    assert "unbounded to 0.030" in view.live
    assert "planted" not in view.alt


@pytest.mark.parametrize("data", [{}, {"roles": {}}, {"verdict": "x", "roles": {"hero": role("PRESENT")}}])
def test_what_is_no_verdict_is_refused(data):
    with pytest.raises(ValueError, match=r"to_json|one of anchor, placeholder, sink"):
        verdict(data)
